"""Networks of `keras.applications` as networks of torch, without the last layers.

Keras builds its network for shapes only, on the meta device. Its graph is then rebuilt from modules of torch, which the
rest of this package treats as any other: layers by name, folded batch norms, both engines. Keras is not needed to run.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from featurecache.base.errors import BackboneError
from featurecache.base.text import printable
from featurecache.extract.backbones.architectures import Family, Network
from featurecache.extract.backbones.libraries.keras_conversion import Part, convert, snake_case
from featurecache.extract.backbones.libraries.keras_layers import LEAVES, PaddedMaps, ReversedChannels, Scaled
from featurecache.extract.backbones.libraries.keras_names import CAFFE, MODES, STANDARD, application_of

BACKEND, TORCH = "KERAS_BACKEND", "torch"
NO_LAST_LAYER = "no last layer"
INPUT, REVERSED, SCALED = "", "reversed_channels", "rescaling_1"


@dataclass(frozen=True)
class KerasNetwork:
    """A network, and its layers that have variables, in the order of Keras."""

    network: Network
    parts: tuple[Part, ...]


class Steps(nn.Module):
    """Layers that run one after another, each on the outputs of earlier ones: images (B, 3, S, S) -> the last map.

    steps: name, module and the names of the inputs, INPUT for the images.
    """

    def __init__(self, steps: Sequence[tuple[str, nn.Module, tuple[str, ...]]]) -> None:
        super().__init__()
        self.order = [(name, inputs) for name, _, inputs in steps]
        for name, module, _ in steps:
            self.add_module(name, module)

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map (B, D, h, w)."""
        outputs = {INPUT: images}
        for name, inputs in self.order:
            outputs[name] = getattr(self, name)(*(outputs[each] for each in inputs))
        return outputs[self.order[-1][0]]


def keras_library(backbone: str) -> Any:
    """Return Keras on torch. Raises BackboneError where it is not installed, or where it has another backend."""
    loaded = sys.modules.get("keras")
    chosen = os.environ.get(BACKEND) if loaded is None else str(loaded.config.backend())
    if chosen and chosen != TORCH:
        raise BackboneError(
            f"{printable(backbone)} runs on torch, and {BACKEND} is '{printable(chosen)}': set it to {TORCH}, or unset "
            "it."
        )
    if loaded is None:
        os.environ[BACKEND] = TORCH
    try:
        import keras
    except ImportError as error:
        raise BackboneError(
            f"{printable(backbone)} is a network of Keras, which is not installed: `pip install 'featurecache[keras]'`."
        ) from error
    return keras


def build_keras(backbone: str, *, side: int | None = None, is_scaled: bool = False) -> KerasNetwork:
    """Build a network for images of this side, without tensors; None for the usual side.

    is_scaled: with the layer that Keras adds to an EfficientNet for its published weights alone.
    Raises BackboneError, UnknownBackbone.
    """
    application = application_of(backbone)
    keras = keras_library(backbone)
    side = side or application.side
    with _shapes_only(keras):
        try:
            model = getattr(keras.applications, application.name)(
                weights=None, include_top=False, input_shape=(side, side, 3)
            )
        except MemoryError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise BackboneError(
                f"Keras does not build {printable(backbone)} for images of {side} x {side} pixels "
                f"({printable(reason)}). Choose another --size, or leave it out."
            ) from error
        steps, parts = _steps(model, is_reversed=application.mode == CAFFE, is_scaled=is_scaled)
    definition = {"application": application.name, "channels": "BGR" if application.mode == CAFFE else "RGB"}
    if is_scaled:
        definition["scaled"] = "imagenet"
    module = Steps([(name, part.module, inputs) for name, part, inputs in steps]).eval().requires_grad_(False)
    family = Family(NO_LAST_LAYER, steps[-1][0], _stages(model, steps))
    return KerasNetwork(Network(module, family, LEAVES, definition=json.dumps(definition, sort_keys=True)), parts)


