"""The engine of a network in int8: its graph, quantised by the activation ranges of its cache, on ONNX Runtime.

    measure_ranges    export -> calibration on synthetic pictures -> Ranges, once for a network and a cache
    build_int8_engine export -> quantisation by the ranges -> comparison with fp32 -> storage of the graph

A network whose vectors in int8 have a mean cosine below LEAST_COSINE to those in fp32, on the pictures of the
calibration, is refused, also where the ranges are somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import EngineError, EngineFailed
from featurecache.base.text import printable
from featurecache.extract.cache.spec import INT8
from featurecache.extract.engines.calibration import calibrate, quantise
from featurecache.extract.engines.calibration_pictures import N_PICTURES, calibration_pictures
from featurecache.extract.engines.choice import full_identity, saved_choice
from featurecache.extract.engines.export import export_graph
from featurecache.extract.engines.graph_checks import bind_graph
from featurecache.extract.engines.graph_store import GraphFolder, Verdict
from featurecache.extract.engines.onnx_engine import BATCH_SIZE, OnnxEngine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.cache.ranges import Ranges
    from featurecache.extract.engines.protocol import Source

# The least mean cosine to fp32: efficientnet_lite0 has 0.987, networks that int8 does not suit 0.5 and less.
LEAST_COSINE = 0.98


def measure_ranges(source: Source, say: Callable[[str], None]) -> Ranges:
    """Return the activation ranges of a network over the synthetic pictures. Raises EngineError."""
    say(f"Measuring the activation ranges of {_name(source)} for int8, once for this cache, on {N_PICTURES} pictures")
    graph = _exported(source, BATCH_SIZE)
    with _naming(source):
        return calibrate(graph, calibration_pictures(source.side))


def build_int8_engine(
    source: Source,
    ranges: Ranges,
    *,
    batch_size: int | None,
    graphs: GraphFolder | None,
    say: Callable[[str], None],
) -> OnnxEngine:
    """Return the engine of a network in int8 by its activation ranges. graphs, say: as for `build_engine`.

    Raises EngineFailed if the network cannot be exported, if the ranges are those of another graph, or if its vectors
    are too far from those in fp32.
    """
    identity = {**full_identity(source, batch_size), "precision": INT8, "ranges": ranges.digest}
    saved = saved_choice(source, identity, batch_size, graphs, say)
    if saved is None or saved[1] is None:
        saved = _quantised(source, ranges, batch_size, identity, say)
        if graphs is not None:
            graphs.save(identity, *saved)
    verdict, graph = saved
    assert graph is not None, "a graph in int8 is stored with its verdict"
    return _engine(source, graph, batch_size, f"onnxruntime on cpu in int8: {verdict.reason}", INT8)


def _quantised(
    source: Source, ranges: Ranges, batch_size: int | None, identity: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Verdict, bytes]:
    """Return the quantised graph, bound to its identity, and its similarity to fp32 as the reason of a verdict."""
    import torch

    say(f"Preparing {_name(source)} in int8 for this machine, once: quantising its graph and comparing it with fp32")
    exact = _exported(source, batch_size or BATCH_SIZE)
    with _naming(source):
        graph = quantise(exact, ranges)
    pictures = calibration_pictures(source.side)
    engine, reference = (_engine(source, each, batch_size, "", kind) for each, kind in ((graph, INT8), (exact, "fp32")))
    images = torch.from_numpy(pictures)
    cosine = mean_cosine(engine.run(images), reference.run(images))
    if not cosine >= LEAST_COSINE:
        raise EngineFailed(
            f"{_name(source)} does not suit int8: the mean cosine of its features to those in fp32 is {cosine:.3f} on "
            f"{N_PICTURES} pictures, and has to be {LEAST_COSINE} or more. Use --precision fp32."
        )
    reason = f"asked for; mean cosine to fp32 {cosine:.4f} on {N_PICTURES} pictures"
    return Verdict(engine.name, engine.n_lanes, reason, {}, None), bind_graph(graph, identity)


def mean_cosine(vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the mean cosine of the rows of (N, D); 1 for two vectors of zeros, 0 for one; NaN if any is infinite."""
    with np.errstate(all="ignore"):
        products = np.einsum("nd,nd->n", vectors, expected, dtype=np.float64)
        lengths = np.linalg.norm(vectors, axis=1), np.linalg.norm(expected, axis=1)
        cosines = products / (lengths[0] * lengths[1])
    is_zero = lengths[0] * lengths[1] == 0
    cosines[is_zero] = (lengths[0] == lengths[1])[is_zero]
    return float(cosines.mean())


def _exported(source: Source, batch_size: int) -> bytes:
    """Return the graph in fp32, exported once for a source."""
    from featurecache.extract.engines.torch_engine import build_torch_engine

    if batch_size not in source.exported:
        network = build_torch_engine(source, device="cpu", precision="fp32", batch_size=batch_size, why="")
        with _naming(source):
            source.exported[batch_size] = export_graph(network.module, batch_size=batch_size, side=source.side)
    return source.exported[batch_size]


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Let the errors of a step name the network and the next step."""
    try:
        yield
    except EngineError as error:
        raise EngineFailed(f"{_name(source)} cannot run in int8: {error}. Use --precision fp32.") from error


def _engine(source: Source, graph: bytes, batch_size: int | None, reason: str, precision: str) -> OnnxEngine:
    return OnnxEngine(graph, side=source.side, batch_size=batch_size or BATCH_SIZE, reason=reason, precision=precision)


def _name(source: Source) -> str:
    return printable(str(source.identity["backbone"]))
