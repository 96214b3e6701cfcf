"""Whether the oldest and the newest libraries, and all instruction sets of torch, give the same pixels and vectors.

    python tests/tools/compat.py [FOLDER] [--newest] [--images N]      (`make compat`: .venv-compat, 200 images)

FOLDER/oldest is a virtual environment with the lower bound of every library in pyproject.toml; the newest are those of
the environment that this runs in, or with --newest those of FOLDER/newest, which is brought up to date first. In each,
and with each ATEN_CPU_CAPABILITY, the same image files are decoded, resized and cropped, and run through a network.

Prints a table with a row for each. Exit code 1 if any pixel differs from those of the first row in a bit, or any vector
by more than 1e-4 of its length.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from compat_images import make_images
from compat_measure import ABOUT, DECODED, ENGINES, VECTORS
from numpy.typing import NDArray

from featurecache.base.text import count, table
from featurecache.extract.engines.choice import TOLERANCE
from featurecache.extract.engines.device_check import largest_error

ROOT = Path(__file__).parent.parent.parent
MEASURE = Path(__file__).with_name("compat_measure.py")
# What ATEN_CPU_CAPABILITY may say; native is what torch takes by itself.
NATIVE, CAPABILITIES = "native", ("native", "avx2", "default")
NAMES_SHOWN = 10

Arrays = Mapping[str, NDArray[np.generic]]


class PixelDifference(NamedTuple):
    """The images whose decoded pixels differ, those whose inputs do, and the largest difference of a value."""

    decoded: list[str]
    fitted: list[str]
    largest: int


def compare_pixels(first: Arrays, second: Arrays) -> PixelDifference:
    """Compare two results of `measure_pixels`; an image that only one refuses, or in another shape, differs by 255."""
    decoded, fitted, largest = set(), set(), 0
    for key in sorted(_pixel_keys(first) | _pixel_keys(second)):
        a, b = first.get(key), second.get(key)
        if a is not None and b is not None and a.shape == b.shape:
            difference = int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max(initial=0))
        else:
            difference = 255
        name, what = key.rsplit("/", 1)
        if difference:
            (decoded if what == DECODED else fitted).add(name)
        largest = max(largest, difference)
    return PixelDifference(sorted(decoded), sorted(fitted), largest)


def hash_pixels(arrays: Arrays) -> str:
    """Return the SHA-256 of all pixels, with their names and shapes."""
    hashed = hashlib.sha256()
    for key in sorted(_pixel_keys(arrays)):
        hashed.update(f"{key} {arrays[key].shape} ".encode() + arrays[key].tobytes())
    return hashed.hexdigest()


def compare_vectors(first: Arrays, second: Arrays) -> dict[str, float | None]:
    """Return the largest relative difference of a vector from the first engine's of the first result, by engine.

    Infinite where one result has other images than the other, or an engine ran for neither; None for an engine other
    than torch that ran for the first only: an extraction takes torch there.
    """
    reference = first[f"{VECTORS}/{ENGINES[0]}"]
    found: dict[str, float | None] = {}
    for engine in ENGINES:
        vectors = second[f"{VECTORS}/{engine}"]
        if not vectors.size and engine != "torch" and first[f"{VECTORS}/{engine}"].size:
            found[engine] = None
        else:
            is_like = vectors.size and vectors.shape == reference.shape
            found[engine] = largest_error(vectors, reference) if is_like else float("inf")
    return found


def _pixel_keys(arrays: Arrays) -> set[str]:
    return {key for key in arrays if key != ABOUT and not key.startswith(f"{VECTORS}/")}


def oldest_requirements(pyproject: Path) -> list[str]:
    """Return each dependency with its lower bound as the version. Raises ValueError for one without a lower bound."""
    found = []
    for each in tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)", each)
        if match is None:
            raise ValueError(f"{pyproject.name}: '{each}' has no lower bound of the form NAME>=VERSION")
        found.append(f"{match[1]}=={match[2]}")
    return found


def make_environment(folder: Path, requirements: list[str], *, is_updated: bool = False) -> Path:
    """Install featurecache with these requirements into a virtual environment, and return its Python.

    One that has them already is used as it is, or brought up to date first.
    """
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp, wanted = folder / "installed.txt", "\n".join([sys.version, *requirements])
    is_there = stamp.exists() and stamp.read_text(encoding="utf-8") == wanted
    if is_there and not is_updated:
        return python
    if folder.exists() and not (folder / "pyvenv.cfg").exists():
        raise ValueError(f"{folder} is there and no virtual environment: name another folder")
    print(f"installing into {folder}: some minutes and gigabytes, most of it torch", flush=True)
    if not is_there:
        venv.create(folder, clear=True, with_pip=True)
    update = ["--upgrade", "--upgrade-strategy", "eager"] if is_updated else []
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *update]
    subprocess.run([*install, "--editable", ROOT, *requirements], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def measure(python: Path, capability: str, images: Path, out: Path) -> dict[str, NDArray[np.generic]]:
    """Return the pixels and vectors of the images in an environment, with this instruction set of torch."""
    variables = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    if capability != NATIVE:
        variables["ATEN_CPU_CAPABILITY"] = capability
    subprocess.run([python, MEASURE, images, out], check=True, env=variables)
    with np.load(out) as arrays:
        return {**arrays}


def judge_all(pythons: Mapping[str, Path], n_images: int) -> tuple[list[list[str]], list[str]]:
    """Return the rows of the table, and a line for each failure."""
    rows, failures, first = [], [], None
    with tempfile.TemporaryDirectory() as name:
        images = Path(name, "images")
        images.mkdir()
        for file, data in make_images(n_images):
            (images / file).write_bytes(data)
        for which, python in pythons.items():
            for capability in CAPABILITIES:
                found = measure(python, capability, images, Path(name, "measured.npz"))
                first = first or found
                row, lines = judge(first, found)
                rows.append([which, capability, *row])
                failures += [f"{which}, {capability}: {line}" for line in lines]
                print(f"{which}, {capability}: measured", flush=True)
    return rows, failures


def judge(first: Arrays, found: Arrays) -> tuple[list[str], list[str]]:
    """Return the cells of one result, compared with the first, and what is wrong with it."""
    about = json.loads(str(found[ABOUT]))
    pixels, errors = compare_pixels(first, found), compare_vectors(first, found)
    cells = [about["torch"], about["torchvision"], about["capability"], hash_pixels(found)[:12]]
    cells += [str(len(pixels.decoded)), str(len(pixels.fitted)), str(pixels.largest)]
    cells += ["does not run" if error is None else f"{error:.1e}" for error in errors.values()]
    return cells, [*_pixel_failures(pixels), *_vector_failures(errors)]


def _pixel_failures(pixels: PixelDifference) -> Iterator[str]:
    for what, names in (("decoded", pixels.decoded), ("resized and cropped", pixels.fitted)):
        if names:
            more = ", ..." if len(names) > NAMES_SHOWN else ""
            shown = ", ".join(names[:NAMES_SHOWN]) + more
            yield f"{count(len(names), 'image')} {what} to other pixels: {shown}"


def _vector_failures(errors: Mapping[str, float | None]) -> Iterator[str]:
    for engine, error in errors.items():
        if error is not None and not error <= TOLERANCE:
            yield f"vectors of {engine} differ by {error:.1e} of their length, more than {TOLERANCE:g}"


HEADERS = ["libraries", "ATEN_CPU_CAPABILITY", "torch", "torchvision", "uses", "pixels", "decoded differ"]
HEADERS += ["cropped differ", "largest", *ENGINES]


def main() -> None:
    """Make the environments that are missing, measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".venv-compat")
    parser.add_argument("--newest", action="store_true", help="the newest libraries in an environment of their own")
    parser.add_argument("--images", type=int, default=200)
    given = parser.parse_args()
    oldest = make_environment(given.folder / "oldest", oldest_requirements(ROOT / "pyproject.toml"))
    newest = make_environment(given.folder / "newest", [], is_updated=True) if given.newest else Path(sys.executable)
    rows, failures = judge_all({"newest": newest, "oldest": oldest}, given.images)
    print(table(rows, HEADERS, right=range(6, len(HEADERS))))
    print("\n".join(failures) or "The same pixels in every bit, and the same vectors.")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