@contextlib.contextmanager
def _shapes_only(keras: Any) -> Iterator[None]:
    """Let Keras build networks without memory for parameters, and with channels last, whatever a user configured."""
    layout = keras.config.image_data_format()
    with warnings.catch_warnings(), keras.device("meta"):
        warnings.simplefilter("ignore")
        keras.config.set_image_data_format("channels_last")
        try:
            yield
        finally:
            keras.config.set_image_data_format(layout)


Step = tuple[str, Part, tuple[str, ...]]


def _steps(model: Any, *, is_reversed: bool, is_scaled: bool) -> tuple[list[Step], tuple[Part, ...]]:
    """Return the layers in the order in which they run, and those with variables in the order of `model.layers`."""
    names, keys = _names(model)
    output_of = {id(tensor): INPUT for tensor in model.inputs}
    steps: list[Step] = []
    if is_reversed:
        steps.append((REVERSED, Part(REVERSED, "", ReversedChannels()), (INPUT,)))
        output_of = dict.fromkeys(output_of, REVERSED)
    for node in _nodes(model):
        operation = node.operation
        inputs = tuple(output_of[id(tensor)] for tensor in node.input_tensors)
        part = convert(operation, [tensor.shape for tensor in node.input_tensors], node.arguments.args)
        place = inputs[0]
        if part is not None:
            place = names[id(operation)]
            steps.append((place, replace(part, name=place, key=keys.get(id(operation), "")), inputs))
        if is_scaled and type(operation).__name__ == "Normalization":
            scale = [1 / math.sqrt(std) for std in MODES[STANDARD][1]]
            steps.append((SCALED, Part(SCALED, "", Scaled(scale)), (place,)))
            place = SCALED
        output_of.update({id(tensor): place for tensor in node.output_tensors})
    order = {name: i for i, name in enumerate(names[id(layer)] for layer in model.layers)}
    filled = [part for _, part, _ in steps if part.slots]
    return steps, tuple(sorted(filled, key=lambda part: order[part.name]))


def _nodes(model: Any) -> Iterator[Any]:
    """Yield the calls of a network's layers in the order in which Keras runs them."""
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if node.operation is not None and not node.is_input)


def _names(model: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of all operations, and the keys of the layers in files of Keras 3.

    Names that Keras made up count all layers of the process, and so are counted again from this network on.
    """
    names: dict[int, str] = {}
    keys: dict[int, str] = {}
    named, keyed = Counter[str](), Counter[str]()
    layers = list(model.layers)
    others = [each for each in model.operations if all(each is not layer for layer in layers)]
    for operation in [*layers, *others]:
        kind = snake_case(type(operation).__name__)
        name = re.sub(r"\W", "_", operation.name)
        if re.fullmatch(rf"{kind}(_\d+)?", name):
            name = _numbered(kind, named)
        names[id(operation)] = name
    for layer in layers:
        keys[id(layer)] = _numbered(snake_case(type(layer).__name__), keyed)
    return names, keys


def _numbered(name: str, counts: Counter[str]) -> str:
    counts[name] += 1
    return name if counts[name] == 1 else f"{name}_{counts[name] - 1}"


def _stages(model: Any, steps: Sequence[Step]) -> str:
    """Return a pattern of the last layer of every side of the maps, but for the sides of the input and of the end."""
    names, _ = _names(model)
    shapes = {names[id(node.operation)]: node.output_tensors[0].shape for node in _nodes(model)}
    sides = {name: shape[1] for name, shape in shapes.items() if len(shape) == 4}
    of_image, of_end = model.inputs[0].shape[1], sides.get(steps[-1][0])
    ends = {
        sides[name]: name
        for name, part, _ in steps
        if name in sides and not isinstance(part.module, PaddedMaps) and sides[name] not in (1, of_image, of_end)
    }
    is_before = [(side, name) for side, name in ends.items() if isinstance(side, int)]
    return "|".join(re.escape(name) for _, name in sorted(is_before, reverse=True)) or r"(?!)"
