"""Shards are rewritten, and at every instant every row is served: to who opens now, and to who opened before."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from featurecache.base import files
from featurecache.base.errors import CacheDamaged, CacheError, CacheUnwritable
from featurecache.base.files import TEMPORARY_PREFIX
from featurecache.extract.cache import compact, opening, shards
from featurecache.extract.cache.compact import (
    compact_cache,
    merge_if_many,
    open_cache,
    plan_compaction,
    plan_pruning,
    prune_cache,
    rewrite,
)
from featurecache.extract.cache.listing import find_leftovers, merged_paths, shard_of_mark, shard_paths, sweep_leftovers
from featurecache.extract.cache.shards import ShardRows, read_names, read_record
from featurecache.extract.cache.store import INDEX_FILE, FeatureCache
from featurecache.extract.cache.verify import verify_cache

RECORD = {"engine": "torch", "device": "cpu", "batch_size": 4, "weights": "w", "created": "2026-01-01T00:00:00Z"}


@pytest.fixture
def filled(tmp_path, spec, make_rows):
    """A cache of six shards with an index, and all their rows."""
    return fill(tmp_path / "cache", spec, make_rows)


def fill(root, spec, make_rows, sizes=(4, 9, 6, 1, 12, 3)):
    cache = FeatureCache(root, spec)
    parts = [make_rows(n, seed=n, spec=spec) for n in sizes]
    for part in parts:
        cache.add(part, {**RECORD, "seconds": float(len(part.names))})
    cache.refresh()
    cache.write_index()
    return cache, joined(parts)


def joined(parts):
    names = [name for part in parts for name in part.names]
    return ShardRows(np.concatenate([p.features for p in parts]), np.concatenate([p.digests for p in parts]), names)


def opened(cache):
    return FeatureCache(cache.folder.parent, cache.spec)


def assert_all_served(cache, rows):
    """By our reader and, through the index, by plain h5py."""
    np.testing.assert_array_equal(opened(cache).lookup(rows.digests), rows.features)
    with h5py.File(cache.folder / INDEX_FILE) as file:
        shown = {bytes(d): bytes(v) for d, v in zip(file["digests"][:], file["features"][:], strict=True)}
    for digest, vector in zip(rows.digests, rows.features, strict=True):
        assert shown[bytes(digest)] == bytes(vector)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_small_shards_become_one_with_the_same_rows(tmp_path, spec, make_rows, dtype):
    cache, rows = fill(tmp_path, replace(spec, dtype=dtype), make_rows)
    done = compact_cache(cache.folder)
    assert (done.n_shards, done.n_shards_after, done.n_rows, done.n_duplicates) == (6, 1, 35, 0)
    (path,) = shard_paths(cache.folder)
    assert_all_served(cache, rows)
    assert read_names(path) == rows.names
    assert verify_cache(cache.folder).damaged == ()
    assert verify_cache(cache.folder).notes == ()


def test_what_was_written_down_is_kept_and_the_seconds_are_added(filled):
    cache, _ = filled
    cache.add(
        ShardRows(np.ones((1, 5), "f4"), np.ones((1, 32), "u1"), ["x"]), {**RECORD, "engine": "other", "seconds": 2.0}
    )
    compact_cache(cache.folder)
    record = read_record(shard_paths(cache.folder)[0])
    assert record["seconds"] == 37.0
    assert record["engine"] == "torch, other"
    assert {name: record[name] for name in ("device", "batch_size", "weights", "created")} == {
        name: RECORD[name] for name in ("device", "batch_size", "weights", "created")
    }


def test_shards_are_merged_up_to_a_size_and_large_ones_left_alone(filled, make_rows):
    cache, rows = filled
    more = make_rows(600, seed=600)
    cache.add(more, RECORD)
    large = shard_paths(cache.folder)[-1]
    compact_cache(cache.folder, shard_bytes=large.stat().st_size)
    assert len(shard_paths(cache.folder)) == 2
    assert large in shard_paths(cache.folder)
    assert_all_served(cache, joined([rows, more]))
    small = max(path.stat().st_size for path in shard_paths(cache.folder) if path != large)
    assert small < large.stat().st_size


@pytest.mark.parametrize(
    ("n_bytes", "size"), [(0, 128 << 20), (8 << 30, 128 << 20), (32 << 30, 512 << 20), (1 << 40, 1 << 30)]
)
def test_shards_grow_with_the_cache_so_that_their_number_does_not(filled, monkeypatch, n_bytes, size):
    cache, _ = filled
    seen = []
    monkeypatch.setattr(Path, "stat", lambda path: os.stat_result([0] * 6 + [n_bytes // 6, *[0] * 3]))
    monkeypatch.setattr(compact, "_plan", lambda cache, found, chosen, size, **options: seen.append(size))
    monkeypatch.setattr(shards, "has_seals", lambda path: True)
    plan_compaction(cache)
    assert seen == [pytest.approx(size, abs=1)]


@pytest.mark.parametrize("command", ["extract", "compact"])
def test_a_cache_of_more_shards_than_files_may_be_open_reads_whole_after_one_command(
    tmp_path, spec, make_rows, monkeypatch, command
):
    cache, parts = FeatureCache(tmp_path, spec), [make_rows(2, seed=n, spec=spec) for n in range(60)]
    monkeypatch.setattr(files, "flush", lambda path: None)
    monkeypatch.setattr(compact, "MOST_SHARDS", 20)
    for part in parts:
        cache.add(part, RECORD)
    cache.refresh()
    said: list[str] = []
    with few_open_files(len(os.listdir("/dev/fd")) + 40):
        if command == "extract":
            merge_if_many(cache, said.append)
            assert said == [f"merging 60 shards of '{cache.folder.name}' into 1"]
        else:
            compact_cache(cache.folder)
        assert len(shard_paths(cache.folder)) == 1
        assert_all_served(cache, joined(parts))
        assert verify_cache(cache.folder).damaged == ()


@contextlib.contextmanager
def few_open_files(n):
    """This process may open n files in all, while the context is active."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_few_shards_are_not_merged_at_the_end_of_a_run(filled):
    cache, rows = filled
    merge_if_many(cache, lambda text: pytest.fail(text))
    assert len(shard_paths(cache.folder)) == 6
    assert_all_served(cache, rows)


