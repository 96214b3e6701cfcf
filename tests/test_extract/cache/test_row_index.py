"""The row index makes opening a large cache fast, and is never believed more than the shards."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from featurecache.base.errors import CacheError
from featurecache.extract.cache import opening, row_index, shards, snapshot
from featurecache.extract.cache.compact import compact_cache, prune_cache
from featurecache.extract.cache.names import NameTable, as_names, distinct_names
from featurecache.extract.cache.row_index import ROW_INDEX_FILE, FolderState, RowFacts, RowIndex, write_row_index
from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.cache.verify import repair_cache, verify_cache

BLOCK_ROWS = 4
SETTLED_NS = opening.SETTLED_NS


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Also the smallest cache has an index, of several blocks, from the moment it was filled."""
    monkeypatch.setattr(snapshot, "LEAST_INDEXED_ROWS", 1)
    monkeypatch.setattr(row_index, "BLOCK_ROWS", BLOCK_ROWS)
    monkeypatch.setattr(row_index, "BLOCK_BYTES", BLOCK_ROWS * row_index.RECORD.itemsize)
    monkeypatch.setattr(row_index, "N_BLOCKS_AT_ONCE", 2)


@pytest.fixture
def reads(monkeypatch):
    """The shards whose digests are read."""
    paths, read_rows = [], shards.read_rows
    monkeypatch.setattr(shards, "read_rows", lambda path, spec: paths.append(path) or read_rows(path, spec))
    return paths


@pytest.fixture
def filled(tmp_path, spec, make_rows):
    """A cache of three shards with its index, and all their rows."""
    cache = FeatureCache(tmp_path, spec)
    parts = [make_rows(n, seed=n) for n in (9, 1, 12)]
    for part in parts:
        cache.add(part, {})
    cache.refresh()
    cache.write_index()
    return cache, joined(parts)


def joined(parts) -> ShardRows:
    names = [name for part in parts for name in part.names]
    return ShardRows(np.concatenate([p.features for p in parts]), np.concatenate([p.digests for p in parts]), names)


def opened(cache, *, from_shards=False) -> FeatureCache:
    return FeatureCache(cache.folder.parent, cache.spec, from_shards=from_shards)


def check_serves(cache, rows) -> None:
    """A cache opened now has these rows and no others."""
    found = opened(cache)
    assert len(found) == len(rows.digests)
    assert not found.missing(rows.digests).any()
    np.testing.assert_array_equal(found.lookup(rows.digests), rows.features)
    assert found.missing(rows.digests ^ 1).all()


def test_a_small_settled_shard_is_read_once_by_a_process_and_again_when_it_changed(filled, reads, monkeypatch):
    cache, rows = filled
    monkeypatch.setattr(snapshot, "LEAST_INDEXED_ROWS", 1000)
    monkeypatch.setattr(snapshot, "_READ_BEFORE", {})
    monkeypatch.setattr(opening, "SETTLED_NS", SETTLED_NS)
    (cache.folder / ROW_INDEX_FILE).unlink()
    check_serves(cache, rows)
    check_serves(cache, rows)
    assert len(reads) == 6, "they have just been written, and may change within the clock's resolution"
    monkeypatch.setattr(opening, "SETTLED_NS", -SETTLED_NS)
    check_serves(cache, rows)
    reads.clear()
    check_serves(cache, rows)
    assert reads == []
    opened(cache, from_shards=True)
    assert len(reads) == 3
    path = reads[0]
    data = bytearray(path.read_bytes())
    at = data.index(bytes(rows.digests[0]))
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheError):
        opened(cache)


def test_a_cache_is_opened_without_reading_a_shard(filled, reads):
    cache, rows = filled
    check_serves(cache, rows)
    assert reads == []
    of_shards = opened(cache, from_shards=True)
    assert len(reads) == 3
    for mine, others in zip(opened(cache).served(), of_shards.served(), strict=True):
        assert (mine.path, mine.n, mine.is_alone, mine.revision) == (
            others.path, others.n, others.is_alone, others.revision,
        )  # fmt: skip
        np.testing.assert_array_equal(mine.rows, others.rows)
        np.testing.assert_array_equal(mine.digests, others.digests)
    np.testing.assert_array_equal(opened(cache).stored_order(rows.digests), of_shards.stored_order(rows.digests))
    assert opened(cache).revisions(np.concatenate([rows.digests, rows.digests ^ 1])).tolist() == [1] * 22 + [0] * 22


