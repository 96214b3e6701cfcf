"""The choice of an engine on a CPU: ONNX Runtime, unless the export fails, its vectors differ, or it is slower.

Both engines are compared once per network and machine, on random pixels, and the choice is saved with the graph. It
takes seconds: the export, one comparison of vectors, and a few batches of each engine in turn.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.cores import count_cores
from featurecache.base.errors import EngineError, OutOfMemory
from featurecache.base.versions import installed_version
from featurecache.extract.backbones.names import KERAS, TIMM, library_of
from featurecache.extract.engines.device_check import largest_difference
from featurecache.extract.engines.devices import instruction_sets
from featurecache.extract.engines.export import export_graph
from featurecache.extract.engines.graph_checks import bind_graph, graph_fault_once
from featurecache.extract.engines.graph_store import GraphFolder, Verdict
from featurecache.extract.engines.onnx_engine import BATCH_SIZE, OnnxEngine
from featurecache.extract.engines.protocol import NetworkIdentity

if TYPE_CHECKING:
    from torch import Tensor

    from featurecache.extract.engines.protocol import Engine, Source
    from featurecache.extract.engines.torch_engine import TorchEngine

# The largest relative difference of a vector that is permitted between engines, for every cut.
TOLERANCE = 1e-4
# The ratio by which torch must be faster: more than repeated measurements differ.
CLEARLY_FASTER = 1.1
# Both engines run in turn, this many rounds of this length: two seconds in all; slow networks run one batch each.
ROUNDS, SECONDS_PER_ROUND = 3, 0.3
LIBRARIES = ("torch", "torchvision", "efficientnet-lite-pytorch", "onnxruntime", "onnx", "onnxscript")

# The modules of backbones/ that determine the exported network, in addition to those of engines/.
NETWORK_MODULES = (
    "architectures", "cuts", "cutting", "pooling", "whole_networks", "libraries/timm_networks",
    "libraries/keras_conversion", "libraries/keras_layers", "libraries/keras_networks",
)  # fmt: skip


def choose_cpu_engine(
    source: Source, *, engine: str, batch_size: int | None, graphs: GraphFolder | None, say: Callable[[str], None]
) -> Engine:
    """Return the engine by the saved choice, or by a new comparison. engine: "auto" or "onnxruntime".

    Raises EngineError if `onnxruntime` is requested and the export fails or its vectors differ.
    """
    identity = full_identity(source, batch_size)
    saved = saved_choice(source, identity, batch_size, graphs, say)
    if saved is None or (engine == "onnxruntime" and saved[1] is None):
        say(f"Preparing {source.identity['backbone']} for this machine, once: exporting its graph and timing it")
        verdict, graph = compare_engines(source, batch_size)
        saved = verdict, None if graph is None else bind_graph(graph, identity)
        if graphs is not None and saved[0].is_lasting:
            graphs.save(identity, *saved)
    verdict, graph = saved
    if engine == "onnxruntime":
        return _build_requested(source, batch_size, verdict, graph)
    if verdict.engine == "torch" or graph is None:
        return _torch(source, batch_size, verdict.reason)
    try:
        return _onnx(source, batch_size, graph, verdict.reason)
    except EngineError as error:
        return _torch(source, batch_size, str(error))


def saved_choice(
    source: Source,
    identity: Mapping[str, Any],
    batch_size: int | None,
    graphs: GraphFolder | None,
    say: Callable[[str], None],
) -> tuple[Verdict, bytes | None] | None:
    """Return the saved choice and graph; None if there is none, or, after a message, if the graph fails its checks."""
    found = None if graphs is None else graphs.find(identity)
    if found is None or found[1] is None:
        return found
    size, dim = batch_size or BATCH_SIZE, source.feature_dim
    fault = graph_fault_once(found[1], identity, batch_size=size, side=source.side, feature_dim=dim)
    if fault:
        say(f"The stored graph of {source.identity['backbone']} is not used: {fault}")
    return None if fault else found


class _TooLarge(Exception):
    """A batch needs more memory than there is; the message is the name of the engine."""


def compare_engines(source: Source, batch_size: int | None) -> tuple[Verdict, bytes | None]:
    """Export a network, compare the engines in accuracy, then in speed; return the verdict and a usable graph or None.

    batch_size: as requested; None for each engine's default. If one engine runs out of memory, the other is chosen.
    """
    reference = _torch(source, batch_size, "")
    try:
        graph = export_graph(reference.module, batch_size=batch_size or BATCH_SIZE, side=source.side)
        candidate = _onnx(source, batch_size, graph, "")
        images = _random_images(max(candidate.batch_size, reference.batch_size), source.side)
        few = images[: candidate.batch_size]
        error = largest_difference(_vectors(candidate, few), _vectors(reference, few), source).error
        rates = _rates(candidate, reference, images) if error <= TOLERANCE else {}
    except EngineError as failure:
        return Verdict("torch", 1, f"it does not export ({failure})", {}, None), None
    except OutOfMemory:
        return Verdict("torch", 1, "its export needs more memory than there is", {}, None, is_lasting=False), None
    except _TooLarge as too_large:
        other = candidate if str(too_large) == reference.name else reference
        reason = f"{too_large} needs more memory than there is"
        return Verdict(other.name, other.n_lanes, reason, {}, None, is_lasting=False), graph
    if not rates:
        reason = f"its ONNX graph is {error:.1e} away, more than {TOLERANCE:g}"
        return Verdict("torch", 1, reason, {}, error), None
    if rates["torch"] > CLEARLY_FASTER * rates["onnxruntime"]:
        return Verdict("torch", 1, _faster(rates, "torch", "onnxruntime"), rates, error), graph
    return Verdict("onnxruntime", candidate.n_lanes, _faster(rates, "onnxruntime", "torch"), rates, error), graph


def _vectors(engine: Engine, images: Tensor) -> np.ndarray:
    try:
        return engine.run(images)
    except OutOfMemory as error:
        raise _TooLarge(engine.name) from error


class GraphIdentity(NetworkIdentity):
    """Everything that a graph and the verdict on it depend on, as plain JSON values. code: a digest of the modules."""

    batch_size: int | None
    versions: dict[str, str | None]
    machine: list[str | int]
    code: str


def full_identity(source: Source, batch_size: int | None) -> GraphIdentity:
    """Return the identity of the graph of a network on this machine."""
    return {
        **source.identity,
        "batch_size": batch_size,
        "versions": {name: installed_version(name) for name in (*LIBRARIES, *_more_libraries(source))},
        "machine": [platform.machine(), instruction_sets(), count_cores()],
        "code": _code_digest(),
    }


def _more_libraries(source: Source) -> tuple[str, ...]:
    if not source.identity.get("network"):
        return ()
    return (KERAS,) if library_of(source.identity["backbone"]) == KERAS else (TIMM,)


@cache
def _code_digest() -> str:
    here = Path(__file__).parent
    modules = [*sorted(here.glob("*.py")), *(here.parent / "backbones" / f"{name}.py" for name in NETWORK_MODULES)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in modules)).hexdigest()


def _rates(candidate: Engine, reference: Engine, images: Tensor) -> dict[str, float]:
    """Return images/s of both, the best round of each; in turn, so that other load on the machine affects both."""
    best = {candidate.name: 0.0, reference.name: 0.0}
    for _ in range(ROUNDS):
        spent = 0.0
        for engine in (candidate, reference):
            rate, seconds = _rate(engine, images)
            best[engine.name] = max(best[engine.name], rate)
            spent += seconds
        if spent > 2 * ROUNDS * SECONDS_PER_ROUND:
            break
    return {name: round(rate, 2) for name, rate in best.items()}


def _rate(engine: Engine, images: Tensor) -> tuple[float, float]:
    batch = images[: engine.batch_size]
    started = time.perf_counter()

    def lane(_: int) -> int:
        n_images = 0
        while n_images == 0 or time.perf_counter() - started < SECONDS_PER_ROUND:
            _vectors(engine, batch)
            n_images += len(batch)
        return n_images

    with ThreadPoolExecutor(engine.n_lanes) as pool:
        total = sum(pool.map(lane, range(engine.n_lanes)))
    seconds = time.perf_counter() - started
    return total / seconds, seconds


def _random_images(n: int, side: int) -> Tensor:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)


def _faster(rates: dict[str, float], first: str, second: str) -> str:
    ratio = rates[first] / rates[second]
    return f"{ratio:.1f} times as fast as {second} here" if ratio > CLEARLY_FASTER else f"as fast as {second} here"


def _build_requested(source: Source, batch_size: int | None, verdict: Verdict, graph: bytes | None) -> Engine:
    if graph is None:
        raise EngineError(
            f"{source.identity['backbone']} cannot run on onnxruntime: {verdict.reason}; use --engine auto"
        )
    return _onnx(source, batch_size, graph, "asked for")


def _onnx(source: Source, batch_size: int | None, graph: bytes, why: str) -> OnnxEngine:
    reason = f"onnxruntime on cpu in fp32: {why}"
    return OnnxEngine(graph, side=source.side, batch_size=batch_size or BATCH_SIZE, reason=reason)


def _torch(source: Source, batch_size: int | None, why: str) -> TorchEngine:
    from featurecache.extract.engines.torch_engine import build_torch_engine

    return build_torch_engine(source, device="cpu", precision="fp32", batch_size=batch_size, why=why)
