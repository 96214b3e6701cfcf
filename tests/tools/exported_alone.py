"""An exported file in an environment of numpy, onnxruntime and Pillow alone, compared with what `predict` wrote.

    featurecache predict RUN IMAGES --head HEAD --out predictions.csv
    featurecache export RUN --head HEAD --out model.onnx
    python exported_alone.py model.onnx predictions.csv IMAGES             in the other environment

A file of `--fixed` takes images that are resized and cropped already. These are written, as PNG files, by

    python exported_alone.py --fit FITTED predictions.csv IMAGES           with featurecache

and compared by `python exported_alone.py fixed.onnx predictions.csv FITTED`. Images are drawn evenly from the table.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MOST_IMAGES = 1000


def read_plainly(path: Path) -> np.ndarray:
    """The pixels of an image file, uint8 (H, W, 3), as the example of pipeline/export/README.md reads them."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))


def drawn(predictions: Path) -> list[dict[str, str]]:
    """Up to MOST_IMAGES rows of a table of predictions, evenly."""
    with predictions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    step = max(1.0, len(rows) / MOST_IMAGES)
    return [rows[int(i * step)] for i in range(min(len(rows), MOST_IMAGES))]


def fit(folder: Path, predictions: Path, images: Path, *, backbone: str = "efficientnet_lite0") -> None:
    """Write the images, resized and cropped as featurecache does it for a backbone, as PNG files."""
    from featurecache.export.differences import fitted
    from featurecache.extract.job.request import FeatureRequest

    transform = FeatureRequest(backbone).load().transform
    for row in drawn(predictions):
        place = (folder / row["path"]).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fitted(read_plainly(images / row["path"]), transform)).save(place)


def compare(model: Path, predictions: Path, images: Path) -> str:
    """Return how many labels are those of the table, the largest difference of a probability, size and time."""
    import onnxruntime

    absent = [name for name in ("torch", "featurecache") if importlib.util.find_spec(name) is not None]
    assert not absent, f"{absent} are installed here"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    classes = json.loads(session.get_modelmeta().custom_metadata_map["featurecache.classes"])
    n_same, largest, seconds, rows = 0, 0.0, [], drawn(predictions)
    for row in rows:
        path = images / row["path"]
        pixels = read_plainly(path if path.exists() else path.with_suffix(".png"))
        started = time.perf_counter()
        probabilities, label = session.run(["probabilities", "label"], {"image": pixels})
        seconds.append(time.perf_counter() - started)
        n_same += classes[label] == row["label"]
        columns = [row.get(f"p:{name}", row.get(name)) for name in classes]
        largest = max(largest, float(np.abs(probabilities - np.array(columns, dtype=np.float64)).max()))
    return (
        f"{model.name}: {n_same:,} of {len(rows):,} labels, probabilities differ by up to {largest:.1e}, "
        f"{model.stat().st_size / 1e6:.1f} MB, {1000 * statistics.median(seconds):.1f} ms an image on one core"
    )


if __name__ == "__main__":
    words = [Path(word) for word in sys.argv[1:] if word != "--fit"]
    if "--fit" in sys.argv:
        fit(*words)
    else:
        print(compare(*words))
