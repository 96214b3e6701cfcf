"""PyTorch as an engine, on CUDA, MPS and the CPU.

On a CPU four things make it several times faster than the module as it was loaded, and none changes a vector by more
than rounding: channels_last memory, batch norms folded into their convolutions, inference mode, and an allocator that
keeps the pages of large activations instead of handing them back after every layer. Batches run one at a time, each on
all cores.

On CUDA two threads may call `run` at once, each with a stream and page-locked memory of its own: while the network
works on the images of one, those of the other are copied. Images are decoded on the CPU: the GPU's own JPEG decoder
gives other pixels, and so other vectors than the key says. The network is neither compiled nor captured as a graph:
with 256 images in a batch, launching kernels should be a small part of the time that they run. No GPU could be had to
measure what either would bring.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from featurecache.base.errors import EngineError, OutOfMemory
from featurecache.extract.engines.fixed_batches import not_run, out_of_memory, run_in_batches

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.extract.engines.protocol import Source

# With the allocator tuned, a CPU is as fast at 4 as at 64 images (EfficientNet-Lite0: 65-69 images/s on one AVX-512
# core; untuned 55 falling to 28), so 16 keeps memory and padding small. A GPU needs many rows to be busy.
BATCH_SIZES = {"cpu": 16, "cuda": 256, "mps": 64}
# On CUDA one batch is copied while another is computed. MPS has one queue, and a CPU no copies.
LANES = {"cpu": 1, "cuda": 2, "mps": 1}
# What a CPU and MPS say, which have no exception for it.
MEMORY_ERRORS = ("can't allocate memory", "out of memory")
TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
LARGEST_OLD_THRESHOLD = 32 << 20
KEPT_BYTES = 1 << 30  # more than the activations of one batch, and what the process then keeps of them


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether this is torch's word for memory that is not there."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in MEMORY_ERRORS)


class TorchEngine:
    """A backbone on one device, at one precision; see `extract.engines.Engine`.

    module: on a CPU what an exporter starts from: batch norms folded, memory as on `device`.
    halving: whether a batch that does not fit is tried again in halves, from then on for good.
    Raises EngineError or OutOfMemory where the device does not take the network.
    """

    name = "torch"

    def __init__(
        self, source: Source, *, device: str, precision: str, batch_size: int, halving: bool, reason: str
    ) -> None:
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.halving = halving
        self.reason = reason
        self.side = source.side
        self.n_lanes = LANES[device]
        folded = fold_batch_norms(source.load())
        with self._as_engine_error():
            self.module = folded.to(device).to(memory_format=torch.channels_last)
        self._per_thread = threading.local()
        # Called by more threads than it has lanes, next to engines that have more: one batch at a time all the same.
        self._lanes = threading.Semaphore(self.n_lanes)
        if device == "cpu":
            reuse_freed_memory()

    def run(self, batch: Tensor) -> NDArray[np.float32]:
        """uint8 (B, 3, S, S) -> float32 (B, D), any B; rows are computed `batch_size` at a time.

        Raises EngineError where the images are not of the backbone's size and type or torch fails, OutOfMemory.
        """
        with self._lanes:
            size = self.batch_size
            try:
                return run_in_batches(batch, size, self.side, self._run_whole)
            except OutOfMemory:
                if size == 1 or not self.halving:
                    raise
            # Another lane may have halved it meanwhile.
            self.batch_size = min(self.batch_size, size // 2)
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return self.run(batch)

    def _run_whole(self, batch: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode(), self._numerics(), self._as_engine_error(), self._own_stream():
            features: Tensor = self.module(self._on_device(batch).contiguous(memory_format=torch.channels_last))
            vectors: NDArray[np.float32] = features.float().cpu().numpy()
        return vectors

    @contextlib.contextmanager
    def _as_engine_error(self) -> Iterator[None]:
        """Raise what torch says as an error of ours."""
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise out_of_memory(self.batch_size) from error
            raise not_run(f"torch on {self.device}", error, self._alternative()) from error

    def _alternative(self) -> str:
        """What else there is to try where this engine fails."""
        if self.device != "cpu":
            return "--device cpu"
        return "--engine onnxruntime" if self.precision == "fp32" else "--precision fp32"

    def _on_device(self, batch: Tensor) -> Tensor:
        """The images on the device; on CUDA through this thread's page-locked buffer, which lets the copy run aside.

        The buffer is free again when the vectors of its last batch are on the CPU, and `run` returns no sooner.
        """
        if self.device != "cuda":
            return batch.to(self.device)
        if not hasattr(self._per_thread, "pinned") or len(self._per_thread.pinned) != len(batch):
            self._per_thread.pinned = torch.empty(batch.shape, dtype=batch.dtype, pin_memory=True)
        return self._per_thread.pinned.copy_(batch).to(self.device, non_blocking=True)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _own_stream(self) -> Iterator[None]:
        """On CUDA this thread's stream, so that the work of two threads does not wait for one another."""
        if self.device != "cuda":
            yield
            return
        if not hasattr(self._per_thread, "stream"):
            self._per_thread.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            # The weights came by the default stream, and other streams do not wait for it by themselves.
            self._per_thread.stream.wait_stream(torch.cuda.default_stream())
        with torch.cuda.stream(self._per_thread.stream):
            yield

    @contextlib.contextmanager
    def _numerics(self) -> Iterator[None]:
        """The precision asked for: fp32 as it is (`build_torch_engine` turns TF32 off), others by autocast.

        On CUDA the sums are not promised to be the same bits in every run: cuDNN is asked for its deterministic
        kernels, but cuBLAS promises that for one stream at a time only, and here are two.
        """
        with contextlib.ExitStack() as stack:
            if self.precision != "fp32":
                stack.enter_context(torch.autocast(self.device, dtype=TORCH_DTYPES[self.precision]))
            yield


