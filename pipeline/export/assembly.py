"""One model from the pixels of an image to probabilities: transforms, networks and heads, put together.

    image, uint8 (H, W, 3) -> pixels_0, uint8 (1, 3, S, S) -> features_0, float32 (1, D) -> probabilities (C,), label ()
                              pixels_1                        features_1

A number for each kind of features; joined ones and those of an ensemble are several. The names are those of values
within the model, by which `ExportedFile.stages` looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import EngineError, UsageError
from featurecache.base.text import printable
from featurecache.export.nodes import Nodes
from featurecache.export.resizing import add_transform, channels_first, no_exact_graph
from featurecache.predictor.exported_session import IMAGE, LABEL, PROBABILITIES

if TYPE_CHECKING:
    from onnx import ModelProto

    from featurecache.extract.cache.spec import FeatureSpec
    from featurecache.extract.cache.transform_spec import TransformSpec

PIXELS, FEATURES = "pixels_{}", "features_{}"
NAME = "featurecache"


@dataclass(frozen=True)
class HeadPart:
    """One head of a file. keys: of the features that it takes, side by side, each divided by its scale.

    model: float32 `features` (B, D) -> float32 `probabilities` (B, C) and int64 `codes` (B,).
    """

    model: ModelProto
    keys: tuple[str, ...]
    scales: tuple[float, ...] = ()


def geometry(spec: FeatureSpec) -> TransformSpec:
    """Return the part of a transform that determines the pixels."""
    return replace(spec.transform, mean=(), std=())


def check_transforms(specs: Sequence[FeatureSpec], *, is_fixed: bool) -> None:
    """Raise UsageError where one image cannot be the input of all of these features."""
    first = specs[0]
    for spec in specs:
        if why := "" if is_fixed else no_exact_graph(spec.transform):
            raise UsageError(
                f"The images of {printable(spec.backbone)} cannot be resized in the file: {why}. Add --fixed, for a "
                "file that takes images of the size of the network."
            )
        if is_fixed and geometry(spec) != geometry(first):
            raise UsageError(
                f"{printable(first.backbone)} and {printable(spec.backbone)} fit images to their inputs in different "
                "ways, so there is no fixed size for both. Leave out --fixed."
            )
        if (spec.decode, spec.range, spec.decode_version) != (first.decode, first.range, first.decode_version):
            raise UsageError(
                f"{printable(first.backbone)} and {printable(spec.backbone)} take images that are decoded in different "
                "ways, and the file takes one image. Export a head on features of one of them."
            )
        if spec.view:
            raise UsageError("The head takes features of augmented images, which no file makes. Export another head.")


def input_shape(specs: Sequence[FeatureSpec], *, is_fixed: bool) -> list[int | str]:
    """Return the shape of the input; a side of any length is a name."""
    side = specs[0].transform.crop
    return [side, side, 3] if is_fixed else ["H", "W", 3]


def assemble(
    heads: Sequence[HeadPart],
    specs: Sequence[FeatureSpec],
    networks: Mapping[str, ModelProto],
    *,
    n_classes: int,
    is_fixed: bool,
) -> ModelProto:
    """Return the model of a head, or of the mean of several.

    specs: of the features, each once. networks: by the key of their features, uint8 (1, 3, S, S) -> float32 (1, D).
    """
    from onnx import TensorProto, helper

    nodes = Nodes()
    features = _features(nodes, specs, networks, is_fixed=is_fixed)
    answers = [nodes.include(head.model, {"features": _columns(nodes, head, features)}) for head in heads]
    if len(answers) == 1:
        proba, codes = answers[0]["probabilities"], answers[0]["codes"]
    else:
        proba = nodes.add("Mean", *(each["probabilities"] for each in answers))
        codes = nodes.add("ArgMax", proba, axis=1, keepdims=0)
    first_axis = nodes.constant([0], np.int64)
    nodes.add("Squeeze", proba, first_axis, name=PROBABILITIES)
    nodes.add("Squeeze", codes, first_axis, name=LABEL)
    shape = input_shape(specs, is_fixed=is_fixed)
    return nodes.model(
        NAME,
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape)],
        [
            helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [n_classes]),
            helper.make_tensor_value_info(LABEL, TensorProto.INT64, []),
        ],
    )


def _features(
    nodes: Nodes, specs: Sequence[FeatureSpec], networks: Mapping[str, ModelProto], *, is_fixed: bool
) -> dict[str, str]:
    """Add transforms and networks, each once, and return the name of the features by their key."""
    transformed: dict[TransformSpec, str] = {}
    found: dict[str, str] = {}
    for number, spec in enumerate(specs):
        transform = geometry(spec)
        if transform not in transformed:
            try:
                made = channels_first(nodes, IMAGE) if is_fixed else add_transform(nodes, IMAGE, transform)
            except EngineError as error:
                raise UsageError(f"{printable(spec.backbone)}: {error}.") from error
            transformed[transform] = made
        pixels = nodes.add("Identity", transformed[transform], name=PIXELS.format(number))
        network = networks[spec.key]
        (vector,) = nodes.include(network, {network.graph.input[0].name: pixels}).values()
        stored = vector if spec.dtype == "float32" else nodes.cast(nodes.cast(vector, spec.dtype), np.float32)
        found[spec.key] = nodes.add("Identity", stored, name=FEATURES.format(number))
    return found


def _columns(nodes: Nodes, head: HeadPart, features: Mapping[str, str]) -> str:
    """Return the features that a head takes."""
    if not head.scales:
        return features[head.keys[0]]
    blocks = [
        nodes.add("Div", features[key], nodes.constant(scale, np.float32))
        for key, scale in zip(head.keys, head.scales, strict=True)
    ]
    return nodes.add("Concat", *blocks, axis=1)
