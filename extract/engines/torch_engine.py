"""PyTorch as an engine, on CPU, CUDA and MPS.

On a CPU four things make it several times faster than the module as it was loaded, and none changes a vector by more
than rounding: channels_last memory, batch norms folded into their convolutions, inference mode, and an allocator that
keeps the pages of large activations instead of handing them back after every layer.

Every batch runs with exactly `batch_size` rows: a shorter one is padded, and the padding cut off. Kernels choose their
order of summation by the shape of the whole batch, so a vector would otherwise depend on how many images were left.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from extract.errors import EngineError, OutOfMemory

if TYPE_CHECKING:
    from extract.backbones import Backbone

# With the allocator tuned, a CPU is as fast at 4 as at 64 images (EfficientNet-Lite0: 65-69 images/s on one AVX-512
# core; untuned 55 falling to 28), so 16 keeps memory and padding small. A GPU needs many rows to be busy.
BATCH_SIZES = {"cpu": 16, "cuda": 256, "mps": 64}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
KEPT_BYTES = 1 << 30  # more than the activations of one batch, and what the process then keeps of them


class TorchEngine:
    """A backbone on one device, at one precision; see `extract.engines.Engine`."""

    name = "torch"

    def __init__(self, backbone: Backbone, *, device: str, precision: str, batch_size: int, reason: str) -> None:
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.reason = reason
        self._shape = (3, backbone.transform.crop, backbone.transform.crop)
        module = fold_batch_norms(backbone.module).to(device)
        self._module = module.to(memory_format=torch.channels_last)
        if device == "cpu":
            keep_freed_memory()

    def run(self, batch: Tensor) -> np.ndarray:
        """uint8 (B, 3, S, S) -> float32 (B, D), any B; rows are computed `batch_size` at a time.

        Raises EngineError where the images are not of the backbone's size and type.
        """
        if batch.dtype != torch.uint8 or batch.shape[1:] != self._shape:
            wanted = f"(B, {', '.join(map(str, self._shape))})"
            raise EngineError(f"the backbone takes uint8 {wanted}, not {batch.dtype} {tuple(batch.shape)}")
        rows = [self._run_whole(part) for part in torch.split(batch, self.batch_size)]
        return np.concatenate(rows)

    def _run_whole(self, part: Tensor) -> np.ndarray:
        """Up to `batch_size` rows, run as exactly that many."""
        n_rows = len(part)
        if n_rows < self.batch_size:
            part = torch.cat([part, part.new_zeros((self.batch_size - n_rows, *self._shape))])
        with torch.inference_mode(), self._numerics():
            try:
                features: Tensor = self._module(part.to(self.device).contiguous(memory_format=torch.channels_last))
            except RuntimeError as error:
                raise _out_of_memory(self.batch_size, error) from error
        return features[:n_rows].float().cpu().numpy()

    @contextlib.contextmanager
    def _numerics(self) -> Iterator[None]:
        """The precision asked for and no other; on CUDA the same sums in every run."""
        with contextlib.ExitStack() as stack:
            if self.precision != "fp32":
                stack.enter_context(torch.autocast(self.device, dtype=DTYPES[self.precision]))
            if self.device == "cuda":
                # fp32 means fp32: TF32, cuDNN's default, keeps 10 bits of mantissa and moves vectors by 1e-3.
                stack.enter_context(torch.backends.cudnn.flags(allow_tf32=False, deterministic=True, benchmark=False))
            yield


def _out_of_memory(batch_size: int, error: RuntimeError) -> Exception:
    """One sentence for want of memory; any other error of the network as it is."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        return error
    return OutOfMemory(
        f"A batch of {batch_size} images needs more memory than there is; take a smaller --batch-size. "
        "What was extracted is kept."
    )


def build_torch_engine(backbone: Backbone, *, device: str, precision: str, batch_size: int | None) -> TorchEngine:
    """Put a backbone on a device; `auto` takes CUDA, then MPS, then the CPU.

    Raises EngineError for a device or precision that this machine does not offer.
    """
    chosen = _choose_device(device)
    if chosen == "cpu" and precision == "fp16":
        raise EngineError("fp16 is slower than fp32 on a CPU, and less exact; use fp32 or bf16, or --device cuda")
    why = "asked for" if device != "auto" else "the fastest device here" if chosen != "cpu" else "no GPU here"
    return TorchEngine(
        backbone,
        device=chosen,
        precision=precision,
        batch_size=batch_size or BATCH_SIZES[chosen],
        reason=f"torch on {chosen} in {precision}: {why}",
    )


def _choose_device(device: str) -> str:
    offered = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in offered.items() if there)
    if not offered[device]:
        there = ", ".join(name for name, there in offered.items() if there)
        raise EngineError(f"there is no device '{device}' on this machine as torch sees it; there is {there}")
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


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to reuse large blocks instead of returning them to the system; say whether it will.

    By default every activation above 32 MB, and at first above 128 kB, is mapped anew and page-faulted in, layer by
    layer. Other C libraries have no such setting; then nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(setting, KEPT_BYTES) == 1 for setting in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