def test_large_shards_are_not_rewritten_for_every_small_one(filled, make_rows, monkeypatch):
    cache, rows = filled
    monkeypatch.setattr(compact, "MOST_SHARDS", 1)
    size = min(path.stat().st_size for path in shard_paths(cache.folder))
    monkeypatch.setattr(compact, "COMPACTED_BYTES", size)
    merge_if_many(cache, lambda text: pytest.fail(text))
    assert len(shard_paths(cache.folder)) == 6
    assert_all_served(cache, rows)


def test_shards_that_cannot_be_merged_do_not_fail_the_run(filled, monkeypatch):
    cache, rows = filled
    monkeypatch.setattr(compact, "MOST_SHARDS", 1)
    said: list[str] = []
    monkeypatch.setattr(compact.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 20, 1 << 20, 1000))
    merge_if_many(cache, said.append)
    assert "merging them needs" in said[0]
    monkeypatch.undo()
    monkeypatch.setattr(compact, "MOST_SHARDS", 1)
    path = shard_paths(cache.folder)[2]
    with h5py.File(path, "r+") as file:
        file["features"][5, 4] += 1
    merge_if_many(cache, said.append)
    assert "were not merged; no row is lost. The shard " in said[2]
    assert len(shard_paths(cache.folder)) == 6
    keep = np.r_[0:13, 19:35]
    np.testing.assert_array_equal(opened(cache).lookup(rows.digests[keep]), rows.features[keep])


def test_an_index_that_is_open_elsewhere_does_not_fail_the_run_where_it_cannot_be_replaced(
    filled, make_rows, monkeypatch
):
    cache, _ = filled
    cache.add(make_rows(2, seed=50), RECORD)
    cache.refresh()

    def refuse(temporary, path):
        raise PermissionError(13, "open elsewhere")

    monkeypatch.setattr(files, "publish", refuse)
    said: list[str] = []
    with pytest.raises(CacheUnwritable, match="cannot be written"):
        merge_if_many(cache, said.append)
    monkeypatch.setattr(files, "REPLACES_OPEN_FILES", False)
    merge_if_many(cache, said.append)
    assert "It may be open in another program; the next extract renews it, and no row is lost." in said[0]


