"""What a name of a library's network depends on besides its weights file: versions, a commit, a configuration file.

Nothing is imported for it, because a remembered answer is asked for before every extraction.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from featurecache.base.errors import BackboneError, WeightsMissing
from featurecache.base.text import printable
from featurecache.base.versions import installed_version
from featurecache.extract.backbones.libraries.hub import CONFIG, FOLDER_START, WEIGHTS, HubFolder, hub_cache
from featurecache.extract.backbones.libraries.keras_names import keras_home
from featurecache.extract.backbones.names import (
    HUB,
    HUB_START,
    KERAS,
    LOCAL,
    LOCAL_START,
    MAIN,
    MODULE,
    TIMM,
    TIMM_START,
    hub_name,
    library_of,
    local_folder,
)

SAFE, UNSAFE = ".safetensors", (".bin", ".pth", ".pt", ".ckpt", ".npz")


def library_facts(backbone: str) -> list[Any]:
    """Return plain values on which the network of a name depends; none for torchvision, efficientnet_lite, pixels.

    Of a function of the user nothing is remembered.
    """
    library = library_of(backbone)
    if library in ("", MODULE):
        return []
    if library == KERAS:
        return [installed_version("keras"), str(keras_home())]
    version = installed_version("timm")
    if library == LOCAL:
        return [version, _file_digest(local_folder(backbone) / CONFIG)]
    if library == TIMM:
        return [version, _commits_of_timm(backbone.removeprefix(TIMM_START))]
    return [version, hub_folder(backbone).commit()]


def _commits_of_timm(name: str) -> dict[str, str | None]:
    """Return {repository: commit} of timm's folders in the hub's cache that a name may mean, with or without a tag."""
    start = f"{FOLDER_START}{TIMM}--"
    try:
        folders = [each.name.removeprefix(start) for each in hub_cache().iterdir() if each.name.startswith(start)]
    except OSError:
        return {}
    meant = sorted(each for each in folders if each == name or each.startswith(f"{name}."))
    return {each: HubFolder(each, f"{TIMM}/{each}", MAIN).commit() for each in meant}


def hub_folder(backbone: str) -> HubFolder:
    """Return the folder of the hub that a name of the hub or of timm is of; timm's own names for its folders."""
    if library_of(backbone) == HUB:
        return HubFolder(backbone, *hub_name(backbone))
    return HubFolder(backbone, f"{TIMM}/{backbone.removeprefix(TIMM_START)}", MAIN)


def pinned(backbone: str) -> str:
    """Return the name of a hub folder at the commit that its revision is known to be; other names as they are."""
    if library_of(backbone) != HUB:
        return backbone
    folder = hub_folder(backbone)
    commit = folder.commit()
    return backbone if commit is None else f"{HUB_START}{folder.repository}@{commit}"


def file_in(folder: Path, name: str, backbone: str) -> Path:
    """Return a file of a local folder. Raises WeightsMissing with what the folder has instead."""
    path = folder / name
    if os.path.isfile(path):  # noqa: PTH113 (closed folders)
        return path
    try:
        there = sorted(each.name for each in folder.iterdir() if each.suffix in (SAFE, *UNSAFE))
    except OSError as error:
        raise WeightsMissing(
            f"The folder of {printable(backbone)} cannot be read: {error.strerror}. If it has moved, "
            f"name its new place: `--backbone {LOCAL_START}FOLDER`, and to `predict` `--weights FOLDER/{WEIGHTS}`."
        ) from error
    has = f" It has {', '.join(map(printable, there[:3]))}." if there else ""
    raise WeightsMissing(
        f"The folder '{printable(folder)}' has no {name}.{has} timm writes {CONFIG} and {WEIGHTS} there, with "
        "`timm.models.save_for_hf(model, folder, safe_serialization=True)`; other formats are not read."
    )


def no_timm(backbone: str) -> BackboneError:
    """Return the error for a network of timm where that is not installed."""
    return BackboneError(
        f"{printable(backbone)} is a network of timm, which is not installed: `pip install 'featurecache[timm]'`."
    )


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
