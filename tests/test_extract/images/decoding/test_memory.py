"""No more pixels are decoded at once than the limit, and a larger image alone."""

from __future__ import annotations

import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.images import decode
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.decoding.memory import DECODING, PixelBudget
from featurecache.extract.images.manifest import Sample
from featurecache.extract.job.decoding.batch import Batch
from featurecache.extract.job.decoding.decoder import Decoder

N_THREADS = 8


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


def header_of_a_png(side: int, number: int) -> bytes:
    """A PNG of side x side pixels, 16 bits a channel in colour, without the pixels; other bytes for each number."""
    header, text = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0), b"number\0%d" % number
    parts = (b"IHDR", header), (b"tEXt", text), (b"IDAT", b""), (b"IEND", b"")
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("side", "at_once"), [(9000, 1), (5000, 5), (2000, N_THREADS)])
def test_threads_that_decode_image_files_share_the_real_limit(tmp_path, monkeypatch, side, at_once):
    lock, now, most = threading.Lock(), 0, 0
    full, one_too_many = threading.Barrier(at_once), threading.Event()

    def counting(*_: object) -> None:
        """Wait, as a decoder would take its time, until as many threads are here as can be."""
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        one_too_many.wait(0.005)  # which would come in this time
        full.wait(timeout=20)
        with lock:
            now -= 1
        raise ImageRefused("counted")

    monkeypatch.setattr(decode, "_decoded", counting)
    group = SimpleNamespace(at_least=None, levels="full", geometry="any", view=None, misses=lambda digest: True)
    items = []
    for number in range(2 * N_THREADS if at_once in (1, N_THREADS) else 3 * at_once):
        data, path = header_of_a_png(side, number), tmp_path / f"{number}.png"
        path.write_bytes(data)
        items.append((image_digest(data), Sample(str(path), path.name)))
    with ThreadPoolExecutor(N_THREADS) as pool:
        decoded = list(pool.map(lambda item: Decoder([group], MAX_PIXELS).decode(item, Batch(1)), items))
    assert {each.refusal for each in decoded} == {"counted"}
    assert most == at_once
    assert DECODING._n_used == 0
