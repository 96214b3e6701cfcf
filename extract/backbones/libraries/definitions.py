"""What a name of a library's network depends on besides its weights file: versions, a commit, a configuration file.

Nothing is imported for it, because a remembered answer is asked for before every extraction.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from featurecache.base.versions import installed_version
from featurecache.extract.backbones.libraries.hub import CONFIG, HubFolder
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
    """Return plain values on which the network of a name depends; none for torchvision, efficientnet_lite, pixels."""
    library = library_of(backbone)
    if not library:
        return []
    if library == MODULE:
        return [source_digest(backbone)]
    if library == KERAS:
        return [installed_version("keras"), str(keras_home())]
    version = installed_version("timm")
    if library == LOCAL:
        return [version, _file_digest(local_folder(backbone) / CONFIG)]
    return [version, hub_folder(backbone).commit()]


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


def source_digest(function: str) -> str:
    """Return the SHA-256 of the source text of the module of MODULE:FUNCTION; empty where it has none.

    The module is found, and the packages above it are imported as Python does for it.
    """
    spec = importlib.util.find_spec(function.partition(":")[0].partition(".")[0])
    if spec is None:
        return ""
    folders = spec.submodule_search_locations
    files = (
        sorted(path for folder in folders for path in Path(folder).rglob("*.py")) if folders else [spec.origin or ""]
    )
    digests = [_file_digest(Path(path)) for path in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
