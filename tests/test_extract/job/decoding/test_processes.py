"""Processes decode to the pixels and refusals of threads; one that is ended is replaced, and nothing is lost."""

from __future__ import annotations

import logging
import multiprocessing.heap
import multiprocessing.process
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch  # noqa: F401 (with which images are resized together)

from featurecache.base.errors import EngineFailed, ImageRefused, RequestError
from featurecache.base.progress import LOGGER
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.manifest import Sample
from featurecache.extract.images.read_ahead import ReadFile
from featurecache.extract.images.sources import read_hashed
from featurecache.extract.job import compute
from featurecache.extract.job.decoding import processes
from featurecache.extract.job.decoding.batch import Batch
from featurecache.extract.job.decoding.decoder import Decoded, Decoder, Item
from featurecache.extract.job.decoding.processes import DecodeProcesses
from featurecache.extract.job.settings import Settings

MAX_PIXELS = 400
SIZE = 32
WHOLE, SMALL = TransformSpec(20, 16, "bicubic", True, (), ()), TransformSpec(12, 12, "bilinear", True, (), ())

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="processes are started by a fork server"
)


class Claims:
    """Claims that take each content once, none of the suspects, and refuse one."""

    def __init__(self) -> None:
        self.suspects: set[bytes] = set()
        self.taken: set[bytes] = set()
        self.refused = b""

    def lacking(self, digests: list[bytes]) -> list[list]:
        return [[] for _ in digests]

    def take(self, digest: bytes, path: str, lacking: object = None) -> bool:
        if digest == self.refused:
            raise ImageRefused("it is refused")
        is_new = digest not in self.taken and digest not in self.suspects
        self.taken.add(digest)
        return is_new

    @contextmanager
    def noting(self) -> Iterator[object]:
        yield lambda digest: None


class Toy(SimpleNamespace):
    """A group with the properties that decoding asks for."""

    __hash__ = object.__hash__


class Few:
    """The digests that the second group misses."""

    digests: frozenset[bytes] = frozenset()


@pytest.fixture(scope="module")
def groups() -> list[Toy]:
    found = [Toy(at_least=None, levels="full", geometry=spec, view=None) for spec in (WHOLE, SMALL)]
    found[0].misses, found[1].misses = lambda digest: True, lambda digest: digest in Few.digests
    return found


@pytest.fixture(scope="module")
def running(groups) -> Iterator[DecodeProcesses]:
    before = multiprocessing.active_children()
    made = DecodeProcesses(groups, n=1, size=SIZE, n_batches=2, max_pixels=MAX_PIXELS, slow_s=1.0, claims=Claims())
    with made:
        yield made
    assert not {*multiprocessing.active_children()} - {*before}
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"pym-{os.getpid()}")]


@pytest.fixture
def pool(running, items) -> DecodeProcesses:
    running._claims, running._n_ended, Few.digests = Claims(), 0, frozenset(digest for digest, _ in items[::2])
    return running


def decoded_by(pool: DecodeProcesses, items: list[Item], groups: list) -> tuple[list[Decoded], dict]:
    with pool.batch(len(items)) as batch:
        found = pool.decode(None, items, batch, start=0, check=lambda: None)
        return found, pixels(found, batch, groups)


def decoded_here(items: list[Item], groups: list, claims: Claims | None = None) -> tuple[list[Decoded], dict]:
    batch, files = Batch(len(items)), [ReadFile(read_hashed(sample.path), None, 0.0) for _, sample in items]
    found = Decoder(groups, MAX_PIXELS, claims).decode_part(items, files, batch)
    return found, pixels(found, batch, groups)


def pixels(decoded: list[Decoded], batch: Batch, groups: list) -> dict[tuple[str, int], bytes]:
    return {
        (item.name, groups.index(of)): batch.rows(kind)[row].tobytes()
        for row, item in enumerate(decoded)
        for of, kind in item.images
    }


def restart(pool: DecodeProcesses) -> None:
    """Start a process after the last one could not be replaced."""
    while not pool._desks.empty():
        desk = pool._desks.get()  # None is for whoever else waits for a desk
        assert desk is None or not desk.process.process.is_alive()
    pool._error = ""
    pool._start()