def test_a_merged_shard_that_cannot_be_removed_keeps_its_mark(filled, monkeypatch):
    """As on Windows while a program has it open: without the mark its rows would count again."""
    cache, rows = filled
    compact_cache(cache.folder)
    marks, unlink = merged_paths(cache.folder), Path.unlink

    def refuse(path, **options):
        if path == shard_of_mark(marks[0]):
            raise PermissionError(13, "open elsewhere")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    compact_cache(cache.folder)
    assert merged_paths(cache.folder) == [marks[0]]
    prune_cache(cache.folder, rows.digests[::2])
    assert opened(cache).missing(rows.digests).tolist() == [i % 2 == 1 for i in range(35)]
    monkeypatch.undo()
    compact_cache(cache.folder)
    assert merged_paths(cache.folder) == []


def test_compacting_again_changes_nothing(filled):
    cache, _ = filled
    compact_cache(cache.folder)
    compact_cache(cache.folder)  # which removes the shards of before
    before = {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*")}
    assert compact_cache(cache.folder).groups == ()
    assert {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*")} == before


def test_second_copies_go_and_the_served_one_stays(filled):
    cache, rows = filled
    again = ShardRows(rows.features[:20] + 1, rows.digests[:20], rows.names[:20])
    cache.add(again, RECORD)
    done = compact_cache(cache.folder)
    assert done.n_duplicates == 20
    assert verify_cache(cache.folder).n_duplicates == 0
    assert_all_served(cache, rows)


def test_a_shard_that_holds_a_row_twice_or_one_of_anothers_is_rewritten_however_large(filled):
    """Never dropped because another shard has the row: somebody else may just be removing that one."""
    cache, rows = filled
    cache.add(ShardRows(rows.features[4:13], rows.digests[4:13], rows.names[4:13]), RECORD)
    before = shard_paths(cache.folder)
    compact_cache(cache.folder, shard_bytes=1)
    after = shard_paths(cache.folder)
    assert before[1] not in after
    assert before[-1] not in after
    assert set(before) - {before[1], before[-1]} <= set(after)
    assert after[-1].name > before[-1].name
    assert_all_served(cache, rows)


def test_new_shards_sort_behind_those_of_a_clock_that_is_ahead(filled, monkeypatch):
    cache, rows = filled
    before = shard_paths(cache.folder)
    monkeypatch.setattr(shards.time, "time_ns", lambda: 1_600_000_000_000_000_000)
    compact_cache(cache.folder)
    assert shard_paths(cache.folder)[0].name > before[-1].name
    assert_all_served(cache, rows)


def test_damage_is_never_copied_into_a_new_shard(filled):
    cache, rows = filled
    path = shard_paths(cache.folder)[2]
    with h5py.File(path, "r+") as file:
        file["features"][5, 4] += 1
    before = shard_paths(cache.folder)
    with pytest.raises(CacheDamaged, match=path.name):
        compact_cache(cache.folder)
    assert shard_paths(cache.folder) == before
    keep = np.r_[0:13, 19:35]
    np.testing.assert_array_equal(opened(cache).lookup(rows.digests[keep]), rows.features[keep])


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path, filled):
    cache, _ = filled
    (tmp_path / "toy-0123456789ab").mkdir()
    with pytest.raises(CacheError, match=r"has no spec\.json"):
        compact_cache(tmp_path / "toy-0123456789ab")
    moved = cache.folder.rename(tmp_path / "toy-ba9876543210")
    with pytest.raises(CacheError, match="holds the features of toy-"):
        compact_cache(moved)
    assert len(shard_paths(moved)) == 6


# Killed at any step


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


STEPS = [
    (shards, "_write_file"),
    (files, "publish"),
    (FeatureCache, "_write_virtual"),
    (FeatureCache, "refresh"),
    (compact, "_merge"),
    (Path, "unlink"),
]


class Deadly:
    """A step that counts its calls, and kills at one of them: before the step is done, or after.

    instant: 0 before the first call, 1 after it, 2 before the second, ...; None kills never.
    """

    def __init__(self, step, instant=None):
        self.step, self.instant, self.n_calls = step, instant, 0

    def __get__(self, owner, _):
        return self if owner is None else functools.partial(self, owner)

    def __call__(self, *args, **kwargs):
        at, self.n_calls = self.n_calls, self.n_calls + 1
        if self.instant == 2 * at:
            raise Killed
        result = self.step(*args, **kwargs)
        if self.instant == 2 * at + 1:
            raise Killed
        return result


def contents(folder):
    """What is in each file of a cache, by its name without what is drawn at random; of an index what it refers to."""
    places = {name: str(place) for place, name in enumerate(sorted(path.stem for path in folder.glob("shards/*.h5")))}
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == INDEX_FILE:
            with h5py.File(path) as file:
                found[name] = [(places.get(shard, shard), n) for shard, n in json.loads(file.attrs["shards"]).items()]
        elif path.is_file():
            name = "temporary" if path.name.startswith(TEMPORARY_PREFIX) else name
            found[name.replace(path.stem, places.get(path.stem, path.stem))] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Where the first test fills a cache, and all that kills have left of it, by whether rows were to be dropped."""
    return tmp_path_factory.mktemp("killed") / "before", {False: [], True: []}


@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[step for _, step in STEPS])
@pytest.mark.parametrize("is_pruning", [False, True], ids=["compact", "prune"])
def test_a_kill_before_or_after_any_step_loses_no_row(
    tmp_path, spec, make_rows, monkeypatch, killed, owner, step, is_pruning
):
    """The step is counted once, and then the work is killed before and after each of its calls.

    A kill that leaves the same files as an earlier one, of whatever step, is not followed up twice: after a call, and
    before the next.
    """
    original, sizes = getattr(owner, step), (4, 6, 1, 5)
    monkeypatch.setattr(opening, "SETTLED_NS", 0)  # each file is checked once: nothing writes into one that is there
    before, seen = killed[0], killed[1][is_pruning]
    if not before.exists():
        fill(before, spec, make_rows, sizes=sizes)
    cache = FeatureCache(Path(shutil.copytree(before, tmp_path / "whole")), spec)
    rows = joined([make_rows(n, seed=n, spec=spec) for n in sizes])
    wanted = ShardRows(rows.features[::2], rows.digests[::2], rows.names[::2]) if is_pruning else rows

    def work(cache):
        # So small that there are several new shards, and an instant between them.
        found = open_cache(cache.folder)
        if is_pruning:
            return rewrite(found, plan_pruning(found, wanted.digests, shard_bytes=3_000))
        return rewrite(found, plan_compaction(found, shard_bytes=6_000))

    def work_with(deadly, cache):
        with monkeypatch.context() as patched:
            patched.setattr(owner, step, deadly)
            return work(cache)

    counted = Deadly(original)
    assert len(work_with(counted, cache)) > 1
    assert_all_served(cache, wanted)
    assert verify_cache(cache.folder).damaged == ()
    assert counted.n_calls > 0
    for instant in range(2 * counted.n_calls):
        copied = shutil.copytree(before, tmp_path / str(instant))
        cache = SimpleNamespace(folder=copied / cache.folder.name, spec=spec)  # not opened: `work` does that
        with pytest.raises(Killed):
            work_with(Deadly(original, instant), cache)
        if (left := contents(cache.folder)) in seen:
            continue
        seen.append(left)
        assert_all_served(cache, wanted)
        assert verify_cache(cache.folder).damaged == ()
        work(cache)
        assert_all_served(cache, wanted)
        compact_cache(cache.folder)
        assert verify_cache(cache.folder).n_duplicates == 0
        assert_all_served(cache, wanted)


# Others at the same time


def test_a_reader_that_opened_before_is_served_after(filled):
    cache, rows = filled
    reader = opened(cache)
    compact_cache(cache.folder)
    np.testing.assert_array_equal(reader.lookup(rows.digests), rows.features)
    compact_cache(cache.folder)
    np.testing.assert_array_equal(reader.lookup(rows.digests), rows.features)
    assert len(reader.records()) == 1


def in_another_process(call, *arguments):
    """Run `extract.cache.compact.<call>` on a folder elsewhere: HDF5 lets one process open a file in one way only."""
    code = (
        f"import sys; from pathlib import Path; from featurecache.extract.cache.compact import {call}\n"
        f"{call}(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)


def test_who_opened_the_index_before_reads_on_with_any_hdf5_tool_until_the_next_time(filled):
    cache, rows = filled
    with h5py.File(cache.folder / INDEX_FILE) as before:
        in_another_process("compact_cache", cache.folder)
        assert len(shard_paths(cache.folder)) == 1
        shown = dict(zip(map(bytes, before["digests"][:]), before["features"][:], strict=True))
        for digest, vector in zip(rows.digests, rows.features, strict=True):
            np.testing.assert_array_equal(shown[bytes(digest)], vector)
    assert len(merged_paths(cache.folder)) == 6
    assert_all_served(cache, rows)
    compact_cache(cache.folder)
    assert [path.suffix for path in (cache.folder / "shards").iterdir()] == [".h5"]
    assert_all_served(cache, rows)


def test_merged_shards_are_swept_a_day_later(filled):
    cache, rows = filled
    compact_cache(cache.folder)
    marks = merged_paths(cache.folder)
    os.utime(marks[0], (time.time() - 23 * 3600,) * 2)
    os.utime(marks[1], (time.time() - 25 * 3600,) * 2)
    assert sweep_leftovers(cache.folder.parent) == [shard_of_mark(marks[1])]
    assert merged_paths(cache.folder) == [marks[0], *marks[2:]]
    assert_all_served(cache, rows)


def test_what_is_pruned_is_removed_at_once(filled):
    cache, rows = filled
    before = set(shard_paths(cache.folder))
    prune_cache(cache.folder, rows.digests[::2])
    assert not any(path.exists() for path in before - set(shard_paths(cache.folder)))
    assert merged_paths(cache.folder) == []


def test_a_shard_without_seals_is_sealed_also_where_nothing_else_is_to_do(tmp_path, spec, make_rows):
    cache, rows = FeatureCache(tmp_path, spec), make_rows(40)
    cache.add(rows, RECORD)
    (old,) = shard_paths(cache.folder)
    with h5py.File(old, "r+") as file:
        del file["seals"]
        file.attrs["format"] = 1
    assert compact_cache(cache.folder, shard_bytes=1).n_shards_after == 1
    (new,) = shard_paths(cache.folder)
    assert new != old
    with h5py.File(new) as file:
        assert file.attrs["format"] == 2
    assert verify_cache(cache.folder).notes == ()
    assert_all_served(cache, rows)
    assert compact_cache(cache.folder, shard_bytes=1).groups == ()


def test_rows_that_are_not_numbers_are_never_sealed(tmp_path, spec, make_rows):
    cache, rows = FeatureCache(tmp_path, spec), make_rows(4)
    rows.features[2, 1] = np.nan
    cache.add(rows, RECORD)
    cache.add(make_rows(4, seed=1), RECORD)
    with pytest.raises(CacheDamaged, match="holds NaN or infinite values"):
        compact_cache(cache.folder)
    assert len(shard_paths(cache.folder)) == 2


def test_an_index_made_from_an_old_list_is_corrected_by_who_wrote_it(filled, monkeypatch):
    """An extractor lists the shards, compact replaces them all, and then the extractor writes its index."""
    cache, rows = filled
    cache.add(ShardRows(np.ones((1, 5), "f4"), np.ones((1, 32), "u1"), ["x"]), RECORD)
    extractor = opened(cache)
    original = FeatureCache._write_virtual

    def late(self, path):
        monkeypatch.undo()
        original(self, path)
        compact_cache(cache.folder)

    monkeypatch.setattr(FeatureCache, "_write_virtual", late)
    extractor.write_index()
    assert_all_served(cache, rows)
    assert verify_cache(cache.folder).notes == ()


def test_a_reader_that_polls_meanwhile_never_misses_a_row(filled, make_rows):
    cache, rows = filled
    old, wrong, n_reads, stop = opened(cache), [], 0, threading.Event()

    def poll():
        nonlocal n_reads
        while not stop.is_set():
            try:
                for reader in (old, opened(cache)):
                    if not np.array_equal(reader.lookup(rows.digests), rows.features):
                        wrong.append("another vector")
            except Exception as error:  # noqa: BLE001 (whatever it is, it is a failure)
                wrong.append(error)
            n_reads += 1

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for number in range(15):
            cache.add(make_rows(2, seed=100 + number), RECORD)
            compact_cache(cache.folder)
    finally:
        stop.set()
        reader.join()
    assert wrong == []
    assert n_reads > 0
    assert len(opened(cache)) == 35 + 30


def test_extractors_and_compactors_at_once_lose_nothing(tmp_path, spec):
    code = (
        "import sys; sys.path[:0] = sys.argv[3:5]\n"
        "import numpy as np; from conftest import TOY_SPEC\n"
        "from featurecache.extract.cache.store import FeatureCache\n"
        "from featurecache.extract.cache.compact import compact_cache\n"
        "from featurecache.extract.cache.shards import ShardRows\n"
        "cache = FeatureCache(sys.argv[1], TOY_SPEC); who = int(sys.argv[2])\n"
        "for i in range(6):\n"
        "    if who < 2:\n"
        "        r = np.random.default_rng([who, i])\n"
        "        features, digests = r.normal(size=(3, 5)).astype('f4'), r.integers(0, 256, (3, 32), dtype='u1')\n"
        "        cache.add(ShardRows(features, digests, ['a', 'b', 'c']), {'seconds': 1.0, 'created': ''})\n"
        "        cache.refresh(); cache.write_index(); assert not cache.missing(digests).any()\n"
        "        assert (cache.lookup(digests) == features).all()\n"
        "    elif (cache.folder / 'spec.json').exists():\n"
        "        compact_cache(cache.folder)\n"
    )
    here = Path(__file__).parents[1]
    paths = [str(here), str(here.parents[1])]
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(who), *paths], stderr=subprocess.PIPE) for who in range(4)]
    for process in processes:
        assert process.communicate()[1].decode() == ""
        assert process.returncode == 0
    cache = FeatureCache(tmp_path, spec)
    compact_cache(cache.folder)
    drawn = []
    for who in range(2):
        for i in range(6):
            chance = np.random.default_rng([who, i])
            features, digests = chance.normal(size=(3, 5)).astype("f4"), chance.integers(0, 256, (3, 32), dtype="u1")
            drawn.append(ShardRows(features, digests, ["a", "b", "c"]))
    assert_all_served(cache, joined(drawn))
    assert len(shard_paths(cache.folder)) == 1
    assert verify_cache(cache.folder).damaged == ()


# Pruning


def test_pruning_keeps_the_rows_of_the_images_and_drops_the_others(filled, make_rows):
    cache, rows = filled
    wanted = np.arange(35) % 3 == 0
    strangers = make_rows(5, seed=77).digests
    done = prune_cache(cache.folder, np.concatenate([rows.digests[wanted], strangers]))
    assert (done.n_rows, done.n_unused) == (12, 23)
    again = opened(cache)
    assert again.missing(rows.digests).tolist() == (~wanted).tolist()
    assert_all_served(cache, ShardRows(rows.features[wanted], rows.digests[wanted], []))
    assert verify_cache(cache.folder).damaged == ()


def test_pruning_leaves_shards_alone_in_which_every_row_is_used(filled):
    cache, rows = filled
    before = shard_paths(cache.folder)
    prune_cache(cache.folder, rows.digests[1:])
    after = shard_paths(cache.folder)
    assert before[1:] == after[:-1]
    assert before[0] not in after


def test_pruning_what_is_all_used_changes_nothing(filled):
    cache, rows = filled
    before = {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*")}
    assert prune_cache(cache.folder, rows.digests).n_unused == 0
    assert {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*")} == before


def test_pruning_everything_leaves_an_empty_cache_that_can_be_filled(filled):
    cache, rows = filled
    prune_cache(cache.folder, np.empty((0, 32), dtype=np.uint8))
    assert shard_paths(cache.folder) == []
    assert opened(cache).missing(rows.digests).all()
    assert not (cache.folder / INDEX_FILE).exists()
    assert verify_cache(cache.folder).damaged == ()
    cache.add(rows, RECORD)
    cache.refresh()
    cache.write_index()
    assert_all_served(cache, rows)


# Left-over files


def test_only_temporary_files_that_nobody_wrote_to_for_an_hour_are_swept(filled):
    cache, rows = filled
    root = cache.folder.parent
    places = [root, cache.folder, cache.folder / "shards"]
    for folder in places:
        for name, age in (("old", 3700), ("new", 3500)):
            path = folder / f"{TEMPORARY_PREFIX}{name}.h5"
            path.write_bytes(b"half")
            os.utime(path, (time.time() - age,) * 2)
    assert len(find_leftovers(root)) == 6
    assert sweep_leftovers(root) == sorted(folder / f"{TEMPORARY_PREFIX}old.h5" for folder in places)
    assert find_leftovers(root) == sorted(folder / f"{TEMPORARY_PREFIX}new.h5" for folder in places)
    assert_all_served(cache, rows)


def test_a_live_file_is_not_swept_where_the_clocks_of_machine_and_file_server_differ(tmp_path, monkeypatch):
    live = tmp_path / f"{TEMPORARY_PREFIX}live.h5"
    live.write_bytes(b"half")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert sweep_leftovers(tmp_path) == []
    assert find_leftovers(tmp_path) == [live]


def test_a_root_that_is_not_there_has_no_left_over_files(tmp_path):
    assert sweep_leftovers(tmp_path / "nowhere") == []
