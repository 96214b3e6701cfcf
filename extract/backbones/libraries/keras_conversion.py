"""The layers of a Keras network as modules of torch, each with the place of its variables among a module's tensors.

same padding    max((ceil(n / stride) - 1) * stride + window - n, 0) zeros in all, the odd one after the map
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from featurecache.base.errors import BackboneError
from featurecache.extract.backbones.libraries import keras_layers as ours

Pair = tuple[int, int]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "swish": nn.SiLU, "hard_silu": nn.Hardswish,
    "hard_swish": nn.Hardswish, "sigmoid": nn.Sigmoid, "hard_sigmoid": nn.Hardsigmoid,
}  # fmt: skip
# Layers that do nothing when a network is not trained, or to maps that keep their dimensions.
WITHOUT_EFFECT = ("Dropout", "Reshape")
KERNEL, DEPTHWISE, VECTOR = (3, 2, 0, 1), (2, 3, 0, 1), (0,)


@dataclass(frozen=True)
class Slot:
    """A variable of a layer: the module's tensor that it is, its shape in Keras, and how its dimensions are turned."""

    tensor: str
    shape: tuple[int, ...]
    turned: tuple[int, ...]
    new_shape: tuple[int, ...]

    def read(self, values: Tensor) -> Tensor:
        """Return a variable of Keras as the tensor of the module, float32."""
        return values.float().permute(self.turned).reshape(self.new_shape).contiguous()


@dataclass(frozen=True)
class Part:
    """A layer of Keras as a module of torch.

    name: in the network. key: in files of Keras 3, which number the layers of each class. slots: by the order of its
    variables in files. constants: tensors that the layer does without, as they are in the module.
    """

    name: str
    key: str
    module: nn.Module
    slots: tuple[Slot, ...] = ()
    constants: Mapping[str, Tensor] = field(default_factory=dict)


def convert(operation: Any, shapes: Sequence[tuple[int | None, ...]], arguments: Sequence[Any]) -> Part | None:
    """Return an operation as a module; None for one without effect. `name` and `key` are empty.

    shapes: (None, h, w, D) of each input map. arguments: those of the call, maps among them. Raises BackboneError.
    """
    kind = type(operation).__name__
    if kind in WITHOUT_EFFECT or (kind == "Activation" and _activation_name(operation) == "linear"):
        return None
    if kind in ("Add", "Multiply") and len(shapes) == 1:
        number = next(float(value) for value in arguments if isinstance(value, int | float))
        scale, shift = ((1.0,), (number,)) if kind == "Add" else ((number,), (0.0,))
        return Part("", "", ours.Scaled(scale, shift))
    if kind not in CONVERSIONS:
        raise BackboneError(f"The layer '{operation.name}' ({kind}) of this Keras network is not known here.")
    return CONVERSIONS[kind](operation, shapes[0])


def snake_case(name: str) -> str:
    """Return the name of a class as files of Keras 3 have it."""
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def same_pads(side: Pair, window: Pair, stride: Pair) -> ours.Pads:
    """Return the zeros left, right, above and below a map that `same` adds."""
    pads: list[int] = []
    for n, width, step in zip(reversed(side), reversed(window), reversed(stride), strict=True):
        total = max((math.ceil(n / step) - 1) * step + width - n, 0)
        pads += [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3]


def _activation_name(layer: Any) -> str:
    activation = getattr(layer, "activation", None)
    return "linear" if activation is None else str(getattr(activation, "__name__", activation))


def _activated(layer: Any, part: Part) -> Part:
    """Return a layer followed by the activation that Keras has in it."""
    name = _activation_name(layer)
    if name == "linear":
        return part
    slots = tuple(Slot(f"layer.{s.tensor}", s.shape, s.turned, s.new_shape) for s in part.slots)
    return Part("", "", ours.Activated(part.module, _activation(layer, name)), slots)


