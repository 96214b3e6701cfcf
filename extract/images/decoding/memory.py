"""A limit on the megapixels that are decoded at once, by all threads of the process together.

An image costs 3 to 9 bytes a pixel while it is decoded, and up to 3 until it is resized. So a few large ones are as
many as the memory takes, whatever the number of cores; small ones never wait.
"""

from __future__ import annotations

from threading import Condition

# Ten photographs of 12 megapixels; of the largest images, which have more than half of it, one at a time.
MOST_PIXELS_AT_ONCE = 128_000_000
# So small a share of all is not counted: the lock of a count would cost more than such an image.
SMALL_SHARE = 512


class Reservation:
    """The pixels that one thread has reserved; a context manager, which frees them."""

    def __init__(self, budget: PixelBudget) -> None:
        self._budget, self.n_pixels = budget, 0

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        if self.n_pixels:
            self._budget.give_back(self)

    def reserve(self, n_pixels: int) -> None:
        """Wait until `n_pixels` may be decoded. A second call in the same reservation does not wait."""
        if SMALL_SHARE * n_pixels > self._budget.n_pixels:
            self._budget.take(self, n_pixels)


class PixelBudget:
    """A number of pixels that threads share; an image that is larger than all of it is decoded alone."""

    def __init__(self, n_pixels: int = MOST_PIXELS_AT_ONCE) -> None:
        self.n_pixels, self._n_used = n_pixels, 0
        self._changed = Condition()

    def reservation(self) -> Reservation:
        """Return a reservation without pixels."""
        return Reservation(self)

    def give_back(self, reservation: Reservation) -> None:
        """Free the pixels of a reservation."""
        with self._changed:
            self._n_used -= reservation.n_pixels
            self._changed.notify_all()

    def take(self, reservation: Reservation, n_pixels: int) -> None:
        """Enlarge a reservation to `n_pixels`; an empty one waits for them."""
        with self._changed:
            if not reservation.n_pixels:
                self._changed.wait_for(lambda: not self._n_used or self._n_used + n_pixels <= self.n_pixels)
            more = max(0, n_pixels - reservation.n_pixels)
            reservation.n_pixels += more
            self._n_used += more


DECODING = PixelBudget()
