"""README.md of a folder: a model card as the hub reads it, with the numbers of the run in `model-index`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from featurecache.base.text import printable

if TYPE_CHECKING:
    from featurecache.export.timm_folder.agreement import TimmAgreement
    from featurecache.runs.documents import HeadRow

METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "log_loss": "Log loss",
    "ece": "Expected calibration error",
}
# Those that the hub calls otherwise.
TYPES = {"macro_f1": "f1"}
EXAMPLE = """```python
import timm, torch
from PIL import Image, ImageOps

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
with torch.inference_mode():
    probabilities = model(transform(image)[None]).softmax(dim=1)[0]
label = model.pretrained_cfg["label_names"][int(probabilities.argmax())]
```"""


def model_card(name: str, row: HeadRow, *, dataset: str, classes: Sequence[str], agreement: TimmAgreement) -> str:
    """Return the model card. name: of the folder. row: of the head in results.json."""
    title = printable(name)
    listed = ", ".join(_plain(each) for each in classes)
    rows = "\n".join(f"| {METRICS[key]} | {_value(row, key)} |" for key in METRICS if key in row["test"])
    return f"""{_front_matter(title, row, dataset)}
# {_plain(title)}

A {_plain(row["name"])} head on features of {_plain(row["backbone"])}, trained by featurecache on {_plain(dataset)}; the
head is the network's last layer, temperature included.

{EXAMPLE}

## Classes

{listed}

## Test

| metric | value |
|---|---|
{rows}

The interval is the 95 % interval on the test images of the run, which no choice was made on.

## Agreement with `featurecache predict`

On {agreement.n:,} images of the run, {agreement.same:,} labels are the same on the same pixels (probabilities differ by
up to {agreement.largest:.1e}), and {agreement.same_by_timm:,} by timm's own transform, which resizes by Pillow (up to
{agreement.largest_by_timm:.2g}).
"""


def _front_matter(name: str, row: HeadRow, dataset: str) -> str:
    """Return the metadata of the card as YAML; each text is in JSON, which is YAML too."""
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags: [image-classification, timm, featurecache]",
        "model-index:",
        f"- name: {_text(name)}",
        "  results:",
        "  - task: {type: image-classification, name: Image Classification}",
        f"    dataset: {{type: imagefolder, name: {_text(dataset)}, split: test}}",
        "    metrics:",
    ]
    for key, title in METRICS.items():
        if key in row["test"]:
            lines += [
                f"    - type: {TYPES.get(key, key)}",
                f"      name: {_text(title + _interval(row, key))}",
                f"      value: {json.dumps(_number(row, key))}",
            ]
            if low_high := _bounds(row, key):
                lines.append(f"      args: {{confidence_level: 0.95, confidence_interval: {json.dumps(low_high)}}}")
    return "\n".join([*lines, "---"])


def _number(row: HeadRow, key: str) -> float:
    test: dict[str, Any] = dict(row["test"])
    return float(test[key])


def _bounds(row: HeadRow, key: str) -> list[float]:
    test: dict[str, Any] = dict(row["test"])
    return [float(bound) for bound in test.get(f"{key}_ci") or ()]


def _interval(row: HeadRow, key: str) -> str:
    bounds = _bounds(row, key)
    return f" (95 % interval {bounds[0]:.4f} to {bounds[1]:.4f})" if bounds else ""


def _value(row: HeadRow, key: str) -> str:
    return f"{_number(row, key):.4f}{_interval(row, key)}"


def _text(text: str) -> str:
    return json.dumps(printable(text))


def _plain(text: str) -> str:
    """Return a name as plain text of Markdown: no markup, no table cell, no HTML."""
    return "".join(f"\\{each}" if each in "\\`*_{}[]<>()#+!|&" else each for each in printable(text))
