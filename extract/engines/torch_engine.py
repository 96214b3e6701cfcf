"""The engine torch: PyTorch on CUDA, MPS and the CPU.

On a CPU four optimisations make it several times faster than the loaded module and change vectors only by rounding:
channels_last memory, batch norms folded into their convolutions, inference mode, and an allocator that reuses the
memory of large activations instead of returning it to the system after every layer. Batches run one at a time, each on
all cores; next to an engine with more lanes it has as many, each with its share of the cores.

On CUDA two threads may call `run` at once, each with its own stream and page-locked memory: the images of one are
copied while the network computes those of the other. Images are decoded on the CPU: the GPU's JPEG decoder returns
other pixels, and so other vectors than those of the key. The network is neither compiled nor captured as a CUDA graph:
with 256 images in a batch, launching kernels should take a small part of the time. The effect was not measured on a
GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from featurecache.base.errors import EngineError, OutOfMemory
from featurecache.base.values import refuse
from featurecache.extract.engines.fixed_batches import is_out_of_memory, not_run, out_of_memory, run_in_batches
from featurecache.extract.engines.folding import fold_batch_norms
from featurecache.extract.engines.protocol import ALL_GPUS, kind_of_device, no_precision, no_tf32
from featurecache.extract.engines.torch_settings import TF32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.extract.engines.protocol import Source

# With the allocator tuned, a CPU is as fast at 4 as at 64 images (EfficientNet-Lite0: 65-69 images/s on one AVX-512
# core; untuned 55 falling to 28), so 16 keeps memory and padding small. A GPU needs many rows to be busy.
BATCH_SIZES = {"cpu": 16, "cuda": 256, "mps": 64}
# On CUDA one batch is copied while another is computed. MPS has one queue, and a CPU copies nothing.
LANES = {"cpu": 1, "cuda": 2, "mps": 1}
# The dtypes of autocast; fp32 and tf32 have none.
TORCH_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# The compute capability of the first GPUs that have TF32 (Ampere).
FIRST_WITH_TF32 = (8, 0)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
LARGEST_OLD_THRESHOLD = 32 << 20
KEPT_BYTES = 1 << 30  # the freed memory that the process may hold: more than the activations of one batch


class TorchEngine:
    """A backbone on one device, at one precision; see `engines.protocol.Engine`.

    module: the network on the device, its batch norms folded; on a CPU it is what is exported.
    halving: whether the batch size is halved, permanently, when a batch does not fit into memory. channels_last: the
    order of the channels in memory, which is faster than the contiguous one.
    Raises EngineError or OutOfMemory if the network cannot be moved to the device.
    """

    name = "torch"

    def __init__(
        self,
        source: Source,
        *,
        device: str,
        precision: str,
        batch_size: int,
        halving: bool,
        reason: str,
        channels_last: bool = True,
    ) -> None:
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.halving = halving
        self.reason = reason
        self.side = source.side
        self._kind = kind_of_device(device)
        self.n_lanes = LANES[self._kind]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        folded = fold_batch_norms(source.load())
        with self._as_engine_error():
            self.module = folded.to(device).to(memory_format=self.memory_format)
        self._per_thread = threading.local()
        self._can_pin = True
        self._lanes = threading.Semaphore(self.n_lanes)
        if device == "cpu":
            reuse_freed_memory()

    def run(self, batch: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute features: uint8 (B, 3, S, S) -> float32 (B, D), any B, in batches of `batch_size`.

        Raises EngineError if the images do not have the backbone's size and type or torch fails, OutOfMemory.
        """
        with self._lanes:
            size = self.batch_size
            try:
                return run_in_batches(batch, size, self.side, self._run_whole)
            except OutOfMemory:
                if size == 1 or not self.halving:
                    raise
            # Another lane may have halved it since.
            self.batch_size = min(self.batch_size, size // 2)
        if self._kind == "cuda":
            torch.cuda.empty_cache()
        return self.run(batch)

    def allow_lanes(self, n_lanes: int) -> None:
        """Let more threads call `run` at once; each runs torch's operators in as many threads as it is allowed."""
        self._lanes = threading.Semaphore(n_lanes)

    def _run_whole(self, images: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        batch = torch.as_tensor(images)
        with torch.inference_mode(), self._numerics(), self._as_engine_error(), self._own_stream():
            features: Tensor = self.module(self._on_device(batch).contiguous(memory_format=self.memory_format))
            vectors: NDArray[np.float32] = features.float().cpu().numpy()
        return vectors

    @contextlib.contextmanager
    def _as_engine_error(self) -> Iterator[None]:
        """Raise errors of torch as OutOfMemory or EngineFailed."""
        try:
            yield
        except MemoryError as error:
            raise out_of_memory(self.batch_size) from error
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise out_of_memory(self.batch_size) from error
            raise not_run(f"torch on {self.device}", error, self._alternative()) from error

    def _alternative(self) -> str:
        """Return the options to try instead when this engine fails."""
        if self.device != "cpu":
            return "--device cpu"
        return "--engine onnxruntime" if self.precision == "fp32" else "--precision fp32"

    def _on_device(self, batch: Tensor) -> Tensor:
        """Return the images on the device; on CUDA by an asynchronous copy from page-locked memory.

        That is theirs, or this thread's buffer. Both can be reused once the vectors of the batch are on the CPU, and
        `run` does not return earlier.
        """
        if self._kind != "cuda":
            return batch.to(self.device)
        if batch.is_pinned():
            return batch.to(self.device, non_blocking=True)
        pinned = self._pinned(batch)
        if pinned is None:
            return batch.to(self.device)
        return pinned.copy_(batch).to(self.device, non_blocking=True)

    def _pinned(self, batch: Tensor) -> Tensor | None:
        """Return this thread's page-locked buffer for a batch; None where the system has no more such memory."""
        buffer: Tensor | None = getattr(self._per_thread, "pinned", None)
        if self._can_pin and (buffer is None or len(buffer) != len(batch)):
            try:
                buffer = torch.empty(batch.shape, dtype=batch.dtype, pin_memory=True)
            except RuntimeError:  # a limit on locked memory (ulimit -l): copies from ordinary memory are slower
                self._can_pin, buffer = False, None
            self._per_thread.pinned = buffer
        return buffer

    @contextlib.contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Use this thread's stream on CUDA, so that two threads do not wait for one another."""
        if self._kind != "cuda":
            yield
            return
        if not hasattr(self._per_thread, "stream"):
            self._per_thread.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            # The weights were copied on the default stream, and other streams do not wait for it by default.
            self._per_thread.stream.wait_stream(torch.cuda.default_stream(self.device))
        with torch.cuda.stream(self._per_thread.stream):
            yield

    @contextlib.contextmanager
    def _numerics(self) -> Iterator[None]:
        """Set the precision: TF32 on for tf32 and off for all others, which autocast sets below fp32.

        On CUDA results may differ in their last bits between runs: cuDNN is set to deterministic kernels, but cuBLAS is
        deterministic only with a single stream, and there are two.
        """
        with contextlib.ExitStack() as stack:
            if self._kind == "cuda":
                stack.enter_context(TF32.at(self.precision == "tf32"))
            if self.precision in TORCH_DTYPES:
                stack.enter_context(torch.autocast(self._kind, dtype=TORCH_DTYPES[self.precision]))
            yield


def build_torch_engine(
    source: Source,
    *,
    device: str,
    precision: str,
    batch_size: int | None,
    why: str,
    channels_last: bool = True,
) -> TorchEngine:
    """Build the engine of a network on a device that `choose_device` has returned.

    Raises EngineError for a precision that is not supported on the device.
    """
    refuse(EngineError, no_precision(device, precision))
    kind = kind_of_device(device)
    if precision == "tf32" and torch.cuda.get_device_capability(device) < FIRST_WITH_TF32:
        raise EngineError(no_tf32(device))
    if kind == "cuda":
        # For the process and not for each batch; `torch_settings` restores it.
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return TorchEngine(
        source,
        device=device,
        precision=precision,
        batch_size=batch_size or BATCH_SIZES[kind],
        halving=batch_size is None,
        reason=f"torch on {device} in {precision}: {why}",
        channels_last=channels_last,
    )


def choose_device(device: str) -> str:
    """Return the device for a value of `--device`; `auto` is CUDA if available, then MPS, then the CPU.

    Raises EngineError if this machine has no such device.
    """
    offered = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in offered.items() if there)
    kind, _, which = device.partition(":")
    if not offered[kind]:
        there = ", ".join(name for name, there in offered.items() if there)
        raise EngineError(f"There is no device '{device}' on this machine as torch sees it; there is {there}.")
    if which.isdecimal() and int(which) >= torch.cuda.device_count():
        last = f"cuda:{torch.cuda.device_count() - 1}"
        raise EngineError(f"There is no device '{device}' on this machine as torch sees it; the last is '{last}'.")
    return device


def gpus_of(device: str) -> list[str]:
    """Return every GPU that torch sees for cuda:all, and any other device alone."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device == ALL_GPUS else [device]


def reuse_freed_memory() -> bool:
    """Set glibc's allocator to reuse large blocks instead of returning them to the system; return whether it did.

    By default every activation above 32 MB, and at first above 128 kB, is mapped and page-faulted again in every layer.
    Other C libraries have no such setting; then nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    taken = [mallopt(setting, KEPT_BYTES) == 1 for setting in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    # Some versions refuse so large a threshold; their maximum is half of a thread's heap.
    taken[0] = taken[0] or mallopt(M_MMAP_THRESHOLD, LARGEST_OLD_THRESHOLD) == 1
    return all(taken)
