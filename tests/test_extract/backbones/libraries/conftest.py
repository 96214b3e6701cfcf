"""Folders as timm writes them, with random weights; skipped where timm is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_timm import random_network, write_folder


@pytest.fixture(scope="session")
def timm():
    """The library; CI has it."""
    return pytest.importorskip("timm", reason="timm is an extra")


@pytest.fixture(scope="session")
def folders(timm, tmp_path_factory):
    """Returns the folder of a network with random weights, written once."""
    root, made = tmp_path_factory.mktemp("timm"), {}

    def folder_of(name: str, **arguments) -> tuple[Path, torch.nn.Module]:
        key = f"{name}-{'-'.join(f'{k}{v}' for k, v in arguments.items())}".rstrip("-")
        if key not in made:
            module = random_network(timm, name, **arguments)
            made[key] = write_folder(root / key, module, arguments=arguments), module
        return made[key]

    return folder_of
