"""Engines: what runs a backbone on a batch. One small protocol, a registry of who implements it, and how one is chosen.

    run(uint8 (B, 3, S, S)) -> float32 (B, D), as a numpy array, row i for image i

Engines differ in speed and agree in numbers, to 1e-4 relative; so neither engine nor device is part of a cache's key.
On CUDA and MPS the engine is torch. On a CPU ONNX Runtime is tried the first time that a network runs on a machine: its
graph is exported, compared with torch in numbers and in speed, and kept with the verdict (`graphs.py`, `choice.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from extract.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from extract.backbones import Backbone
    from extract.engines.graphs import GraphFolder

PRECISIONS = ("fp32", "fp16", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")
ENGINES = ("auto", "onnxruntime", "torch")


class Engine(Protocol):
    """A backbone made ready to run on one device.

    name: as in `--engine`. device: as in `--device`, resolved. precision: "fp32", "fp16" or "bf16".
    batch_size: rows of every batch that really runs; `run` takes any number of rows.
    n_lanes: how many threads may call `run` at once; together they use every core, and more would only wait.
    reason: one line on which engine and device were taken, and why.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def n_lanes(self) -> int: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102

    def run(self, batch: Tensor) -> np.ndarray:
        """uint8 (B, 3, S, S) -> float32 (B, D)."""
        ...


@dataclass(frozen=True)
class Source:
    """A network on its way to an engine: an engine that finds its graph at hand never loads it.

    identity: JSON-able, everything that the vectors of the network depend on. side: S. load: uint8 images to vectors.
    feature_dim: D, None where only the network itself knows.
    """

    identity: Mapping[str, Any]
    side: int
    load: Callable[[], nn.Module]
    feature_dim: int | None = None


def source_of(backbone: Backbone) -> Source:
    """A backbone that is loaded already."""
    identity = {
        "backbone": backbone.name,
        "weights": backbone.weights_digest,
        "cuts": [[backbone.layer, backbone.pooling]],
        "transform": backbone.transform.to_dict(),
    }
    return Source(identity, backbone.transform.crop, lambda: backbone.module, backbone.feature_dim)


def build_engine(
    source: Source,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
    graphs: GraphFolder | None = None,
    say: Callable[[str], None] | None = None,
) -> Engine:
    """Make a network ready to run, by the best engine for the device unless one is named.

    batch_size: rows that run at once; None for the measured best of the engine and device.
    graphs: where exported graphs are kept; None to export anew. say: told of what takes more than a moment.
    Raises EngineError for an engine, device or precision that this machine does not offer.
    """
    _check("engine", engine, ENGINES)
    _check("device", device, DEVICES)
    _check("precision", precision, PRECISIONS)
    if batch_size is not None and batch_size < 1:
        raise EngineError(f"a batch of {batch_size} images cannot run; --batch-size is 1 or more")
    from extract.engines.choice import choose_cpu_engine
    from extract.engines.torch_engine import build_torch_engine, choose_device

    chosen = choose_device(device)
    if engine == "onnxruntime" and (chosen != "cpu" or precision != "fp32"):
        raise EngineError(
            f"the engine onnxruntime runs on the CPU in fp32, not on {chosen} in {precision}; "
            "use --engine torch, or --device cpu --precision fp32"
        )
    if engine == "torch" or chosen != "cpu" or precision != "fp32":
        why = _why_torch(engine, device, chosen)
        return build_torch_engine(source, device=chosen, precision=precision, batch_size=batch_size, why=why)
    return choose_cpu_engine(source, engine=engine, batch_size=batch_size, graphs=graphs, say=say or _silent)


def _why_torch(engine: str, device: str, chosen: str) -> str:
    if engine == "torch" or device != "auto":
        return "asked for"
    return "no GPU here" if chosen == "cpu" else "the fastest device here"


def _silent(_: str) -> None:
    pass


def _check(kind: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise EngineError(f"there is no {kind} '{value}'; choose from {', '.join(allowed)}")
