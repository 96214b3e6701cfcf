"""Layers of Keras as modules of torch: feature maps are (B, D, h, w), where Keras has (B, h, w, D)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Pads = tuple[int, int, int, int]  # left, right, top, bottom, as torch takes them
NO_PADS = (0, 0, 0, 0)


class ReversedChannels(nn.Module):
    """The channels in the other order: red, green, blue -> blue, green, red."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 3, h, w)."""
        return torch.cat([images[:, 2:], images[:, 1:2], images[:, :1]], 1)


class Scaled(nn.Module):
    """Maps multiplied by one number a channel, or by one, and shifted by another; the numbers are constants."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Sequence[float], shift: Sequence[float] = (0.0,)) -> None:
        super().__init__()
        for name, values in (("scale", scale), ("shift", shift)):
            tensor = torch.tensor(values, dtype=torch.float64, device="cpu").float().view(-1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, D, h, w)."""
        return maps * self.scale + self.shift


class Standardised(nn.Module):
    """Maps minus a mean, divided by the root of a variance, both (D,) from the weights file."""

    EPSILON = 1e-7  # as Keras has it

    mean: Tensor
    variance: Tensor

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(n_channels, device="meta"))
        self.register_buffer("variance", torch.empty(n_channels, device="meta"))

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, D, h, w)."""
        scale = self.variance.sqrt().clamp(min=self.EPSILON)
        return (maps - self.mean.view(-1, 1, 1)) / scale.view(-1, 1, 1)


class PaddedConv2d(nn.Conv2d):
    """A convolution whose zeros at two opposite edges differ in number, as `same` has them for even strides."""

    pads: Pads = NO_PADS

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, D, h, w)."""
        return super().forward(F.pad(maps, self.pads))


class SeparableConv2d(nn.Module):
    """A convolution of each channel, then one that mixes channels."""

    def __init__(self, depthwise: nn.Module, pointwise: nn.Module) -> None:
        super().__init__()
        self.depthwise, self.pointwise = depthwise, pointwise

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, D, h, w)."""
        mixed: Tensor = self.pointwise(self.depthwise(maps))
        return mixed


class Activated(nn.Module):
    """A layer with its activation, which Keras has as one."""

    def __init__(self, layer: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.layer, self.activation = layer, activation

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, D, h, w)."""
        activated: Tensor = self.activation(self.layer(maps))
        return activated


class PaddedMaps(nn.Module):
    """Maps with zeros around them."""

    def __init__(self, pads: Pads) -> None:
        super().__init__()
        self.pads = pads

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, D, h', w')."""
        return F.pad(maps, self.pads)


class PaddedMaxPool2d(nn.MaxPool2d):
    """The greatest value of every window, where windows at the edges are not whole."""

    pads: Pads = NO_PADS

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, D, h, w)."""
        pooled: Tensor = super().forward(F.pad(maps, self.pads, value=float("-inf")))
        return pooled


class GlobalAverage(nn.Module):
    """The average of every map, (B, D, 1, 1)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, D, 1, 1)."""
        return maps.mean((2, 3), keepdim=True)


class Sum(nn.Module):
    """The sum of maps, the second times `scale`."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        """Return (B, D, h, w)."""
        for other in others:
            first = first + (other if self.scale == 1.0 else other * self.scale)
        return first


class Product(nn.Module):
    """The product of maps, also of (B, D, h, w) and (B, D, 1, 1)."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (B, D, h, w)."""
        return first * second


class Joined(nn.Module):
    """Maps next to each other, (B, D1 + ... + Dk, h, w)."""

    def forward(self, *maps: Tensor) -> Tensor:
        """Return (B, D1 + ... + Dk, h, w)."""
        return torch.cat(maps, 1)


# Kept as one operation each when a network is traced, with the names of their layers.
LEAVES: tuple[type[nn.Module], ...] = (
    ReversedChannels, Scaled, Standardised, PaddedConv2d, PaddedMaps, PaddedMaxPool2d,
    GlobalAverage, Sum, Product, Joined,
)  # fmt: skip
