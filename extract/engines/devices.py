"""The device of a run, and the instruction sets of the processor, without torch where that is possible.

To import torch takes seconds. Where no accelerator can be used, an exported graph needs none of it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from functools import cache
from pathlib import Path

from featurecache.base.versions import installed_version

# What the drivers of NVIDIA, of Windows' Linux and of AMD make; torch finds no GPU on Linux without one of them.
GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
# Versions of torch that were built without any.
CPU_BUILD = "+cpu"
# Instruction sets that change how fast one engine is compared with another.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "sve", "i8mm", "bf16")
CPU_INFO = Path("/proc/cpuinfo")
MOST_BYTES = 1 << 16


def choose_device(device: str) -> str:
    """Return the device for a value of `--device`, see `torch_engine.choose_device`; torch is imported only if needed.

    Raises EngineError if this machine has no such device.
    """
    if is_surely_cpu(device):
        return "cpu"
    from featurecache.extract.engines.torch_engine import choose_device as choose_by_torch

    return choose_by_torch(device)


def is_surely_cpu(device: str) -> bool:
    """Whether a value of `--device` means the CPU on this machine, as far as that is known without torch."""
    if device != "auto" or "torch" in sys.modules:
        return device == "cpu"
    if sys.platform == "darwin":
        return False
    if (installed_version("torch") or "").endswith(CPU_BUILD):
        return True
    return sys.platform == "linux" and not any(os.path.exists(path) for path in GPU_FILES)  # noqa: PTH110 (devices)


@cache
def instruction_sets() -> str:
    """Return the instruction sets that matter for the speed of engines, or the name of the processor."""
    with contextlib.suppress(OSError), CPU_INFO.open("rb") as file:
        for line in file.read(MOST_BYTES).decode("ascii", "replace").splitlines():
            name, _, values = line.partition(":")
            if name.strip() in ("flags", "Features"):
                there = set(values.split())
                return " ".join(flag for flag in FLAGS if flag in there)
    return platform.processor()