def facts(decoded: list[Decoded]) -> list[tuple]:
    return [
        (e.digest, e.name, e.refusal, e.is_lasting and e.refusal is not None, e.is_skipped, e.file and e.file[:2])
        for e in decoded
    ]


def test_processes_give_the_pixels_and_refusals_of_threads(pool, items, groups):
    (there, found), (here, expected) = decoded_by(pool, items, groups), decoded_here(items, groups)
    assert facts(there) == facts(here)
    assert found == expected
    assert len(found) == len(items) - 5 + len([i for i in range(0, len(items), 2) if here[i].refusal is None])


def test_contents_of_unknown_files_are_claimed_as_by_threads(pool, items, groups):
    """Of two files with one content one is computed; a refused claim and a file that is not there are refusals."""
    nowhere = Sample(items[0][1].path + " is not there", "nowhere")
    unknown = [(None, sample) for _, sample in [*items[:12], items[0]]] + [(None, nowhere), (bytes(32), items[13][1])]
    claims = Claims()
    pool._claims.refused = claims.refused = items[2][0]
    (there, found), (here, expected) = decoded_by(pool, unknown, groups), decoded_here(unknown[:13], groups, claims)
    assert facts(there[:13]) == facts(here)
    assert found.items() >= expected.items()
    assert (there[13].refusal, there[13].file) == ("cannot be read: No such file or directory", (nowhere.path, None, 0))
    assert there[14].digest == items[13][0]
    assert pool._claims.taken == {digest for digest, _ in [*items[:12], items[13]]} - {claims.refused}


def test_a_process_that_is_killed_is_replaced_in_one_sentence(pool, items, groups, caplog):
    (process,) = pool._processes
    os.kill(process.process.pid, signal.SIGKILL)
    process.process.join()
    with caplog.at_level(logging.WARNING, LOGGER):
        _, found = decoded_by(pool, items, groups)
    assert found == decoded_here(items, groups)[1]
    assert [each.message for each in caplog.records] == [
        "A decode process was ended by SIGKILL: another takes its place and decodes its images again."
    ]
    assert pool._processes != [process]


@pytest.mark.parametrize("is_known", [True, False])
def test_the_image_that_ends_a_process_is_left_for_last_and_all_others_are_decoded(
    pool, items, groups, caplog, monkeypatch, is_known
):
    ask, at = processes._Desk.ask, 3

    def ends(desk, order):
        if any(path == items[at][1].path for _, path in order.files):
            desk.process._note[:] = items[at][0]
            desk.process.process.kill()
        return ask(desk, order)

    monkeypatch.setattr(processes._Desk, "ask", ends)
    asked = items if is_known else [(None, sample) for _, sample in items]
    with caplog.at_level(logging.WARNING, LOGGER):
        there, found = decoded_by(pool, asked, groups)
    assert [each.message for each in caplog.records] == [
        "A decode process was ended by SIGKILL while it decoded '3': another takes its place, and this image is tried "
        "by itself at the end."
    ]
    assert [each.name for each in there if each.is_skipped] == ["3"]
    assert there[at].digest == items[at][0]
    assert pool._claims.suspects == {items[at][0]}
    expected = {place: image for place, image in decoded_here(items, groups)[1].items() if place[0] != "3"}
    assert found == expected


def test_processes_that_are_ended_again_and_again_end_the_run(pool, items, groups, monkeypatch):
    def ends(desk, order):
        desk.is_ready = True
        desk.process.process.kill()
        raise EOFError

    monkeypatch.setattr(processes, "MOST_ENDED", 1)
    monkeypatch.setattr(processes._Desk, "ask", ends)
    with pytest.raises(EngineFailed, match="2 decode processes were ended one after another, the last by SIGKILL, as"):
        decoded_by(pool, items, groups)
    monkeypatch.undo()
    restart(pool)


def test_ends_with_decoded_parts_in_between_are_replaced_as_often_as_they_come(pool, items, groups, monkeypatch):
    monkeypatch.setattr(processes, "MOST_ENDED", 1)
    for _ in range(2):
        pool._processes[0].process.kill()
        assert len(decoded_by(pool, items[:4], groups)[0]) == 4


def test_a_changed_file_that_ends_a_process_is_found_by_what_is_in_it(pool, items):
    (process,) = pool._processes
    stale = [(bytes(32), sample) for _, sample in items[:3]]
    process._note[:] = items[1][0]
    process.desks[0].items = stale
    process.find_culprit()
    process._note[:], process.desks[0].items = bytes(32), ()
    assert process.culprit is stale[1]
    process.culprit = None