def _activation(layer: Any, name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise BackboneError(f"The activation '{name}' of the layer '{layer.name}' of this network is not known here.")
    return ACTIVATIONS[name]()


def _slot(name: str, variable: Any, turned: tuple[int, ...], new_shape: tuple[int, ...] | None = None) -> Slot:
    shape = tuple(int(n) for n in variable.shape)
    return Slot(name, shape, turned, new_shape or tuple(shape[axis] for axis in turned))


def _side(shape: tuple[int | None, ...]) -> Pair:
    return int(shape[1] or 0), int(shape[2] or 0)


def _plain_convolution(layer: Any, shape: tuple[int | None, ...], widths: Pair, groups: int) -> nn.Conv2d:
    """Return a convolution of these numbers of channels, with its padding."""
    window = tuple((k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True))
    pads = ours.NO_PADS
    if layer.padding == "same":
        pads = same_pads(_side(shape), (window[0], window[1]), tuple(layer.strides))
    is_even = pads[0] == pads[1] and pads[2] == pads[3]
    kind = nn.Conv2d if is_even else ours.PaddedConv2d
    found = kind(
        *widths, tuple(layer.kernel_size), stride=tuple(layer.strides), dilation=tuple(layer.dilation_rate),
        padding=(pads[2], pads[0]) if is_even else 0, groups=groups, bias=bool(layer.use_bias), device="meta",
    )  # fmt: skip
    if isinstance(found, ours.PaddedConv2d):
        found.pads = pads
    return found


def _convolution(layer: Any, shape: tuple[int | None, ...]) -> Part:
    module = _plain_convolution(layer, shape, (int(shape[3] or 0), layer.filters), layer.groups)
    return _activated(layer, Part("", "", module, _of_convolution(layer.kernel, layer, KERNEL)))


def _of_convolution(kernel: Any, layer: Any, turned: tuple[int, ...], name: str = "") -> tuple[Slot, ...]:
    bias = (_slot(f"{name}bias", layer.bias, VECTOR),) if layer.use_bias else ()
    return (_slot(f"{name}weight", kernel, turned), *bias)


def _depthwise(layer: Any, shape: tuple[int | None, ...]) -> Part:
    n_in = int(shape[3] or 0)
    n_out = n_in * layer.depth_multiplier
    module = _plain_convolution(layer, shape, (n_in, n_out), n_in)
    bias = (_slot("bias", layer.bias, VECTOR),) if layer.use_bias else ()
    kernel = _slot("weight", layer.kernel, DEPTHWISE, (n_out, 1, *layer.kernel_size))
    return _activated(layer, Part("", "", module, (kernel, *bias)))


def _separable(layer: Any, shape: tuple[int | None, ...]) -> Part:
    n_in = int(shape[3] or 0)
    n_between = n_in * layer.depth_multiplier
    depthwise = _plain_convolution(layer, shape, (n_in, n_between), n_in)
    if depthwise.bias is not None:
        depthwise.register_parameter("bias", None)
    pointwise = nn.Conv2d(n_between, layer.filters, 1, bias=bool(layer.use_bias), device="meta")
    first = _slot("depthwise.weight", layer.depthwise_kernel, DEPTHWISE, (n_between, 1, *layer.kernel_size))
    slots = (first, *_of_convolution(layer.pointwise_kernel, layer, KERNEL, "pointwise."))
    return _activated(layer, Part("", "", ours.SeparableConv2d(depthwise, pointwise), slots))


def _batch_norm(layer: Any, shape: tuple[int | None, ...]) -> Part:
    n = int(shape[-1] or 0)
    module = nn.BatchNorm2d(n, eps=layer.epsilon, momentum=1 - layer.momentum, device="meta")
    named = [("weight", layer.gamma), ("bias", layer.beta)]
    slots = tuple(_slot(name, variable, VECTOR) for name, variable in named if variable is not None)
    statistics = (
        _slot("running_mean", layer.moving_mean, VECTOR),
        _slot("running_var", layer.moving_variance, VECTOR),
    )
    filled = {"weight": torch.ones(n, device="cpu"), "bias": torch.zeros(n, device="cpu")}
    constants = {name: filled[name] for name, variable in named if variable is None}
    return Part("", "", module, (*slots, *statistics), constants)


def _normalization(layer: Any, shape: tuple[int | None, ...]) -> Part:
    values = layer.get_config()
    if values.get("mean") is None:
        n = int(shape[-1] or 0)
        slots = tuple(Slot(name, (n,), VECTOR, (n,)) for name in ("mean", "variance"))
        return Part("", "", ours.Standardised(n), slots)
    means, variances = ([float(v) for v in torch.as_tensor(values[n]).flatten()] for n in ("mean", "variance"))
    scale = [1 / math.sqrt(variance) for variance in variances]
    shift = [-mean * one for mean, one in zip(means, scale, strict=True)]
    return Part("", "", ours.Scaled(scale, shift))


def _rescaling(layer: Any, shape: tuple[int | None, ...]) -> Part:
    values = [value if isinstance(value, list | tuple) else [value] for value in (layer.scale, layer.offset)]
    return Part("", "", ours.Scaled(*([float(one) for one in value] for value in values)))


def _relu(layer: Any, shape: tuple[int | None, ...]) -> Part:
    if layer.negative_slope or layer.threshold:
        raise BackboneError(f"The layer '{layer.name}' of this Keras network is not known here.")
    return Part("", "", nn.ReLU() if layer.max_value is None else nn.Hardtanh(0.0, float(layer.max_value)))


def _max_pool(layer: Any, shape: tuple[int | None, ...]) -> Part:
    window, stride = tuple(layer.pool_size), tuple(layer.strides)
    pads = same_pads(_side(shape), window, stride) if layer.padding == "same" else ours.NO_PADS
    if pads == ours.NO_PADS:
        return Part("", "", nn.MaxPool2d(window, stride))
    module = ours.PaddedMaxPool2d(window, stride)
    module.pads = pads
    return Part("", "", module)


def _average_pool(layer: Any, shape: tuple[int | None, ...]) -> Part:
    window, stride = tuple(layer.pool_size), tuple(layer.strides)
    pads = same_pads(_side(shape), window, stride) if layer.padding == "same" else ours.NO_PADS
    if pads[0] != pads[1] or pads[2] != pads[3]:
        raise BackboneError(f"The pooling '{layer.name}' of this Keras network is not known here.")
    return Part("", "", nn.AvgPool2d(window, stride, (pads[2], pads[0]), count_include_pad=False))


def _zero_padding(layer: Any, shape: tuple[int | None, ...]) -> Part:
    (top, bottom), (left, right) = layer.padding
    return Part("", "", ours.PaddedMaps((left, right, top, bottom)))


CONVERSIONS: dict[str, Callable[[Any, tuple[int | None, ...]], Part]] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "BatchNormalization": _batch_norm,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "ReLU": _relu,
    "Activation": lambda layer, _: Part("", "", _activation(layer, _activation_name(layer))),
    "MaxPooling2D": _max_pool,
    "AveragePooling2D": _average_pool,
    "GlobalAveragePooling2D": lambda *_: Part("", "", ours.GlobalAverage()),
    "ZeroPadding2D": _zero_padding,
    "Add": lambda *_: Part("", "", ours.Sum()),
    "Multiply": lambda *_: Part("", "", ours.Product()),
    "Concatenate": lambda *_: Part("", "", ours.Joined()),
    "CustomScaleLayer": lambda layer, _: Part("", "", ours.Sum(float(layer.scale))),
}
