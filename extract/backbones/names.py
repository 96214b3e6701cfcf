"""Names of backbones: what each says of the library that the network is from, without importing any.

timm/NAME.TAG               a network and its weights, as timm calls them
hf-hub:ORG/NAME[@REVISION]  a folder of the Hugging Face hub, as timm writes them
local-dir:FOLDER            the same on this machine
keras/NAME                  an application of Keras
MODULE:FUNCTION             a function of the user that returns a network
any other name              torchvision, efficientnet_lite or pixels
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from featurecache.base.errors import UnknownBackbone
from featurecache.base.text import printable

TIMM, HUB, LOCAL, MODULE, KERAS = LIBRARIES = ("timm", "hf-hub", "local-dir", "module", "keras")
TIMM_START, HUB_START, LOCAL_START, KERAS_START = "timm/", "hf-hub:", "local-dir:", "keras/"
# MODULE:FUNCTION, both dotted names of Python.
FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w][\w./-]{0,99}))?", re.ASCII)
MAIN = "main"
# As the name of a backbone in a spec has them.
UNFIT = re.compile(r"[^A-Za-z0-9_.+@=-]")
MOST_OF_A_FOLDER = 150


def library_of(name: str) -> str:
    """Return which of LIBRARIES a name is of; empty for torchvision, efficientnet_lite and pixels."""
    for start, library in ((TIMM_START, TIMM), (HUB_START, HUB), (LOCAL_START, LOCAL), (KERAS_START, KERAS)):
        if name.startswith(start):
            return library
    return MODULE if FUNCTION.fullmatch(name) else ""


def name_in_spec(name: str) -> str:
    """Return the name of a backbone as it stands in a spec, where its tensors are known by their digest.

    It has neither the revision of a hub folder nor the place of a local one, so that both may move.
    """
    library = library_of(name)
    if library == HUB:
        return HUB_START + hub_name(name)[0]
    if library != LOCAL:
        return name
    own = UNFIT.sub("_", local_folder(name).name)[:MOST_OF_A_FOLDER]
    return f"{LOCAL_START}{own or '_'}"


def hub_name(name: str) -> tuple[str, str]:
    """Return the repository and the revision of a hub folder. Raises UnknownBackbone for other names."""
    found = HUB_NAME.fullmatch(name.removeprefix(HUB_START))
    if found is None or ".." in name:
        raise UnknownBackbone(
            f"'{printable(name)}' names no folder of the hub: write hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION."
        )
    return found[1], found[2] or MAIN


def local_folder(name: str) -> Path:
    """Return the folder of a `local-dir:` name, absolute."""
    return Path(name.removeprefix(LOCAL_START)).expanduser().absolute()


def in_folder_of(name: str, weights: str) -> str:
    """Return the name of a local folder that has moved, where a weights file of it is; other names as they are.

    Raises UnknownBackbone where the file is in a folder of another name, which would be another backbone.
    """
    if library_of(name) != LOCAL or os.path.isdir(local_folder(name)):  # noqa: PTH112 (closed folders)
        return name
    folder = Path(weights).expanduser().absolute().parent
    if not os.path.isfile(folder / "config.json"):  # noqa: PTH113 (closed folders)
        return name
    moved = f"{LOCAL_START}{folder}"
    if name_in_spec(moved) != name_in_spec(name):
        raise UnknownBackbone(
            f"The folder of {printable(name)} is not there, and '{printable(folder)}' has another last name, which is "
            f"part of a backbone's. Call it '{printable(local_folder(name).name)}'."
        )
    return moved


def with_absolute_folder(name: str) -> str:
    """Return a name that leads to the same network from every working folder."""
    return f"{LOCAL_START}{local_folder(name)}" if library_of(name) == LOCAL else name
