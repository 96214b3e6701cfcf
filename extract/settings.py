"""How to run: what a user may choose without changing what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from extract.decode import MAX_PIXELS

OnError = Literal["skip", "fail"]


@dataclass(frozen=True)
class Settings:
    """How to run; nothing here changes a vector beyond 1e-4 relative, so nothing here is in the key."""

    engine: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    on_error: OnError = "skip"
    max_pixels: int = MAX_PIXELS
