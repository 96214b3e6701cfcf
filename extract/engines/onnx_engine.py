"""The engine onnxruntime: ONNX Runtime on the CPU, in fp32 and, by a quantised graph, in int8.

Every core is a lane: one thread that runs whole batches, so that no core waits for another at the end of a layer, and a
lane can decode images and run the network without a scheduler. Images/s, model only, 224 px, fp32, two AVX-512 cores
(torch 2.15, onnxruntime 1.32, openvino 2026.4; medians of three, alternating in pairs):

    backbone              torch, batch 16   ONNX Runtime, 1 x 2 threads   the same, 2 lanes of 4 images   OpenVINO
    efficientnet_lite0          104                   174                             190                    152
    mobilenet_v3_large          190                   228-297                         322                    275
    resnet18                     54                    56                              56                     60
    resnet50                     21                    24                              25                     24
    vgg16                       6.9                   6.4                             6.9                    7.1
    vit_b_16                    4.4                   4.7                             5.1                    4.8

OpenVINO is never faster by more than a tenth, which does not justify a second exported format.

torch's compiler with freezing, batch 16: efficientnet_lite0 110 images/s and mobilenet_v3_large 207, against 69 and 158
of the engine torch and 215 and 353 of two lanes of ONNX Runtime in the same run (torch 2.14). It needs a C++ compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.cores import count_cores
from featurecache.base.errors import EngineError, OutOfMemory
from featurecache.extract.cache.spec import INT8
from featurecache.extract.engines.exact_products import make_products_exact
from featurecache.extract.engines.fixed_batches import first_line, not_run, out_of_memory, run_in_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from featurecache.extract.engines.few_images import FewImages

# As fast as 16 on all networks measured, with a quarter of the memory and less padding in the last batch.
BATCH_SIZE = 4
# Every lane holds the activations of one batch; further cores run parts of the lanes' batches.
MAX_LANES = 16
ERRORS_ONLY = 3


def count_lanes() -> int:
    """Return the number of batches that run at once on this machine."""
    return min(MAX_LANES, count_cores())


class OnnxEngine:
    """An exported graph on the CPU; see `extract.engines.Engine`.

    graph: ONNX, uint8 (batch_size, 3, side, side) -> float32 (batch_size, D). precision: that of the graph.
    Raises EngineError if ONNX Runtime cannot load it.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, graph: bytes, *, side: int, batch_size: int, reason: str, precision: str = "fp32") -> None:
        self.side = side
        self.batch_size = batch_size
        self.reason = reason
        self.precision = precision
        self.n_lanes = count_lanes()
        # The session holds these bytes, too.
        self._graph = graph
        self._few: FewImages | None = None
        self._n_running, self._lock = 0, Lock()
        # All lanes share the session's thread pool.
        self._session = self._loaded(graph, n_threads=count_cores() - self.n_lanes + 1)
        self._input = self._session.get_inputs()[0].name

    def _loaded(self, graph: bytes, *, n_threads: int, is_for_few: bool = False) -> Any:
        """Return the session of a graph. n_threads: of its thread pool, with the calling thread. Raises EngineError."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        if is_for_few:  # whose threads would otherwise keep the cores busy for a while after each image
            options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            if self.precision == INT8:
                make_products_exact(options)
            return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EngineError(f"ONNX Runtime does not take the exported graph: {first_line(error)}") from error

    def prepare_few(self) -> str:
        """Compute few images one by one on all cores from now on, where that gives the bits of a batch in less time.

        It takes a second. Returns why it does not give them, as a clause; empty where it does.
        """
        from featurecache.extract.engines.few_images import MOST_BYTES, compared, graph_for_one

        if self.batch_size == 1 or len(self._graph) > MOST_BYTES:
            return "" if self.batch_size == 1 else f"its weights have more than {MOST_BYTES / 1e6:.0f} MB"
        try:
            graph = graph_for_one(self._graph, self.batch_size)
            on_all = self._loaded(graph, n_threads=min(MAX_LANES, count_cores()), is_for_few=True)
            on_own = self._loaded(graph, n_threads=count_cores() - self.n_lanes + 1)
            self._few, why = compared(
                self._run_whole,
                partial(self._run_in, on_all),
                partial(self._run_in, on_own),
                batch_size=self.batch_size,
                side=self.side,
            )
        except (EngineError, OutOfMemory) as error:
            return f"its graph is not one for single images: {error}"
        return why

    def run(self, batch: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute features: uint8 (B, 3, S, S) -> float32 (B, D), any B, in batches of `batch_size`.

        Raises EngineError if the images do not have the backbone's size and type, OutOfMemory.
        """
        with self._counted() as is_alone:
            if self._few is not None and 0 < len(batch) <= self._few.most:
                return self._few.run(batch, is_alone=is_alone)
            return run_in_batches(batch, self.batch_size, self.side, self._run_whole)

    @contextmanager
    def _counted(self) -> Iterator[bool]:
        """Count a lane that runs; yields whether no other one did when it began."""
        with self._lock:
            is_alone = not self._n_running
            self._n_running += 1
        try:
            yield is_alone
        finally:
            with self._lock:
                self._n_running -= 1

    def allow_lanes(self, n_lanes: int) -> None:
        """Any number of threads may call `run` at once."""

    def _run_whole(self, batch: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._run_in(self._session, batch)

    def _run_in(self, session: Any, batch: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            (features,) = session.run(None, {self._input: np.ascontiguousarray(batch)})
        except Exception as error:
            if "allocate memory" in str(error) or isinstance(error, MemoryError):
                raise out_of_memory(self.batch_size) from error
            raise not_run("ONNX Runtime", error, "--engine torch") from error
        return np.asarray(features, dtype=np.float32)
