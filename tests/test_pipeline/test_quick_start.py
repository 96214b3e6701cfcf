"""Labelling one image and extracting a few with a stored graph: without torch, torchvision and scikit-learn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from featurecache.base.exits import DONE
from featurecache.cli.main import run

# Whatever asks for one of these ends the process with a traceback of who asked.
ALONE = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "sklearn", "scipy", "pandas"):
            raise RuntimeError(f"{name} is imported")

sys.meta_path.insert(0, Refused())
from featurecache.cli.main import run
for number, words in enumerate(" ".join(sys.argv[1:]).split(" / ")):
    code = run(words.split(" "))
    print(number, code, [name for name in ("torch", "torchvision", "sklearn") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits_folder, filled_cache) -> Path:
    """A run of two heads on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge,knn", "--out"]
    assert run([*command, str(folder), "--quiet"]) == DONE
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, filled_cache) -> Path:
    """A copy of the cache of the digits."""
    return Path(shutil.copytree(filled_cache, tmp_path_factory.mktemp("prepared") / "cache"))


def mirrored(digits_folder: Path, folder: Path) -> list[Path]:
    """Three images that no cache has: a PNG, a JPEG and a large one."""
    first = next(iter(sorted(digits_folder.rglob("*.png"))))
    image = ImageOps.mirror(Image.open(first).convert("RGB"))
    places = [folder / "one.png", folder / "two.jpg", folder / "three.jpg"]
    for place, size in zip(places, [(9, 9), (60, 40), (500, 375)], strict=True):
        image.resize(size).save(place)
    return places


def alone(*commands: list[str]) -> list[str]:
    words = " / ".join(" ".join(command) for command in commands).split(" ")
    search = os.pathsep.join(path for path in sys.path if path)
    ended = subprocess.run(
        [sys.executable, "-P", "-c", ALONE, *words],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": search},
    )  # fmt: skip
    found = [line for line in ended.stdout.splitlines() if line[:2] in ("0 ", "1 ")]
    assert all(line[2:3] == "0" for line in found), ended.stderr
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux is it known without torch that there is no GPU")
def test_predict_and_extract_of_new_images_import_neither_torch_nor_scikit_learn(
    finished, prepared, digits_folder, tmp_path
):
    one, *others = mirrored(digits_folder, tmp_path)
    predict = ["predict", str(finished), str(one), "--cache", str(prepared), "--quiet"]
    extract = ["extract", str(tmp_path), "--cache", str(prepared), "--device", "cpu", "--quiet"]
    found = alone([*predict, "--head", "knn"], extract)
    assert found == ["0 0 []", "1 0 []"]
    # With torch, in this process, every row has the same bits.
    from featurecache import FeatureCache, FeatureRequest, extract_features, read_images

    again = tmp_path / "again"
    reports = [extract_features(read_images(tmp_path), [FeatureRequest()], root) for root in (prepared, again)]
    assert [report.filled[0].n_extracted for report in reports] == [0, 3]
    caches: list[FeatureCache] = [report.filled[0].cache for report in reports]
    first, second = (cache.lookup(reports[0].digests) for cache in caches)
    assert first.tobytes() == second.tobytes()
    assert len(others) == 2