@pytest.mark.parametrize("n", [0, 1, 4, 5, 37])
@pytest.mark.parametrize("n_shared", [0, 8, 31])
def test_every_digest_is_found_also_where_many_begin_alike(tmp_path, spec, n, n_shared):
    rng = np.random.default_rng(n)
    digests = rng.integers(0, 256, (2 * n, 32), dtype=np.uint8)
    digests[:, :n_shared] = 1
    names = distinct_names(as_names(digests))[0]
    half = names[rng.permutation(len(names))[: len(names) // 2]]
    half.sort()
    shard, row = rng.integers(0, 3, len(half)), rng.integers(0, 9, len(half))
    table = NameTable(half, shard, row)
    write_row_index(tmp_path, spec, FolderState((), ()), RowFacts((9,) * 3, (1,) * 3, (True,) * 3, 0, ""), table)
    index = RowIndex(tmp_path / ROW_INDEX_FILE)
    asked = names[rng.permutation(len(names))]
    for found, wanted in zip(index.find(asked), table.find(asked), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert index.table().is_same(table)


def test_a_cache_without_an_index_gets_one_when_nobody_fills_it_any_more(filled, monkeypatch, reads):
    cache, rows = filled
    path = cache.folder / ROW_INDEX_FILE
    path.unlink()
    check_serves(cache, rows)
    assert not path.exists()
    monkeypatch.setattr(snapshot, "BUSY_NS", -(10**18))
    opened(cache)
    assert path.exists()
    reads.clear()
    check_serves(cache, rows)
    assert reads == []


def test_a_small_cache_has_none(filled, monkeypatch, make_rows):
    cache, _ = filled
    monkeypatch.setattr(snapshot, "LEAST_INDEXED_ROWS", 100)
    cache.add(make_rows(1, seed=99), {})
    cache.refresh()
    cache.write_index()
    assert not (cache.folder / ROW_INDEX_FILE).exists()


def cut(path, cache):
    path.write_bytes(path.read_bytes()[:-1])


def make_empty(path, cache):
    path.write_bytes(b"")


def claim_too_much(path, cache):
    path.write_bytes(row_index.HEAD.pack(row_index.MAGIC, 2**63, 2**63) + bytes(100))


def pretend_to_be_of_a_huge_cache(path, cache):
    """A file of 50 MB on paper, without any content."""
    n, head = 10**6, row_index.HEAD.size
    n_blocks = -(-n // BLOCK_ROWS)
    path.write_bytes(row_index.HEAD.pack(row_index.MAGIC, 0, n))
    os.truncate(path, head + n_blocks * row_index.TABLE_BYTES + row_index.SUM_BYTES + n * row_index.RECORD.itemsize)


def link_outside(path, cache):
    path.rename(cache.folder.parent / "elsewhere")
    path.symlink_to(cache.folder.parent / "elsewhere")


def make_a_folder(path, cache):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, make_empty, claim_too_much, link_outside, make_a_folder])
def test_an_index_that_is_not_whole_is_not_used(filled, damage, reads):
    cache, rows = filled
    damage(cache.folder / ROW_INDEX_FILE, cache)
    check_serves(cache, rows)
    assert len(reads) == 3


def test_of_an_index_that_is_larger_than_its_cache_only_the_head_is_read(filled, monkeypatch):
    cache, rows = filled
    pretend_to_be_of_a_huge_cache(cache.folder / ROW_INDEX_FILE, cache)
    read, pread = [], row_index._pread
    monkeypatch.setattr(row_index, "_pread", lambda file, n, at: read.append(n) or pread(file, n, at))
    check_serves(cache, rows)
    assert max(read) == row_index.HEAD.size


def test_every_flipped_byte_is_noticed_or_harmless_and_replaced_once_it_is_read(filled):
    cache, rows = filled
    path = cache.folder / ROW_INDEX_FILE
    whole = path.read_bytes()
    for at in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        assert [damage.path for damage in verify_cache(cache.folder).damaged] == [path], at
        check_serves(cache, rows)
        if at >= len(whole) - 22 * row_index.RECORD.itemsize:  # in a block
            assert path.read_bytes() == whole, at
    path.write_bytes(whole[:-1] + b"~")
    repair_cache(verify_cache(cache.folder))
    assert path.read_bytes() == whole
    assert not verify_cache(cache.folder).damaged


def test_an_index_from_before_the_last_shard_is_not_used(filled, make_rows, reads):
    cache, rows = filled
    more = make_rows(3, seed=99)
    cache.add(more, {})  # and killed before the index
    check_serves(cache, joined([rows, more]))
    assert len(reads) == 4
    cache.refresh()
    cache.write_index()
    reads.clear()
    check_serves(cache, joined([rows, more]))
    assert reads == []


def test_the_index_of_another_cache_is_not_used(filled, tmp_path, spec, make_rows, reads):
    cache, _ = filled
    other, theirs = FeatureCache(tmp_path, replace(spec, layer="other")), make_rows(22, seed=5)
    other.add(theirs, {})
    other.refresh()
    other.write_index()
    shutil.copy2(cache.folder / ROW_INDEX_FILE, other.folder / ROW_INDEX_FILE)
    reads.clear()
    check_serves(other, theirs)
    assert len(reads) == 1
    assert not verify_cache(other.folder).damaged


def test_shards_replaced_by_others_of_the_same_name_make_it_old(filled, make_rows, spec, reads):
    cache, rows = filled
    part = cache.served()[0]
    theirs = replace(make_rows(part.n, seed=77), names=rows.names[: part.n])
    other = shards.write_shard(cache.folder / "shards", theirs, spec, {})
    status = part.path.stat()
    os.replace(other, part.path)
    os.utime(part.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert part.path.stat().st_size == status.st_size
    found = opened(cache)
    assert len(reads) == 3
    assert not found.missing(theirs.digests).any()
    assert found.missing(part.digests).all()


def forged(cache, table) -> None:
    """Write an index of the present state with other rows."""
    now = opened(cache, from_shards=True)._snapshot
    write_row_index(cache.folder, cache.spec, now.state, now.facts, table(now.rows))


@pytest.mark.parametrize(
    "table",
    [
        lambda rows: NameTable(rows.names, rows.shard_of[::-1], rows.row_of),
        lambda rows: NameTable(rows.names, rows.shard_of, np.zeros_like(rows.row_of)),
        lambda rows: NameTable(rows.names, rows.shard_of + 5, rows.row_of),
        lambda rows: NameTable(rows.names, rows.shard_of, rows.row_of + 100),
    ],
)
def test_rows_at_another_place_than_it_says_are_read_from_the_shards_and_the_index_is_replaced(filled, table):
    cache, rows = filled
    whole = (cache.folder / ROW_INDEX_FILE).read_bytes()
    forged(cache, table)
    assert [each.path.name for each in verify_cache(cache.folder).damaged] == [ROW_INDEX_FILE]
    check_serves(cache, rows)
    assert (cache.folder / ROW_INDEX_FILE).read_bytes() == whole


def test_rows_that_no_shard_has_are_an_error_and_never_numbers(filled):
    cache, rows = filled
    strange = rows.digests ^ 1
    names = as_names(strange)[np.argsort(as_names(strange))]
    forged(cache, lambda found: NameTable(names, found.shard_of, found.row_of))
    reader = opened(cache)
    assert not reader.missing(strange).any()
    with pytest.raises(CacheError, match="were removed from"):
        reader.lookup(strange)
    assert reader.missing(strange).all()
    check_serves(cache, rows)


@pytest.mark.parametrize("is_pruning", [False, True])
def test_rows_that_the_index_leaves_out_are_not_lost_by_a_rewrite(filled, is_pruning):
    cache, rows = filled
    forged(cache, lambda found: NameTable(found.names[:3], found.shard_of[:3], found.row_of[:3]))
    if is_pruning:
        prune_cache(cache.folder, rows.digests[1:])
        check_serves(cache, ShardRows(rows.features[1:], rows.digests[1:], rows.names[1:]))
    else:
        compact_cache(cache.folder)
        check_serves(cache, rows)
    assert not verify_cache(cache.folder).damaged


def test_a_reader_that_opened_before_reads_on_after_a_compaction_and_another_index(filled, make_rows):
    cache, rows = filled
    reader = opened(cache)
    compact_cache(cache.folder)
    compact_cache(cache.folder)  # removes the old shards
    more = make_rows(4, seed=50)
    cache.add(more, {})
    cache.refresh()
    cache.write_index()
    np.testing.assert_array_equal(reader.lookup(rows.digests), rows.features)
    check_serves(cache, joined([rows, more]))


def test_withdrawn_rows_do_not_come_back(filled, reads):
    cache, rows = filled
    assert cache.withdraw(rows.digests[:4], 2) == ""
    kept = ShardRows(rows.features[4:], rows.digests[4:], rows.names[4:])
    check_serves(cache, kept)
    cache.write_index()
    reads.clear()
    check_serves(cache, kept)
    assert reads == []
    assert opened(cache).n_withdrawn == 4
    next(cache.folder.glob("withdrawn-*")).write_bytes(b"damaged, so that it does not count")
    check_serves(cache, rows)


def test_two_writers_leave_an_index_of_all_shards(filled, make_rows, reads):
    cache, rows = filled
    first, second = opened(cache), opened(cache)
    parts = [make_rows(5, seed=60), make_rows(6, seed=61)]
    first.add(parts[0], {})
    first.refresh()
    second.add(parts[1], {})
    second.refresh()
    second.write_index()
    first.write_index()
    reads.clear()
    check_serves(cache, joined([rows, *parts]))
    assert reads == []


def test_a_folder_that_may_only_be_read_is_no_error(open_folder, closed_to_us, spec, make_rows, monkeypatch):
    rows = make_rows(9)
    cache = FeatureCache(open_folder / "cache", spec)
    cache.add(rows, {})
    monkeypatch.setattr(snapshot, "BUSY_NS", -(10**18))
    cache.folder.chmod(0o555)
    with closed_to_us():
        check_serves(cache, rows)
    assert not (cache.folder / ROW_INDEX_FILE).exists()
    cache.folder.chmod(0o755)


def test_nothing_is_read_again_where_nothing_has_changed(filled, monkeypatch):
    cache, _ = filled
    monkeypatch.setattr(opening, "SETTLED_NS", -(10**18))
    before = cache._snapshot
    cache.refresh()
    assert cache._snapshot is before
    os.utime(before.paths[0])
    cache.refresh()
    assert cache._snapshot is not before
