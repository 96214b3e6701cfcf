"""WeightsSource: where the weights of a network are, and the transform that they expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurecache.extract.backbones.libraries.hub import HubFolder
from featurecache.extract.backbones.libraries.timm_networks import TimmConfig
from featurecache.extract.cache.transform_spec import TransformSpec


@dataclass(frozen=True)
class WeightsSource:
    """One set of weights of one backbone.

    name: its name in torchvision's enumeration, or the name of the user's file.
    path: of the file, or of the file after its download; None if its pip package is not installed.
    url: of torchvision's file; empty for files of the user and pip packages.
    part: the set of weights in a file of the user that holds several. is_own: whether it is a file of the user.
    folder, file_name: the folder of the hub that has the file, and its name there. config: how timm builds the network.
    """

    backbone: str
    name: str
    path: Path | None
    transform: TransformSpec
    url: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    is_own: bool = False
    folder: HubFolder | None = None
    file_name: str = ""
    config: TimmConfig | None = None

    @property
    def is_local(self) -> bool:
        """Whether the file is on this machine."""
        return self.path is not None and self.path.is_file()
