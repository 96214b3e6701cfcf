"""Every head of a run, exported at the size of the network and at any size, compared with `predict` on 1,000 images.

    python exported_table.py make RUN CACHE WORK       with featurecache: files, their parts, images, labels
    python exported_table.py compare WORK [N]          in an environment of numpy, onnxruntime and Pillow alone

The network of a file is most of its time, and the same for every head. `make` cuts each file before the features of its
head and checks that the parts before are the same in all files of a size. `compare` runs that part once for every
image, and each head on its features; heads of WHOLE run as whole files on N images, or all, the others on FEW images.
The time of an image is the shortest, as other programs may run meanwhile.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WHOLE = ("logistic", "rbf_svm")
FEW = 10
# Images of the run that `export` itself compares every file on.
BY_EXPORT = 25
SIZES = {"fixed": True, "any": False}
CUT = "features_0"


def make(run: Path, cache: Path, work: Path) -> None:
    """Write, into a new folder, every head of a run as files, their parts, images as PNG and the answers of predict."""
    from featurecache.base.progress import Silent
    from featurecache.export import references
    from featurecache.export.export import export_model
    from featurecache.export.odd_images import write_odd_images
    from featurecache.predictor import Predictor

    work.mkdir(parents=True)
    names = [row["name"] for row in json.loads((run / "results.json").read_text())["heads"]]
    manifest = references.images_of_run(run, images=None, progress=Silent())
    odd = write_odd_images(work / "odd")
    predicted: dict[str, Any] = {}
    for name in names:
        predictor = Predictor.load(run, head=name, cache_root=cache)
        found = [references.references_of(predictor, each, Silent()) for each in (manifest, odd)]
        if name == names[0]:
            _write_pixels(work, predictor, [each.path for each in (*found[0], *found[1])])
            predicted["n_odd"] = len(found[1])
        predicted[f"{name}-codes"] = [each.code for part in found for each in part]
        predicted[f"{name}-proba"] = np.stack([each.proba for part in found for each in part])
    np.savez(work / "predicted.npz", **predicted)
    references.MOST_IMAGES = BY_EXPORT
    digests: dict[str, set[str]] = {size: set() for size in SIZES}
    for name in names:
        for size, fixed in SIZES.items():
            exported = export_model(run, work / f"{name}-{size}.onnx", head=name, fixed=fixed, cache_root=cache)
            digests[size].add(_cut(exported.path))
            print(exported.text(), flush=True)
    assert all(len(each) == 1 for each in digests.values()), digests
    (work / "heads.json").write_text(json.dumps(names))


def _write_pixels(work: Path, predictor: Any, paths: list[Path]) -> None:
    """Write images as featurecache decodes them, and resized and cropped."""
    from featurecache.export.differences import fitted
    from featurecache.export.parity import decoded

    for size in SIZES:
        (work / size).mkdir()
    for number, path in enumerate(paths):
        pixels = decoded(path, predictor.spec)
        Image.fromarray(pixels).save(work / "any" / f"{number:04}.png")
        Image.fromarray(fitted(pixels, predictor.spec.transform)).save(work / "fixed" / f"{number:04}.png")


def _cut(path: Path) -> str:
    """Write the part of a file before the features of its head and the part after; return the digest of the first."""
    import onnx

    model = onnx.load(path)
    nodes = list(model.graph.node)
    place = next(i for i, node in enumerate(nodes) if CUT in node.output)
    features = onnx.helper.make_tensor_value_info(CUT, onnx.TensorProto.FLOAT, [1, "D"])
    before = _part(model, nodes[: place + 1], list(model.graph.input), [features])
    after = _part(model, nodes[place + 1 :], [features], list(model.graph.output))
    head, _, size = path.stem.rpartition("-")
    (path.parent / f"network-{size}.part").write_bytes(before)
    (path.parent / f"{head}-{size}.part").write_bytes(after)
    return hashlib.sha256(before).hexdigest()


def _part(model: Any, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> bytes:
    import onnx

    used = {name for node in nodes for name in node.input}
    tensors = [each for each in model.graph.initializer if each.name in used]
    graph = onnx.helper.make_graph(nodes, "part", inputs, outputs, tensors)
    content: bytes = onnx.helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version
    ).SerializeToString(deterministic=True)
    return content


def compare(work: Path, n_whole: str = "") -> None:
    """Print, and write into table.json, how far every file agrees with predict, its size and its time."""
    import onnxruntime

    absent = [name for name in ("torch", "featurecache") if importlib.util.find_spec(name) is not None]
    assert not absent, f"{absent} are installed here"
    predicted, names = np.load(work / "predicted.npz"), json.loads((work / "heads.json").read_text())
    n_odd, rows = int(predicted["n_odd"]), []
    for size in SIZES:
        images = [np.asarray(Image.open(path)) for path in sorted((work / size).glob("*.png"))]
        network = _session(work / f"network-{size}.part")
        features = [network.run([CUT], {"image": image})[0] for image in images]
        for name in names:
            head = _session(work / f"{name}-{size}.part")
            answers = [head.run(["probabilities", "label"], {CUT: each}) for each in features]
            wanted = list(zip(predicted[f"{name}-proba"], predicted[f"{name}-codes"], strict=True))
            row = {"head": name, "size": size, **_agreement(answers, wanted, n_odd)}
            row |= _as_a_whole(work / f"{name}-{size}.onnx", images[: int(n_whole) if n_whole else None], answers)
            rows.append(row)
            print(json.dumps(row), flush=True)
    about = {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__, "python": platform.python_version()}
    (work / "table.json").write_text(
        json.dumps({"about": {**about, "processor": _processor()}, "rows": rows}, indent=2)
    )


def _agreement(answers: list[Any], wanted: list[Any], n_odd: int) -> dict[str, Any]:
    """Return how many labels are the same and the largest difference of a probability, of images and of odd ones."""
    same = [int(label) == int(code) for (_, label), (_, code) in zip(answers, wanted, strict=True)]
    apart = [float(np.abs(found - proba).max()) for (found, _), (proba, _) in zip(answers, wanted, strict=True)]
    n = len(wanted) - n_odd
    return {
        "n": n, "n_same": sum(same[:n]), "largest": max(apart[:n]),
        "n_odd": n_odd, "n_same_odd": sum(same[n:]), "largest_odd": max(apart[n:], default=0.0),
    }  # fmt: skip


def _as_a_whole(path: Path, images: list[Any], answers: list[Any]) -> dict[str, Any]:
    """Return size and time of a whole file, and how far it is from the answers of its parts on n images."""
    session, milliseconds, found = _session(path), [], []
    is_all = path.stem.rpartition("-")[0] in WHOLE
    for image in images if is_all else images[:FEW]:
        started = time.perf_counter()
        found.append(session.run(["probabilities", "label"], {"image": image}))
        milliseconds.append(1000 * (time.perf_counter() - started))
    apart = max(float(np.abs(one[0] - other[0]).max()) for one, other in zip(found, answers, strict=False))
    same = all(int(one[1]) == int(other[1]) for one, other in zip(found, answers, strict=False))
    assert same, f"{path.name} as a whole gives other labels than its parts"
    return {"mb": path.stat().st_size / 1e6, "ms": min(milliseconds), "n_whole": len(found), "whole_to_parts": apart}


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(path.read_bytes(), options)


def _processor() -> str:
    lines: Iterator[str] = iter(Path("/proc/cpuinfo").read_text().splitlines())
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*map(Path, sys.argv[2:]))
    else:
        compare(Path(sys.argv[2]), *sys.argv[3:])
