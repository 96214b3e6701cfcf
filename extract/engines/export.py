"""Export of a network as an ONNX graph: normalisation, backbone and pooling, for batches of one size."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from featurecache.base.errors import EngineError
from featurecache.extract.engines.fixed_batches import out_of_memory

if TYPE_CHECKING:
    from torch import nn

# What the exporter logs under, with their children.
EXPORTER_LOGGERS = ("torch", "onnxscript", "onnx_ir", "onnx")
# The limit of a protobuf message is 2 GiB; larger networks run on torch.
MAX_BYTES = (2 << 30) - (16 << 20)


def export_graph(module: nn.Module, *, batch_size: int, side: int) -> bytes:
    """Export an eval-mode module, uint8 (batch_size, 3, side, side) -> float32 (batch_size, D), as ONNX.

    Raises EngineError with the reason if it cannot be exported, OutOfMemory if that is the reason.
    """
    import torch

    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
    if n_bytes > MAX_BYTES:
        raise EngineError(f"its weights of {n_bytes / 1e9:.1f} GB are more than an ONNX file holds")
    images = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8)
    try:
        with _silenced(), _operators_listed_once():
            program = torch.onnx.export(
                module, (images,), input_names=["images"], output_names=["features"], dynamo=True, verbose=False
            )
            assert program is not None
            content: bytes = program.model_proto.SerializeToString()
    except Exception as error:
        cause = _first_cause(error)
        if isinstance(cause, MemoryError) or "allocate memory" in str(cause):
            raise out_of_memory(batch_size) from error
        text = " ".join(str(cause).split())
        raise EngineError(f"{type(cause).__name__}: {text[:160]}") from error
    return content


@contextlib.contextmanager
def _silenced():  # type: ignore[no-untyped-def]
    """Suppress the warnings and messages of the exporter, which concern its internals; failures raise exceptions.

    What other threads print in the meantime is printed, and loggers of other libraries are left alone.
    """
    levels = {name: logging.getLogger(name).level for name in EXPORTER_LOGGERS}
    for name in EXPORTER_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(_OtherThreads(sys.stdout)):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _operators_listed_once() -> Iterator[None]:
    """Let torch enter its C++ operators once in an export: it does so twice for each library that has operators.

    The first export of a process, of two convolutions, took 5.7 s of CPU time, and 4.4 s with this. Where torch has
    another name for it, nothing is changed.
    """
    from torch._export import utils

    name = "_materialize_cpp_cia_ops"
    original = getattr(utils, name, None)
    if original is not None:
        setattr(utils, name, functools.cache(original))
    try:
        yield
    finally:
        if original is not None:
            setattr(utils, name, original)


class _OtherThreads(io.TextIOBase):
    """A stream that drops what this thread writes and passes on what others do."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write the text, unless this thread does; return its length."""
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def _first_cause(error: BaseException) -> BaseException:
    """Return the original error, which the exporter wraps in several others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
