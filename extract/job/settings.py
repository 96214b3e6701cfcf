"""Settings of an extraction that do not change the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featurecache.base.errors import RequestError
from featurecache.extract.images.decode_rules import MAX_PIXELS

OnError = Literal["skip", "fail"]
ON_ERROR: tuple[OnError, ...] = get_args(OnError)


@dataclass(frozen=True)
class Settings:
    """Settings of a run. They change no vector by more than 1e-4 relative, so they are not part of the key.

    retry_refused: decode again what an earlier run with the same libraries and limit has refused.
    Raises RequestError for an invalid value; engine and device are checked when the engine is built.
    """

    engine: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    on_error: OnError = "skip"
    max_pixels: int = MAX_PIXELS
    retry_refused: bool = False

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise RequestError(f"There is no on_error {self.on_error!r}: choose from {', '.join(ON_ERROR)}.")
        if not self.max_pixels >= 1:
            raise RequestError(f"The setting max_pixels is {self.max_pixels!r} and has to be 1 or more.")
