"""What a request may cost, and what may wait."""

from __future__ import annotations

from dataclasses import dataclass

from featurecache.base.errors import UsageError

MB = 1_000_000
# Requests that are being received and answered may hold this many times the largest request in memory.
REQUESTS_IN_MEMORY = 4
# The largest values of `top` and `nearest` in a request.
MOST_TOP, MOST_NEAREST = 1_000_000, 24
# Responses for a busy service: a client that comes again earlier finds it busy.
LEAST_RETRY_SECONDS = 1


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    image_bytes: of one image file. request_bytes: of all files of a request. images: of a request. pixels: of one
    image. waiting: images that wait for an answer; more are refused with 429. seconds: from the first byte of a request
    to its answer.
    Raises UsageError where no request could be within them.
    """

    image_bytes: int = 20 * MB
    request_bytes: int = 64 * MB
    images: int = 64
    pixels: int = 50_000_000
    waiting: int = 256
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.image_bytes > self.request_bytes:
            raise UsageError(
                f"An image may have {self.image_bytes:,} bytes and a whole request only {self.request_bytes:,}: "
                "give --max-request-mb at least the value of --max-image-mb."
            )
        if self.images > self.waiting:
            raise UsageError(
                f"A request may have {self.images} images and only {self.waiting} may wait: give --queue at least the "
                "value of --max-images."
            )

    @property
    def bytes_in_memory(self) -> int:
        """The bytes that all requests together may hold."""
        return REQUESTS_IN_MEMORY * self.request_bytes
