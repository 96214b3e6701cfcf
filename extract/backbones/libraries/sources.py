"""Where the weights of networks of libraries are: on the hub, in a folder of this machine, or in a file of the user."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor

from featurecache.base.errors import UnknownWeights, WeightsMissing
from featurecache.base.text import printable
from featurecache.extract.backbones.libraries.definitions import SAFE, file_in, hub_folder
from featurecache.extract.backbones.libraries.hub import CONFIG, WEIGHTS, HubFolder, shown_endpoint
from featurecache.extract.backbones.libraries.keras_sources import about_keras, find_keras
from featurecache.extract.backbones.libraries.own_network import build_own
from featurecache.extract.backbones.libraries.timm_networks import TimmConfig, from_folder, registered
from featurecache.extract.backbones.libraries.timm_transform import timm_transform
from featurecache.extract.backbones.named_file import file_and_part, with_part
from featurecache.extract.backbones.names import (
    HUB,
    KERAS,
    LOCAL,
    MAIN,
    MODULE,
    TIMM,
    library_of,
    local_folder,
    name_in_spec,
)
from featurecache.extract.backbones.weights_source import WeightsSource

# By these names timm's folders on the hub have weights of OpenCLIP, next to files that hold pickles.
SAFE_NAMES = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
OWN = "its own"  # the name of the weights that a function of the user loads
N_DIGITS = 12  # of a commit in a message


def find_in_library(backbone: str, weights: str | None = None) -> WeightsSource:
    """Return the weights of a network of timm, of the hub or of a local folder; nothing is downloaded.

    weights: a file of the user, in place of those that the name means. Raises BackboneError.
    """
    if library_of(backbone) == KERAS:
        return find_keras(backbone, weights)
    if library_of(backbone) == MODULE:
        return _of_function(backbone, weights)
    found = _named(backbone)
    if weights is None or weights.lower() == "default":
        return found
    path, part = file_and_part(weights)
    if not os.path.isfile(path):  # noqa: PTH113 (closed folders)
        raise UnknownWeights(
            f"There is no file '{printable(weights)}', and the weights of {printable(backbone)} are part of its name; "
            "leave out --weights, or name a file."
        )
    return WeightsSource(
        found.backbone,
        with_part(path.name, part),
        path,
        found.transform,
        meta={"is_fitted": True},
        part=part,
        is_own=True,
        config=found.config,
    )


def fetch_definition(backbone: str) -> None:
    """Download the configuration of a hub folder that is not on this machine. Raises WeightsMissing."""
    if library_of(backbone) == HUB:
        hub_folder(backbone).fetch(CONFIG)


def refresh_commit(backbone: str) -> str:
    """Ask the hub for the newest commit of a backbone's revision and keep it; return a line, empty where none is asked.

    Raises WeightsMissing.
    """
    library = library_of(backbone)
    if library not in (TIMM, HUB):
        return ""
    folder, file_name = (
        (hub_folder(backbone), CONFIG) if library == HUB else _place_on_hub(backbone, registered(backbone))
    )
    before, now = folder.refresh(file_name)
    if before == now:
        return f"{printable(backbone)} is at its newest commit, {now[:N_DIGITS]}"
    was = f", which was {before[:N_DIGITS]}" if before else ""
    return f"{printable(backbone)} is at commit {now[:N_DIGITS]} now{was}"


def about_weights(source: WeightsSource) -> dict[str, str]:
    """Return the licence and the source of weights, as far as they are known; for people."""
    if library_of(source.backbone) == KERAS:
        return about_keras(source)
    about: dict[str, str] = {}
    licence = "" if source.config is None else source.config.pretrained.get("license")
    if isinstance(licence, str) and licence:
        about["license"] = licence
    if source.folder is not None:
        about["source"] = f"{shown_endpoint()}/{source.folder.repository}"
        about["commit"] = source.folder.commit() or ""
    return about


def config_of(backbone: str) -> TimmConfig:
    """Return how timm builds the network of a name. Raises BackboneError, WeightsMissing for a hub folder not here."""
    library = library_of(backbone)
    if library == TIMM:
        return registered(backbone)
    if library == LOCAL:
        return from_folder(file_in(local_folder(backbone), CONFIG, backbone), backbone)
    path = hub_folder(backbone).file(CONFIG)
    if path is None:
        raise WeightsMissing(f"{printable(backbone)} is not in the hub's cache of this machine; extract fetches it.")
    return from_folder(path, backbone)


def without_last_layers(tensors: Mapping[str, Tensor], last_layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors that vectors depend on, in the data type that networks compute in.

    last_layers: the beginnings of the names of others.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(last_layers)}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in kept.items()}


def _of_function(backbone: str, weights: str | None) -> WeightsSource:
    if weights is not None:
        raise UnknownWeights(f"'{printable(backbone)}' loads its weights itself: leave out --weights.")
    own = build_own(backbone)
    return WeightsSource(backbone, OWN, own.path, own.transform, is_own=True)


def _named(backbone: str) -> WeightsSource:
    """Return the weights that a name means."""
    config, name = config_of(backbone), name_in_spec(backbone)
    transform = timm_transform(backbone, config)
    if library_of(backbone) == LOCAL:
        path = file_in(local_folder(backbone), WEIGHTS, backbone)
        return WeightsSource(name, path.name, path, transform, is_own=True, config=config)
    folder, file_name = _place_on_hub(backbone, config)
    here = folder.file(file_name)
    return WeightsSource(
        name,
        folder.repository,
        here,
        transform,
        is_own=here is not None,
        folder=folder,
        file_name=file_name,
        config=config,
    )


def _place_on_hub(backbone: str, config: TimmConfig) -> tuple[HubFolder, str]:
    """Return the folder and the file of the weights. Raises UnknownWeights where timm has none as .safetensors."""
    if library_of(backbone) == HUB:
        return hub_folder(backbone), WEIGHTS
    repository = config.pretrained.get("hf_hub_id")
    named = config.pretrained.get("hf_hub_filename") or WEIGHTS
    file_name = SAFE_NAMES.get(named, named)
    if not isinstance(repository, str) or not file_name.endswith(SAFE):
        raise UnknownWeights(
            f"timm has no weights of {printable(backbone)} as .safetensors on the hub. Choose another tag, or name a "
            "file with --weights."
        )
    name = backbone.partition("/")[2]
    repository, _, revision = (f"{repository}{name}" if repository.endswith("/") else repository).partition("@")
    return HubFolder(backbone, repository, revision or MAIN), file_name
