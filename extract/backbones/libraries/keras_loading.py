"""Networks of Keras with their tensors."""

from __future__ import annotations

from featurecache.extract.backbones.architectures import Network
from featurecache.extract.backbones.libraries.keras_files import read_keras_tensors
from featurecache.extract.backbones.libraries.keras_names import application_of
from featurecache.extract.backbones.libraries.keras_networks import build_keras
from featurecache.extract.backbones.weights import fill_network
from featurecache.extract.backbones.weights_source import WeightsSource


def load_keras(backbone: str, source: WeightsSource, *, size: int | None = None) -> tuple[Network, str]:
    """Build a network with the tensors of a file; return it, and one line on what was taken of a file of the user.

    size: side of the input, None for the usual one. Raises BackboneError.
    """
    assert source.path is not None, "a network is loaded from a file"
    found = build_keras(backbone, side=size)
    tensors, has_scaling = read_keras_tensors(source.path, found.parts)
    if application_of(backbone).is_scaled and (has_scaling or source.meta.get("is_scaled")):
        found = build_keras(backbone, side=size, is_scaled=True)
    line = fill_network(found.network, tensors, backbone=backbone, file_name=source.path.name, part=source.part)
    return found.network, line