def build_torch_engine(source: Source, *, device: str, precision: str, batch_size: int | None, why: str) -> TorchEngine:
    """Put a network on a device; `device` as `choose_device` gives it.

    Raises EngineError for a precision that the device does not offer.
    """
    if device == "cpu" and precision == "fp16":
        raise EngineError("On a CPU fp16 is slower than fp32, and less exact. Use fp32 or bf16, or --device cuda.")
    if device == "cuda":
        # fp32 means fp32: TF32, cuDNN's default, keeps 10 bits of mantissa and moves vectors by 1e-3. Set for the
        # process and not around every batch: two threads would undo each other's settings.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return TorchEngine(
        source,
        device=device,
        precision=precision,
        batch_size=batch_size or BATCH_SIZES[device],
        halving=batch_size is None,
        reason=f"torch on {device} in {precision}: {why}",
    )


def choose_device(device: str) -> str:
    """The device meant by `--device`; `auto` takes CUDA, then MPS, then the CPU.

    Raises EngineError where this machine has no such device.
    """
    offered = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in offered.items() if there)
    if not offered[device]:
        there = ", ".join(name for name, there in offered.items() if there)
        raise EngineError(f"There is no device '{device}' on this machine as torch sees it; there is {there}.")
    return device


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """A copy of an eval-mode module in which each batch norm that follows a convolution is part of that convolution.

        w' = w * g / sqrt(v + eps)        b' = (b - m) * g / sqrt(v + eps) + beta

    with running mean m, running variance v, scale g and offset beta of the batch norm.
    """
    folded = copy.deepcopy(module)
    for part in list(folded.modules()):
        if isinstance(part, fx.GraphModule):
            _fold_in_graph(part)
        elif isinstance(part, nn.Sequential):
            _fold_in_sequence(part)
    return folded


def _fold_in_graph(graph_module: fx.GraphModule) -> None:
    calls = Counter(node.target for node in graph_module.graph.nodes if node.op == "call_module")
    for node in list(graph_module.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or len(before.users) > 1 or calls[before.target] != 1:
            continue
        pair = graph_module.get_submodule(str(before.target)), graph_module.get_submodule(str(node.target))
        folded = _fold(*pair)
        if folded is not None:
            graph_module.set_submodule(str(before.target), folded)
            node.replace_all_uses_with(before)
            graph_module.graph.erase_node(node)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()


def _fold_in_sequence(sequence: nn.Sequential) -> None:
    for at, (first, second) in enumerate(pairwise(list(sequence))):
        folded = _fold(first, second)
        if folded is not None:
            sequence[at], sequence[at + 1] = folded, nn.Identity()


def _fold(convolution: nn.Module, norm: nn.Module) -> nn.Module | None:
    """The two as one convolution, or None where they are not a convolution and its batch norm."""
    if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d) or not norm.track_running_stats:
        return None
    return fuse_conv_bn_eval(convolution, norm)


def reuse_freed_memory() -> bool:
    """Tell glibc's allocator to reuse large blocks instead of returning them to the system; say whether it will.

    By default every activation above 32 MB, and at first above 128 kB, is mapped again and page-faulted in, layer by
    layer. Other C libraries have no such setting; then nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    taken = [mallopt(setting, KEPT_BYTES) == 1 for setting in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    # Some versions refuse so large a threshold; the largest that they take is half of a thread's heap.
    taken[0] = taken[0] or mallopt(M_MMAP_THRESHOLD, LARGEST_OLD_THRESHOLD) == 1
    return all(taken)
