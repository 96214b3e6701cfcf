"""A writer publishes in its own thread, holds a shard and a batch at most, and loses no row that it failed to write."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from featurecache.base.errors import CacheUnwritable, OutOfMemory
from featurecache.base.progress import Silent
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.digests import DigestTable
from featurecache.extract.job import writer as writers
from featurecache.extract.job.passes import Run
from featurecache.extract.job.plan import Group, Plan, Work
from featurecache.extract.job.request import FeatureRequest, Resolved
from featurecache.extract.job.settings import Settings
from featurecache.extract.job.summary import Seconds
from featurecache.extract.job.writer import Writer

D = 5


class ToyEngine:
    """What of an engine is recorded with a shard."""

    name, device, batch_size = "toy", "cpu", 4


class Said(Silent):
    """Keeps what it is given to say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def plan(tmp_path, spec) -> Plan:
    """A cache that misses the images 0 to 99."""
    return Plan(Resolved(spec, "toy.pth"), FeatureCache(tmp_path, spec), {digest(i) for i in range(100)}, 0)


@pytest.fixture(autouse=True)
def each_batch_is_a_shard(monkeypatch):
    monkeypatch.setattr(writers, "SHARD_SECONDS", -1.0)


def digest(i: int) -> bytes:
    return bytes([i]) * 32


def batch(*numbers: int) -> tuple[list[tuple[bytes, str]], np.ndarray]:
    """Keys of these images, and the vectors i, i, ..."""
    return [(digest(i), f"{i}.png") for i in numbers], np.array([[i] * D for i in numbers], dtype=np.float32)


def writer_of(plan: Plan) -> Writer:
    return Writer(plan, ToyEngine(), lambda: 0.5)


def published(plan: Plan) -> list[int]:
    """The images with a row, in the order of their numbers; each row is checked."""
    plan.cache.refresh()
    numbers = [i for i in range(100) if not plan.cache.missing(np.frombuffer(digest(i), "u1")[None])[0]]
    for i in numbers:
        assert (plan.cache.lookup(np.frombuffer(digest(i), "u1")[None]) == i).all()
    return numbers


def failing(monkeypatch, fails) -> list[int]:
    """`FeatureCache.add` that raises while `fails(number of the call)`; returns the rows of each call."""
    add, calls = FeatureCache.add, []

    def full(cache, rows, record):
        calls.append(len(rows.names))
        if fails(len(calls)):
            raise CacheUnwritable("no space left")
        add(cache, rows, record)

    monkeypatch.setattr(FeatureCache, "add", full)
    return calls


def test_a_writer_that_fails_keeps_no_other_from_publishing_and_hides_no_earlier_error(tmp_path, spec, monkeypatch):
    plans = [
        Plan(Resolved(replace(spec, layer=layer), "toy.pth"), FeatureCache(tmp_path, replace(spec, layer=layer)),
             {digest(i) for i in range(9)}, 0)
        for layer in ("a", "b", "c")
    ]  # fmt: skip
    add = FeatureCache.add

    def full(cache, rows, record):
        if cache.spec.layer != "c":
            raise CacheUnwritable(f"no space left for {cache.spec.layer}")
        add(cache, rows, record)

    monkeypatch.setattr(FeatureCache, "add", full)
    monkeypatch.setattr(writers, "SHARD_SECONDS", 1000.0)
    for error in (OutOfMemory("too large"), None):
        run = Run(Work([], [Group({FeatureRequest(layer=p.spec.layer): p for p in plans}, engine=ToyEngine())]),
                  DigestTable((), None), Settings(), said := Said(), Seconds())  # fmt: skip
        with pytest.raises((OutOfMemory, CacheUnwritable)) as raised, run._writers() as found:
            for each in found[run.groups[0]]:
                each.add(*batch(1, 2))
            if error is not None:
                raise error
        failed = ["no space left for a", "no space left for b"]
        shown = [] if error is None else [f"Not published: {text}" for text in failed]
        assert str(raised.value) == ("too large" if error is not None else failed[0])
        assert said.lines == (shown or [f"Not published: {failed[1]}"])
        assert published(plans[2]) == [1, 2]


def test_rows_are_published_and_counted(plan):
    with writer_of(plan) as writer:
        assert writer.add(*batch(1, 2, 3)) == []
        assert writer.add(*batch(200, 4)) == []  # of the 200 there is a row already
    assert published(plan) == [1, 2, 3, 4]
    assert writer.n_extracted == 4
    assert writer.seconds > 0
    assert [record["n"] for record in plan.cache.records()] == [3, 1]


