"""The part of a network that is trained: what is above the split, and the last layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from featurecache.extract.backbones.freezing import Split
from featurecache.finetune.recipe import Recipe

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class TrainedPart(nn.Module):
    """(B, D) or uint8 (B, 3 S S) as the cache keeps it -> scores (B, C).

    lower: runs the frozen part on images in every step, instead of taking its maps: the usual way, to compare with.
    """

    def __init__(self, split: Split, last_layers: nn.Sequential, lower: nn.Module | None = None) -> None:
        super().__init__()
        self.shape, self.is_image = split.shape, split.layer is None
        self.lower, self.upper, self.last_layers = lower, split.upper, last_layers

    def forward(self, maps: Tensor) -> Tensor:
        """Unflatten the maps, and go on from there."""
        if self.lower is not None:
            with torch.no_grad():
                maps = self.lower(maps.contiguous(memory_format=torch.channels_last))
        maps = maps.reshape(-1, *self.shape)
        if maps.ndim == 4:
            maps = maps.contiguous(memory_format=torch.channels_last)
        scores: Tensor = self.last_layers(self.upper(maps if self.is_image else maps.float()))
        return scores


def has_norms(split: Split) -> bool:
    """Whether there are statistics of batches above the split."""
    return any(isinstance(module, NORMS) for module in split.upper.modules())


def prepare(
    split: Split, last_layers: nn.Sequential, *, batch_norm: str, device: str, lower: nn.Module | None = None
) -> TrainedPart:
    """Both together, ready to be trained: nothing is dropped out, and batch norms keep their statistics if "frozen"."""
    network = TrainedPart(split, last_layers, lower).eval()
    for module in split.upper.modules():
        if batch_norm == "trained" and isinstance(module, NORMS):
            module.train()
    for stage in split.stages:
        for parameter in stage:
            parameter.requires_grad_(True)
    return network.to(device).to(memory_format=torch.channels_last)


def parameter_groups(split: Split, network: TrainedPart, recipe: Recipe) -> list[dict[str, Any]]:
    """Return parameter groups for the optimiser: last layers at the full rate, every stage below at `decay` times that.

    Weights of layers are decayed; biases, norms, positions and the scales of layers are not.
    """
    matrices = {id(p) for name, p in network.named_parameters() if name.endswith("weight") and p.ndim > 1}
    depths = [list(network.last_layers.parameters()), *reversed(split.stages)]
    found = []
    for depth, parameters in enumerate(depths):
        rate = recipe.learning_rate * recipe.decay**depth
        for is_matrix in (True, False):
            some = [parameter for parameter in parameters if (id(parameter) in matrices) == is_matrix]
            if some:
                decay = recipe.weight_decay if is_matrix else 0.0
                found.append({"params": some, "lr": rate, "peak": rate, "weight_decay": decay})
    return found


def trained_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that training changes, by name: parameters, and statistics of batch norms that collect them."""
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            yield name, parameter
    for path, module in network.named_modules():
        if isinstance(module, NORMS) and module.training:
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_floating_point():
                    yield f"{path}.{name}", buffer
