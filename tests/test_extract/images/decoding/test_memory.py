"""No more pixels are decoded at once than the limit, and a larger image alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from featurecache.extract.images.decoding.memory import PixelBudget


def most_at_once(budget: PixelBudget, sizes: list[int]) -> int:
    lock, now, most = threading.Lock(), 0, 0
    everybody = threading.Semaphore(0)

    def decode(n_pixels: int) -> None:
        nonlocal now, most
        with budget.reservation() as reservation:
            reservation.reserve(n_pixels)
            with lock:
                now += n_pixels
                most = max(most, now)
            everybody.acquire(timeout=0.002)
            with lock:
                now -= n_pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, sizes))
    return most


def test_threads_share_the_limit():
    assert most_at_once(PixelBudget(100), [30] * 40) <= 100
    assert most_at_once(PixelBudget(100), [81] * 10) == 81


def test_an_image_above_the_limit_is_decoded_alone():
    assert most_at_once(PixelBudget(100), [10, 250, 10, 300, 10] * 3) == 300


def test_a_second_call_of_one_reservation_does_not_wait_for_itself():
    with PixelBudget(100).reservation() as reservation:
        reservation.reserve(80)
        reservation.reserve(90)
        assert reservation.n_pixels == 90
