"""What a name of a library's network depends on besides its weights file: versions, a commit, a configuration file.

Nothing is imported for it, because a remembered answer is asked for before every extraction.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from featurecache.base.versions import installed_version
from featurecache.extract.backbones.libraries.hub import CONFIG, FOLDER_START, HubFolder, hub_cache
from featurecache.extract.backbones.libraries.keras_names import keras_home
from featurecache.extract.backbones.names import (
    HUB,
    HUB_START,
    KERAS,
    LOCAL,
    MAIN,
    MODULE,
    TIMM,
    TIMM_START,
    hub_name,
    library_of,
    local_folder,
)


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


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
