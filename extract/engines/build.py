"""Construction of the engine of a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

from featurecache.base.errors import EngineError
from featurecache.base.values import no_such, not_whole, refuse
from featurecache.extract.cache.spec import INT8, PRECISIONS
from featurecache.extract.engines.protocol import ENGINES, Engine, Source, no_device, no_precision

if TYPE_CHECKING:
    from featurecache.extract.cache.ranges import Ranges
    from featurecache.extract.engines.graph_store import GraphFolder


def build_engine(
    source: Source,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
    graphs: GraphFolder | None = None,
    ranges: Ranges | None = None,
    say: Callable[[str], None] | None = None,
) -> Engine:
    """Build the engine of a network: the requested one, or the fastest for the device.

    batch_size: images per batch; None for the default of the engine and device.
    graphs: storage of exported graphs; None to export again. ranges: of the
    activations in int8; None to measure them. say: called with a message before slow steps.
    Raises EngineError for an engine, device or precision that this machine does not have.
    """
    refuse(
        EngineError,
        no_such("engine", engine, ENGINES),
        no_device(device),
        no_such("precision", precision, PRECISIONS),
        not_whole("batch size", batch_size, 1, may_be_none=True),
    )
    chosen = check_engine(engine, device, precision)
    if precision == INT8:
        from featurecache.extract.engines.int8 import build_int8_engine, measure_ranges

        say = say or _silent
        ranges = ranges or measure_ranges(source, say)
        return build_int8_engine(source, ranges, batch_size=batch_size, graphs=graphs, say=say)
    from featurecache.extract.engines.choice import choose_cpu_engine

    if engine == "torch" or chosen != "cpu" or precision != "fp32":
        why = _why_torch(engine, device, chosen)
        return _torch_engine(
            source, chosen, precision=precision, batch_size=batch_size, why=why, is_asked=device != "auto", say=say
        )
    return choose_cpu_engine(source, engine=engine, batch_size=batch_size, graphs=graphs, say=say or _silent)


def check_engine(engine: str, device: str, precision: str) -> str:
    """Return the device, resolved. Raises EngineError where it, the engine and the precision do not go together."""
    from featurecache.extract.engines.devices import choose_device

    if precision == INT8:
        check_int8(engine, device)
        return "cpu"
    chosen = choose_device(device)
    if engine == "onnxruntime" and (chosen != "cpu" or precision != "fp32"):
        raise EngineError(
            f"The engine onnxruntime runs on the CPU in fp32 and int8, not on {chosen} in {precision}. "
            "Use --engine torch, or --device cpu with --precision fp32 or int8."
        )
    refuse(EngineError, no_precision(chosen, precision))
    return chosen


def check_int8(engine: str, device: str) -> None:
    """Raise EngineError for an engine or a device that does not run int8."""
    if engine == "torch":
        raise EngineError(
            "The engine torch does not run int8. Use --engine onnxruntime or auto, or --precision fp32, fp16 or bf16."
        )
    if device not in ("auto", "cpu"):
        raise EngineError(
            f"int8 runs on the CPU, not on {device}. Use --device cpu, or --precision fp16 or bf16 on {device}."
        )


def _torch_engine(
    source: Source,
    device: str,
    *,
    precision: str,
    batch_size: int | None,
    why: str,
    is_asked: bool,
    say: Callable[[str], None] | None,
) -> Engine:
    """Build the engine torch; on any other device than the CPU its vectors are compared with the CPU's."""
    from featurecache.extract.engines.device_check import checked_on_cpu
    from featurecache.extract.engines.several_gpus import on_all
    from featurecache.extract.engines.torch_engine import build_torch_engine, gpus_of

    def build(device: str, is_channels_last: bool) -> Engine:
        return build_torch_engine(
            source, device=device, precision=precision, batch_size=batch_size, why=why, channels_last=is_channels_last
        )

    @cache
    def reference() -> Engine:
        because = f"{device} gives other features here"
        return build_torch_engine(source, device="cpu", precision="fp32", batch_size=None, why=because)

    if device == "cpu":
        return build(device, True)
    may_fall_back = not is_asked and precision == "fp32"
    return on_all(
        checked_on_cpu(partial(build, each), reference, source, may_fall_back=may_fall_back, say=say or _silent)
        for each in gpus_of(device)
    )


def _why_torch(engine: str, device: str, chosen: str) -> str:
    if engine == "torch" or device != "auto":
        return "asked for"
    return "no GPU here" if chosen == "cpu" else "the fastest device here"


def _silent(_: str) -> None:
    pass
