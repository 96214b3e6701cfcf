"""Lists of judged and withdrawn rows: nothing that several processes add is lost, and a damaged list is ignored."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.base import files
from featurecache.base.errors import CacheError
from featurecache.extract.cache import judged, store
from featurecache.extract.cache.compact import compact_cache
from featurecache.extract.cache.inventory import describe_caches
from featurecache.extract.cache.judged import MOST_FILES, read_judged, read_withdrawn, remember_judged, withdraw
from featurecache.extract.cache.store import INDEX_FILE, FeatureCache
from featurecache.extract.cache.verify import repair_cache, verify_cache

NOW = 2


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture
def cache(tmp_path, spec, make_rows):
    """A cache of 6 rows by the first rules and 2 by the present ones, with an index."""
    found = FeatureCache(tmp_path, spec)
    found.add(make_rows(6), {})
    found.add(make_rows(2, seed=1), {"decode_revision": NOW})
    found.refresh()
    found.write_index()
    return found


@pytest.fixture
def digests(make_rows):
    return make_rows(6).digests


def opened(cache):
    return FeatureCache(cache.folder.parent, cache.spec)


def n_shown(cache) -> int:
    with h5py.File(cache.folder / INDEX_FILE) as file:
        return len(file["features"])


def digests_of(number: int) -> np.ndarray:
    return np.full((1, 32), number, np.uint8)


def lists(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.digests"))


def test_a_withdrawn_row_counts_nowhere(cache, digests):
    assert cache.withdraw(digests[:2], NOW) == ""
    cache.write_index()
    assert (len(opened(cache)), n_shown(cache), cache.n_withdrawn) == (6, 6, 2)
    verdict = verify_cache(cache.folder)
    assert (verdict.n_rows, verdict.n_duplicates, verdict.damaged, verdict.notes[:-1]) == (6, 0, (), ())
    (info,) = describe_caches(cache.folder.parent)
    assert (info.n_rows, info.n_duplicates) == (6, 0)
    done = compact_cache(cache.folder)
    assert (done.n_rows, done.n_duplicates) == (6, 0)
    assert (len(opened(cache)), n_shown(cache), opened(cache).n_withdrawn) == (6, 6, 0)
    assert verify_cache(cache.folder).damaged == ()


@pytest.mark.parametrize(
    ("owner", "step"),
    [(files, "publish"), (store, "withdraw"), (Path, "unlink"), (FeatureCache, "_write_virtual")],
    ids=lambda step: step if isinstance(step, str) else "",
)
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_the_next_command_renews_the_index_after_a_kill(cache, digests, monkeypatch, owner, step, is_before):
    original = getattr(owner, step)

    def deadly(*args, **kwargs):
        if not is_before:
            original(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(owner, step, deadly)
    with pytest.raises(Killed):
        cache.withdraw(digests[:2], NOW)
        cache.write_index()
    monkeypatch.undo()
    assert verify_cache(cache.folder).damaged == ()
    again = opened(cache)
    again.write_index()
    assert n_shown(again) == len(again)
    assert verify_cache(cache.folder).damaged == ()


def test_an_index_by_a_process_that_had_opened_the_cache_before_is_renewed(cache, digests):
    other, before = opened(cache), cache.served()
    cache.withdraw(digests[:2], NOW)
    other.write_index()
    assert n_shown(cache) == 6, "the process itself finds the new list"
    store.write_index_file(cache.folder / INDEX_FILE, cache.spec, before)
    assert n_shown(cache) == 8, "another version does not"
    assert verify_cache(cache.folder).damaged == ()
    opened(cache).write_index()
    assert n_shown(cache) == 6


def test_what_two_processes_withdraw_at_once_is_all_withdrawn(tmp_path, monkeypatch):
    publish = files.publish

    def after_another(*args):
        monkeypatch.setattr(files, "publish", publish)
        withdraw(tmp_path, NOW, digests_of(1))
        publish(*args)

    monkeypatch.setattr(files, "publish", after_another)
    withdraw(tmp_path, NOW, digests_of(2))
    found = [digests[0, 0] for _, digests in read_withdrawn(tmp_path)[1]]
    assert sorted(found) == [1, 2]


@pytest.mark.parametrize("kind", ["judged", "withdrawn"])
def test_many_lists_become_one_and_none_is_lost(tmp_path, kind):
    add = remember_judged if kind == "judged" else withdraw
    for number in range(3 * MOST_FILES):
        add(tmp_path, NOW, digests_of(number))
        assert len(lists(tmp_path)) <= MOST_FILES
    add(tmp_path, NOW + 1, digests_of(200))
    add(tmp_path, NOW, np.empty((0, 32), np.uint8))
    found = np.concatenate(
        [read_judged(tmp_path, NOW)]
        if kind == "judged"
        else [digests for revision, digests in read_withdrawn(tmp_path)[1] if revision == NOW]
    )
    assert sorted(found[:, 0].tolist()) == list(range(3 * MOST_FILES))


def test_a_list_that_is_merged_while_others_are_read_is_read_in_its_new_place(tmp_path, monkeypatch):
    for number in range(MOST_FILES):
        withdraw(tmp_path, NOW, digests_of(number))
    read = judged._read

    def after_merging(folder, name):
        monkeypatch.setattr(judged, "_read", read)
        withdraw(tmp_path, NOW, digests_of(99))
        return read(folder, name)

    monkeypatch.setattr(judged, "_read", after_merging)
    ((_, digests),) = read_withdrawn(tmp_path)[1]
    assert len(digests) == MOST_FILES + 1


@pytest.mark.parametrize("kind", ["judged", "withdrawn"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "numpy", "huge", "folder", "link"])
def test_a_damaged_list_is_ignored_named_and_set_aside(cache, digests, kind, damage):
    (remember_judged if kind == "judged" else withdraw)(cache.folder, NOW, digests[:2])
    (path,) = lists(cache.folder)
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "link":
        path.symlink_to("/dev/zero")
    else:
        header = b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118
        content = {"flipped": b"\0" + data[1:], "cut": data[:-1], "numpy": header, "empty": b"", "huge": data}
        path.write_bytes(content[damage])
    if damage == "huge":
        os.truncate(path, judged.MOST_BYTES + 32)
    assert len(opened(cache)) == 8
    assert len(read_judged(cache.folder, NOW)) == 0
    verdict = verify_cache(cache.folder)
    assert [each.path for each in verdict.damaged] == [path]
    repair_cache(verdict)
    assert verify_cache(cache.folder).damaged == ()


def test_a_list_that_cannot_be_read_is_an_error_and_stays(cache, digests, monkeypatch):
    cache.withdraw(digests[:2], NOW)
    (path,) = lists(cache.folder)

    def closed(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(CacheError, match=r"^The list of the rows that do not count in '.*' cannot be read: Permission"):
        opened(cache)
    withdraw(cache.folder, NOW, digests[2:3])
    monkeypatch.undo()
    assert path in lists(cache.folder)
    assert len(opened(cache)) == 5


def test_a_cache_that_cannot_be_written_says_why_its_rows_count(cache, digests, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "withdraw", full)
    assert cache.withdraw(digests[:2], NOW) == "No space left on device"
    assert len(cache) == 8
