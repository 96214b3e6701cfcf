"""Engines: what runs a backbone on a batch. One small protocol, and a registry of who implements it.

    run(uint8 (B, 3, S, S)) -> float32 (B, D), as a numpy array, row i for image i

Engines differ in speed and agree in numbers, to 1e-4 relative; so neither engine nor device is part of a cache's key.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from extract.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from extract.backbones import Backbone

PRECISIONS = ("fp32", "fp16", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")
BUILDERS = {"torch": "extract.engines.torch_engine:build_torch_engine"}  # named, not imported: each is heavy


class Engine(Protocol):
    """A backbone made ready to run on one device.

    name: as in `--engine`. device: as in `--device`, resolved. precision: "fp32", "fp16" or "bf16".
    batch_size: rows of every batch that really runs; `run` takes any number of rows.
    reason: one line on which engine and device were taken, and why.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102

    def run(self, batch: Tensor) -> np.ndarray:
        """uint8 (B, 3, S, S) -> float32 (B, D)."""
        ...


def build_engine(
    backbone: Backbone,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
) -> Engine:
    """Make a backbone ready to run, by the best engine for the device unless one is named.

    batch_size: rows that run at once; None for the measured best of the device.
    Raises EngineError for an engine, device or precision that this machine does not offer.
    """
    _check("engine", engine, ("auto", *BUILDERS))
    _check("device", device, DEVICES)
    _check("precision", precision, PRECISIONS)
    if batch_size is not None and batch_size < 1:
        raise EngineError(f"a batch of {batch_size} images cannot run; --batch-size is 1 or more")
    module, _, function = BUILDERS["torch" if engine == "auto" else engine].partition(":")
    build = cast("Callable[..., Engine]", getattr(import_module(module), function))
    return build(backbone, device=device, precision=precision, batch_size=batch_size)


def _check(kind: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise EngineError(f"there is no {kind} '{value}'; choose from {', '.join(allowed)}")