def test_shards_are_written_in_a_thread_of_the_writer(plan, monkeypatch):
    names = []
    monkeypatch.setattr(FeatureCache, "add", lambda *_: names.append(threading.current_thread().name))
    with writer_of(plan) as writer:
        writer.add(*batch(1))
    assert len(names) == 1
    assert names[0].startswith("write")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("write")]


def test_the_job_goes_on_while_a_shard_is_written_and_waits_when_a_second_is_due(plan, monkeypatch):
    may_write, add = threading.Event(), FeatureCache.add

    def slow(cache, rows, record):
        assert may_write.wait(60)
        add(cache, rows, record)

    monkeypatch.setattr(FeatureCache, "add", slow)
    with writer_of(plan) as writer:
        writer.add(*batch(1))
        monkeypatch.setattr(writers, "SHARD_SECONDS", 1e9)
        writer.add(*batch(2))
        writer.add(*batch(3))
        monkeypatch.setattr(writers, "SHARD_SECONDS", -1.0)
        waiting = threading.Thread(target=writer.add, args=batch(4))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        may_write.set()
        waiting.join(60)
        assert not waiting.is_alive()
    assert [record["n"] for record in plan.cache.records()] == []  # as of the last look
    assert published(plan) == [1, 2, 3, 4]
    assert [record["n"] for record in plan.cache.records()] == [1, 3]


def test_no_more_than_a_shard_waits_to_be_published(plan, monkeypatch):
    may_write, add = threading.Event(), FeatureCache.add

    def slow(cache, rows, record):
        assert may_write.wait(60)
        add(cache, rows, record)

    monkeypatch.setattr(FeatureCache, "add", slow)
    monkeypatch.setattr(writers, "SHARD_BYTES", 4 * D * 4)
    with writer_of(plan) as writer:
        writer.add(*batch(1, 2))  # handed over, as every batch is here
        monkeypatch.setattr(writers, "SHARD_SECONDS", 1e9)
        writer.add(*batch(3, 4))
        waiting = threading.Thread(target=writer.add, args=batch(5))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        may_write.set()
        waiting.join(60)
        assert not waiting.is_alive()
    assert published(plan) == [1, 2, 3, 4, 5]
    assert [record["n"] for record in plan.cache.records()] == [2, 3]


def test_an_error_of_the_thread_reaches_the_job_and_the_rows_are_tried_once_more(plan, monkeypatch):
    calls = failing(monkeypatch, lambda number: number == 2)
    with pytest.raises(CacheUnwritable, match="no space left"), writer_of(plan) as writer:
        for i in range(10):
            writer.add(*batch(i))
    assert len(calls) == 3
    assert published(plan) == list(range(writer.n_extracted))
    assert calls[2] == writer.n_extracted - 1 >= 2


def test_a_disk_that_stays_full_ends_with_the_error_and_leaves_what_was_published(plan, monkeypatch):
    failing(monkeypatch, lambda number: number > 1)
    with pytest.raises(CacheUnwritable, match="no space left"), writer_of(plan) as writer:
        for i in range(10):
            writer.add(*batch(i))
    assert published(plan) == [0]
    assert writer.n_extracted == 1


def test_an_error_that_shows_at_the_end_only_is_raised_where_the_second_try_fails_too(plan, monkeypatch):
    calls = failing(monkeypatch, lambda _: True)
    with pytest.raises(CacheUnwritable, match="no space left"), writer_of(plan) as writer:
        writer.add(*batch(1, 2))
    assert calls == [2, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_whatever_ends_the_job_what_was_kept_is_published(plan, monkeypatch, error):
    monkeypatch.setattr(writers, "SHARD_SECONDS", 1e9)
    with pytest.raises(error), writer_of(plan) as writer:
        writer.add(*batch(1, 2))
        raise error
    assert published(plan) == [1, 2]


def test_an_interrupt_while_the_job_waits_for_the_thread_loses_nothing(plan, monkeypatch):
    def interrupted(_):
        monkeypatch.undo()
        monkeypatch.setattr(writers, "SHARD_SECONDS", 1e9)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), writer_of(plan) as writer:
        writer.add(*batch(1))
        monkeypatch.setattr(writers, "wait", interrupted)
        writer.add(*batch(2))
    assert published(plan) == [1, 2]


def test_vectors_that_are_not_finite_are_refused_by_reason(plan, spec):
    keys, vectors = batch(1, 2, 3)
    vectors[1, 3] = np.inf
    with writer_of(plan) as writer:
        assert writer.add(keys, vectors) == [(keys[1], "its features are not finite numbers")]
    assert published(plan) == [1, 3]
