"""Networks of libraries with their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from featurecache.base.errors import WeightsMismatch
from featurecache.base.text import printable
from featurecache.extract.backbones.architectures import Family, Network, Whole
from featurecache.extract.backbones.fitting import fit_tensors
from featurecache.extract.backbones.libraries.keras_networks import build_keras
from featurecache.extract.backbones.libraries.own_network import build_own
from featurecache.extract.backbones.libraries.sources import config_of, without_last_layers
from featurecache.extract.backbones.libraries.timm_networks import NO_LAST_LAYER, build_timm
from featurecache.extract.backbones.names import KERAS, MODULE, library_of
from featurecache.extract.backbones.weights import tensors_digest
from featurecache.extract.backbones.weights_source import WeightsSource


def build_in_library(backbone: str, *, size: int | None = None) -> Network:
    """Build a network for its shapes, for images of this side. Raises BackboneError."""
    if library_of(backbone) == KERAS:
        return build_keras(backbone, side=size).network
    if library_of(backbone) == MODULE:
        return load_own(backbone)
    return build_timm(backbone, config_of(backbone), size=size)


def load_own(backbone: str) -> Network:
    """Return the network of a function of the user. Raises BackboneError."""
    own = build_own(backbone)
    module: nn.Module = own.module
    digest = tensors_digest({name: tensor.detach().cpu() for name, tensor in module.state_dict().items()})
    family = Family(NO_LAST_LAYER, "", "")
    return Network(module, family, whole=Whole(), digest=digest, definition=f"source text {own.source_digest}")


def load_in_library(
    backbone: str, source: WeightsSource, tensors: Mapping[str, Tensor], *, size: int | None = None
) -> tuple[Network, str]:
    """Build a network with the tensors of a file; return it, and one line on what was taken of a file of the user.

    size: side of the input, None for the one that the weights expect. Raises BackboneError.
    """
    config = source.config
    assert config is not None, "a network of a library has its configuration"
    line = ""
    if source.meta.get("is_fitted"):
        tensors, line = _fitted(backbone, source, tensors)
        config = replace(config, pretrained={**config.pretrained, "label_offset": 0})
    network = build_timm(backbone, config, size=size, tensors=tensors)
    last_layers = (f"{network.family.last}.", *network.family.ignored)
    return replace(network, digest=tensors_digest(without_last_layers(tensors, last_layers))), line


def _fitted(backbone: str, source: WeightsSource, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return a whole state dict from the tensors of a file of the user, with zeros for another last layer."""
    assert source.config is not None
    assert source.path is not None
    network = build_timm(backbone, source.config, has_last_layers=True)
    file_name = source.path.name
    fit = fit_tensors(network, tensors, backbone=backbone, file_name=file_name, part=source.part)
    if not fit.has_classifier:
        raise WeightsMismatch(
            f"{printable(file_name)} lacks layers between the features of {printable(backbone)} and its last layer. "
            "Name a file that has them."
        )
    rest = {name: torch.zeros_like(tensor) for name, tensor in network.module.state_dict().items()}
    return {**rest, **fit.tensors}, fit.line(backbone, file_name)