def test_a_process_in_whose_place_no_other_can_start_ends_the_run(pool, items, groups, monkeypatch):
    def gone(*_: object) -> None:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", gone)
    pool._processes[0].process.kill()
    reason = r"cannot start \(their fork server was ended\): ask for fewer decode_processes, or leave them out"
    with ThreadPoolExecutor(2) as threads, pool.batch(8) as batch:
        parts = [(items[:4], 0), (items[4:8], 4)]
        asked = [threads.submit(pool.decode, None, part, batch, start=at, check=lambda: None) for part, at in parts]
        try:
            assert [type(each.exception(30)) for each in asked] == [EngineFailed] * 2
        finally:
            pool._desks.put(None)
    with pytest.raises(EngineFailed, match=reason):
        decoded_by(pool, items, groups)
    monkeypatch.undo()
    restart(pool)


@pytest.mark.parametrize(
    ("owner", "name", "error", "reason"),
    [
        (multiprocessing.process.BaseProcess, "start", OSError(24, "Too many open files"), "Too many open files"),
        (multiprocessing.process.BaseProcess, "start", AssertionError("no children of a daemon"), "no children of"),
        (multiprocessing.heap.Arena, "__init__", OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_hinders_the_start_is_one_sentence(groups, monkeypatch, owner, name, error, reason):
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(owner, name, fails)
    sentence = rf"^The decode processes cannot start \({reason}.*\): ask for fewer"
    with (
        pytest.raises(EngineFailed, match=sentence),
        DecodeProcesses(groups, n=1, size=10_000, n_batches=4, max_pixels=MAX_PIXELS, slow_s=1.0),
    ):
        pass


def test_what_the_check_raises_ends_the_decoding(pool, items, groups):
    pool._processes[0].process.kill()

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pool.batch(len(items)) as batch:
        pool.decode(None, items, batch, start=0, check=stop)
    assert len(decoded_by(pool, items, groups)[0]) == len(items)


class Engine:
    """A toy behind a GPU: the mean of every image."""

    name, precision, reason, device, n_lanes, batch_size = "toy", "fp32", "a toy", "cuda", 2, 4

    def run(self, batch: np.ndarray) -> np.ndarray:
        return batch.mean((1, 2, 3), dtype=np.float64)[:, None].astype(np.float32)


def test_a_run_has_the_vectors_of_threads_and_leaves_no_process(items, groups, monkeypatch):
    monkeypatch.setattr(compute, "FEW_IMAGES", 10)
    group = Toy(**vars(groups[0]), started=Engine(), plans={})
    before = multiprocessing.active_children()

    def vectors(n: int) -> dict[str, float]:
        computed = compute.compute_vectors(items, [group], max_pixels=MAX_PIXELS, decode_processes=n)
        passed = [each for chunk in computed for each in chunk.vectors]
        return {name: row[0] for each in passed for (_, name), row in zip(each.keys, each.vectors, strict=True)}

    found = vectors(1)
    assert len(found) == len(items) - 5
    assert found == vectors(0)
    stopped = compute.compute_vectors(items, [group], max_pixels=MAX_PIXELS, decode_processes=1)
    next(stopped)
    stopped.close()
    assert not {*multiprocessing.active_children()} - {*before}


@pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
def test_the_number_of_processes_is_a_whole_number(value):
    with pytest.raises(RequestError, match="setting decode_processes"):
        Settings(decode_processes=value)


def test_a_system_without_them_says_so(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(RequestError, match="This system has no decode processes, which are started by a fork server"):
        Settings(decode_processes=2)


def test_a_process_that_does_not_begin_names_the_usual_reason(groups, items, monkeypatch):
    monkeypatch.setattr(processes, "work", Path)  # which cannot be called with these values
    made = DecodeProcesses(groups, n=1, size=SIZE, n_batches=1, max_pixels=MAX_PIXELS, slow_s=1.0)
    reason = r"cannot start \(exit status 1\).*below 'if __name__ == \"__main__\":'"
    with made, pytest.raises(EngineFailed, match=reason):
        decoded_by(made, items, groups)
