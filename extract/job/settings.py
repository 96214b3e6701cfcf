"""Settings of an extraction that do not change the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featurecache.base.errors import RequestError
from featurecache.base.values import no_such, not_whole, refuse
from featurecache.extract.engines.protocol import ENGINES, no_device
from featurecache.extract.images.decode_rules import MAX_PIXELS

OnError = Literal["skip", "fail"]
ON_ERROR: tuple[OnError, ...] = get_args(OnError)


@dataclass(frozen=True)
class Settings:
    """Settings of a run. They change no vector by more than 1e-4 relative, so they are not part of the key.

    retry_refused: decode again what an earlier run with the same libraries and limit has refused.
    decode_processes: processes that decode the images, for a GPU that takes more than the threads of one can decode; 0
    for threads.
    refresh: ask the hub whether a branch of a backbone has another commit than the one that is kept.
    Raises RequestError for an invalid value; whether this machine has the device is found out when it is needed.
    """

    engine: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    on_error: OnError = "skip"
    max_pixels: int = MAX_PIXELS
    retry_refused: bool = False
    decode_processes: int = 0
    refresh: bool = False

    def __post_init__(self) -> None:
        refuse(
            RequestError,
            no_such("engine", self.engine, ENGINES),
            no_device(self.device),
            no_such("on_error", self.on_error, ON_ERROR),
            not_whole("setting max_pixels", self.max_pixels, 1),
            not_whole("setting batch_size", self.batch_size, 1, may_be_none=True),
            not_whole("setting decode_processes", self.decode_processes, 0),
            _no_processes(self.decode_processes),
        )


def _no_processes(wanted: object) -> str:
    """Return the sentence on decode processes that this system does not have; empty if none are wanted."""
    import multiprocessing

    if not wanted or "forkserver" in multiprocessing.get_all_start_methods():
        return ""
    return "This system has no decode processes, which are started by a fork server: leave out decode_processes."
