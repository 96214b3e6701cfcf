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

from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.cores import count_cores
from featurecache.base.errors import EngineError
from featurecache.extract.cache.spec import INT8
from featurecache.extract.engines.exact_products import make_products_exact
from featurecache.extract.engines.fixed_batches import first_line, not_run, out_of_memory, run_in_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

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
        import onnxruntime as ort

        self.side = side
        self.batch_size = batch_size
        self.reason = reason
        self.precision = precision
        self.n_lanes = count_lanes()
        options = ort.SessionOptions()
        # All lanes share the session's thread pool. Its number of threads counts the calling thread.
        options.intra_op_num_threads = count_cores() - self.n_lanes + 1
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        try:
            if precision == INT8:
                make_products_exact(options)
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EngineError(f"ONNX Runtime does not take the exported graph: {first_line(error)}") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute features: uint8 (B, 3, S, S) -> float32 (B, D), any B, in batches of `batch_size`.

        Raises EngineError if the images do not have the backbone's size and type, OutOfMemory.
        """
        return run_in_batches(batch, self.batch_size, self.side, self._run_whole)

    def allow_lanes(self, n_lanes: int) -> None:
        """Any number of threads may call `run` at once."""

    def _run_whole(self, batch: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            (features,) = self._session.run(None, {self._input: np.ascontiguousarray(batch)})
        except Exception as error:
            if "allocate memory" in str(error) or isinstance(error, MemoryError):
                raise out_of_memory(self.batch_size) from error
            raise not_run("ONNX Runtime", error, "--engine torch") from error
        return np.asarray(features, dtype=np.float32)
