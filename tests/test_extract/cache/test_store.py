"""A cache gives every image its own vector, whoever wrote it, or says what is missing or damaged."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurecache.base.errors import CacheDamaged, CacheError, CacheUnwritable
from featurecache.base.files import TEMPORARY_PREFIX
from featurecache.extract.cache import shards
from featurecache.extract.cache.names import are_among, as_names, distinct_names
from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.cache.store import INDEX_FILE, SPEC_FILE, FeatureCache, read_spec


@pytest.fixture
def filled(tmp_path, spec, make_rows):
    """A cache of three shards, and all their rows."""
    cache = FeatureCache(tmp_path, spec)
    parts = [make_rows(n, seed=n) for n in (4, 1, 7)]
    for part in parts:
        cache.add(part, {"engine": "torch", "seconds": 0.5})
    cache.refresh()
    return cache, joined(parts)


def joined(parts):
    names = [name for part in parts for name in part.names]
    return ShardRows(np.concatenate([p.features for p in parts]), np.concatenate([p.digests for p in parts]), names)


def as_dictionary(digests, features):
    return {bytes(digest): bytes(vector) for digest, vector in zip(digests, features, strict=True)}


def test_a_new_cache_holds_nothing_and_writes_nothing(tmp_path, spec, make_rows):
    cache = FeatureCache(tmp_path, spec)
    assert len(cache) == 0
    assert cache.missing(make_rows(3).digests).tolist() == [True] * 3
    assert cache.records() == []
    assert list(tmp_path.iterdir()) == []


def test_rows_are_seen_after_looking_again(tmp_path, spec, make_rows):
    reader, writer, rows = FeatureCache(tmp_path, spec), FeatureCache(tmp_path, spec), make_rows(3)
    writer.add(rows, {})
    assert reader.missing(rows.digests).all()
    reader.refresh()
    assert not reader.missing(rows.digests).any()
    assert len(reader) == 3


@pytest.mark.parametrize("n_shared", [0, 8, 31])
def test_sorted_names_are_those_of_numpy_also_where_they_begin_alike(n_shared):
    some = np.random.default_rng(0).integers(0, 256, (20, 32), dtype=np.uint8)
    some[:, :n_shared] = 1
    for n in (0, 1, 200):
        names = as_names(some[np.random.default_rng(n).integers(0, 20, n)])
        expected = np.unique(names, return_index=True, return_counts=True)
        for found, wanted in zip(distinct_names(names), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(are_among(as_names(some), names), np.isin(as_names(some), names))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_was_added_is_looked_up_bit_for_bit(tmp_path, spec, make_rows, dtype):
    spec = replace(spec, dtype=dtype)
    rows = make_rows(50, spec=spec)
    FeatureCache(tmp_path, spec).add(rows, {})
    found = FeatureCache(tmp_path, spec).lookup(rows.digests)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows.features.astype(np.float32))


@given(order=st.lists(st.integers(0, 11), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_any_order_with_repeats_gets_row_i_for_digest_i(filled, order):
    cache, rows = filled
    np.testing.assert_array_equal(cache.lookup(rows.digests[order]), rows.features[order])


def test_the_stored_order_is_that_of_the_shards_and_their_rows(filled):
    cache, rows = filled
    shuffled = np.random.default_rng(0).permutation(len(rows.digests))
    order = shuffled[cache.stored_order(rows.digests[shuffled])]
    stored = [digest for part in cache.served() for digest in part.digests.tolist()]
    assert rows.digests[order].tolist() == stored


def test_missing_tells_every_stranger_from_every_row(filled, make_rows):
    cache, rows = filled
    strangers = make_rows(12, seed=99).digests
    near = rows.digests.copy()
    near[:, -1] ^= 1
    mixed = np.concatenate([rows.digests, strangers, near])
    assert cache.missing(mixed).tolist() == [False] * 12 + [True] * 24


def test_digests_that_hold_zeros_are_told_apart(tmp_path, spec, make_rows):
    rows = make_rows(6)
    rows.digests[:] = 0
    rows.digests[np.arange(6), [0, 1, 15, 30, 31, 31]] = [1, 1, 1, 1, 1, 2]
    cache = FeatureCache(tmp_path, spec)
    cache.add(rows, {})
    cache.refresh()
    assert len(cache) == 6
    np.testing.assert_array_equal(cache.lookup(rows.digests), rows.features)
    assert cache.missing(np.zeros((1, 32), dtype=np.uint8)).all()


def test_looking_up_what_is_not_there_says_how_many(filled, make_rows):
    cache, rows = filled
    asked = np.concatenate([rows.digests[:2], make_rows(3, seed=99).digests])
    with pytest.raises(CacheError, match="3 of 5 images have no features in"):
        cache.lookup(asked)


def test_no_digests_are_an_empty_table(filled):
    cache, _ = filled
    assert cache.lookup(np.empty((0, 32), dtype=np.uint8)).shape == (0, 5)


def test_a_digest_written_twice_counts_once_and_is_always_the_same_row(tmp_path, spec, make_rows):
    cache, first = FeatureCache(tmp_path, spec), make_rows(5, seed=1)
    again = ShardRows(first.features + 1, first.digests[::-1].copy(), first.names)
    cache.add(first, {})
    cache.add(again, {})
    cache.refresh()
    assert len(cache) == 5
    served = [FeatureCache(tmp_path, spec).lookup(first.digests) for _ in range(3)]
    np.testing.assert_array_equal(served[0], served[1])
    np.testing.assert_array_equal(served[0], served[2])
    by_name = sorted((cache.folder / "shards").iterdir())[0]
    with h5py.File(by_name) as file:
        oldest = as_dictionary(file["digests"][:], file["features"][:])
    assert as_dictionary(first.digests, served[0]) == oldest
    with h5py.File(cache.write_index()) as file:
        assert as_dictionary(file["digests"][:], file["features"][:]) == oldest


def test_the_records_are_those_of_the_shards_oldest_first(filled):
    cache, _ = filled
    records = cache.records()
    assert sorted(record["n"] for record in records) == [1, 4, 7]
    assert all(record["seconds"] == 0.5 for record in records)


# The index


def test_the_index_shows_every_row_to_plain_h5py_from_any_folder(filled, tmp_path, monkeypatch):
    cache, rows = filled
    path = cache.write_index()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in (path, os.path.relpath(path)):
        with h5py.File(name) as file:
            assert file["features"].shape == (12, 5)
            assert file["digests"].shape == (12, 32)
            assert as_dictionary(file["digests"][:], file["features"][:]) == as_dictionary(rows.digests, rows.features)
            names = dict(zip(map(bytes, file["digests"][:]), (n.decode() for n in file["paths"][:]), strict=True))
    assert names == dict(zip(map(bytes, rows.digests), rows.names, strict=True))


def test_the_index_reads_from_another_folder_than_where_it_was_made(filled, tmp_path):
    cache, rows = filled
    cache.write_index()
    moved = cache.folder.rename(tmp_path / "moved")
    with h5py.File(moved / INDEX_FILE) as file:
        assert as_dictionary(file["digests"][:], file["features"][:]) == as_dictionary(rows.digests, rows.features)


def test_the_index_is_left_alone_while_it_is_true_and_rebuilt_when_it_is_not(filled, make_rows):
    cache, _ = filled
    path = cache.write_index()
    before = path.stat()
    assert cache.write_index().stat() == before
    cache.add(make_rows(2, seed=50), {})
    cache.refresh()
    with h5py.File(cache.write_index()) as file:
        assert len(file["features"]) == 14
    sorted((cache.folder / "shards").iterdir())[0].unlink()
    cache.refresh()
    with h5py.File(cache.write_index()) as file:
        assert len(file["features"]) == len(cache) < 14
        assert not np.isnan(file["features"][:]).any()


@pytest.mark.parametrize("bytes_of", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 200])
def test_a_damaged_index_is_rebuilt(filled, bytes_of):
    cache, _ = filled
    path = cache.write_index()
    path.write_bytes(bytes_of)
    with h5py.File(cache.write_index()) as file:
        assert len(file["features"]) == 12


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_full_disk_leaves_the_old_index(tmp_path, filled, limit):
    """A limit on the size of files stands in for the full disk."""
    cache, _ = filled
    cache.write_index()
    code = (
        "import resource, sys; sys.path[:0] = sys.argv[2:4]\n"
        "from conftest import TOY_SPEC; from featurecache.extract.cache.store import FeatureCache; import h5py\n"
        "from featurecache.base.errors import CacheUnwritable\n"
        "cache = FeatureCache(sys.argv[1], TOY_SPEC)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        "try: cache.write_index()\n"
        "except CacheUnwritable as error: print(error)\n"
    )
    sorted((cache.folder / "shards").iterdir())[0].unlink()
    here = Path(__file__).parents[1]
    command = [sys.executable, "-c", code, str(tmp_path), str(here), str(here.parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot be written" in done.stdout
    assert sorted(p.name for p in cache.folder.iterdir()) == [INDEX_FILE, "shards", SPEC_FILE]
    with h5py.File(cache.folder / INDEX_FILE) as file:
        assert len(file["features"]) == 12


def test_a_shard_that_is_gone_is_nan_in_the_index_and_missing_for_us(filled, spec, tmp_path):
    cache, rows = filled
    path = cache.write_index()
    gone = next(p for p in (cache.folder / "shards").iterdir() if shards.read_record(p)["n"] == 4)
    gone.unlink()
    with h5py.File(path) as file:
        assert np.isnan(file["features"][:]).all(axis=1).sum() == 4
        assert np.isnan(file["features"][:]).any(axis=1).sum() == 4
    again = FeatureCache(tmp_path, spec)
    assert again.missing(rows.digests).tolist() == [True] * 4 + [False] * 8
    np.testing.assert_array_equal(again.lookup(rows.digests[4:]), rows.features[4:])


def test_a_shard_that_goes_while_we_look_is_damage_and_never_nan(filled):
    cache, rows = filled
    for path in (cache.folder / "shards").iterdir():
        path.unlink()
    with pytest.raises(CacheDamaged):
        cache.lookup(rows.digests)


def test_the_index_is_complete_for_interleaved_duplicates(tmp_path, spec, make_rows):
    cache, rows = FeatureCache(tmp_path, spec), make_rows(20)
    cache.add(ShardRows(rows.features[::2], rows.digests[::2], rows.names[::2]), {})
    cache.add(rows, {})
    cache.refresh()
    with h5py.File(cache.write_index()) as file:
        assert as_dictionary(file["digests"][:], file["features"][:]) == as_dictionary(rows.digests, rows.features)


# What else lies in the folder


def test_leftovers_of_a_killed_run_are_not_read(filled, tmp_path, spec):
    cache, _ = filled
    folder = cache.folder / "shards"
    (folder / f"{TEMPORARY_PREFIX}0190.h5").write_bytes(b"half a shard")
    (folder / ".nfs0001").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    assert len(FeatureCache(tmp_path, spec)) == 12


def test_the_spec_is_written_beside_the_shards(filled, spec):
    cache, _ = filled
    assert json.loads((cache.folder / SPEC_FILE).read_text()) == spec.to_dict()
    assert read_spec(cache.folder) == spec
    assert sorted(p.name for p in cache.folder.iterdir()) == ["shards", SPEC_FILE]


def test_a_folder_of_another_spec_is_refused_by_the_fields_that_differ(filled, tmp_path, spec):
    cache, _ = filled
    other = replace(spec, pooling="max", transform=replace(spec.transform, crop=4))
    (cache.folder / SPEC_FILE).write_text(other.to_json())
    with pytest.raises(CacheError, match=r"was made with another pooling, transform\.crop\. Move the folder away"):
        FeatureCache(tmp_path, spec)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"backbone": 1}', "\udcff"])
def test_a_damaged_spec_is_said_in_a_sentence_and_written_again_when_it_is_gone(filled, tmp_path, spec, text):
    cache, _ = filled
    path = cache.folder / SPEC_FILE
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CacheDamaged, match=r"is no feature spec .*Delete that one file: extract writes it again"):
        FeatureCache(tmp_path, spec)
    path.unlink()
    assert len(FeatureCache(tmp_path, spec)) == 12


def test_a_shard_of_another_cache_is_not_served(filled, tmp_path, spec, make_rows):
    cache, _ = filled
    other = FeatureCache(tmp_path, replace(spec, pooling="max"))
    other.add(make_rows(3), {})
    (stranger,) = (other.folder / "shards").iterdir()
    stranger.rename(cache.folder / "shards" / stranger.name)
    with pytest.raises(CacheDamaged, match="another spec"):
        FeatureCache(tmp_path, spec)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_cut_off_shard_is_said_by_its_name(filled, tmp_path, spec, keep):
    cache, _ = filled
    path = sorted((cache.folder / "shards").iterdir())[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CacheDamaged, match=path.name):
        FeatureCache(tmp_path, spec)


def test_a_flipped_bit_among_the_features_is_never_served(filled, tmp_path, spec):
    cache, rows = filled
    path = next(p for p in (cache.folder / "shards").iterdir() if shards.read_record(p)["n"] == 7)
    with h5py.File(path) as file:
        chunk = file["features"].id.get_chunk_info(0)
    data, chance = path.read_bytes(), random.Random(0)
    for _ in range(100):
        flipped = bytearray(data)
        flipped[chunk.byte_offset + chance.randrange(chunk.size)] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(CacheDamaged, match=path.name):
            FeatureCache(tmp_path, spec).lookup(rows.digests)
    np.testing.assert_array_equal(FeatureCache(tmp_path, spec).lookup(rows.digests[:5]), rows.features[:5])


def test_rows_that_are_not_numbers_are_never_served(tmp_path, spec, make_rows):
    rows = make_rows(3)
    rows.features[1, 2] = np.nan
    cache = FeatureCache(tmp_path, spec)
    cache.add(rows, {})
    cache.refresh()
    np.testing.assert_array_equal(cache.lookup(rows.digests[[0, 2]]), rows.features[[0, 2]])
    with pytest.raises(CacheDamaged, match=f"features of '{rows.names[1]}' in .* are NaN or infinite: run"):
        cache.lookup(rows.digests)


def test_a_cache_that_cannot_be_written_is_said_and_left_as_it_was(open_folder, closed_to_us, spec, make_rows):
    open_folder.chmod(0o500)
    cache = FeatureCache(open_folder, spec)
    with closed_to_us(), pytest.raises(CacheUnwritable, match="cannot be written: Permission denied"):
        cache.add(make_rows(3), {})
    assert list(open_folder.iterdir()) == []


@pytest.mark.parametrize("mode", [0o500, 0o555], ids=["closed", "read only"])
def test_an_index_that_cannot_be_written_is_said(mode, open_folder, closed_to_us, spec, make_rows):
    cache = FeatureCache(open_folder, spec)
    cache.add(make_rows(3), {})
    cache.refresh()
    cache.folder.chmod(mode)
    with closed_to_us(), pytest.raises(CacheUnwritable, match="cannot be written"):
        cache.write_index()
    assert sorted(p.name for p in cache.folder.iterdir()) == ["shards", SPEC_FILE]


def test_a_cache_that_may_only_be_read_is_read(open_folder, closed_to_us, spec, make_rows):
    cache, rows = FeatureCache(open_folder, spec), make_rows(3)
    cache.add(rows, {})
    cache.refresh()
    cache.write_index()
    for path in (cache.folder, cache.folder / "shards"):
        path.chmod(0o555)
    with closed_to_us():
        again = FeatureCache(open_folder, spec)
        np.testing.assert_array_equal(again.lookup(rows.digests), rows.features)
        assert again.write_index().exists()


def test_two_processes_that_write_at_once_lose_nothing(tmp_path, spec):
    code = (
        "import sys; sys.path[:0] = sys.argv[3:5]\n"
        "import numpy as np; from conftest import TOY_SPEC\n"
        "from featurecache.extract.cache.store import FeatureCache\n"
        "from featurecache.extract.cache.shards import ShardRows\n"
        "cache = FeatureCache(sys.argv[1], TOY_SPEC)\n"
        "for i in range(5):\n"
        "    r = np.random.default_rng([int(sys.argv[2]), i])\n"
        "    vectors, digests = r.normal(size=(3, 5)).astype('f4'), r.integers(0, 256, (3, 32), dtype='u1')\n"
        "    rows = ShardRows(vectors, digests, list('abc'))\n"
        "    cache.add(rows, {}); cache.refresh(); cache.write_index()\n"
    )
    here = Path(__file__).parents[1]
    arguments = [str(here), str(here.parents[1])]
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(who), *arguments], stderr=subprocess.PIPE)
        for who in range(3)
    ]
    for writer in writers:
        assert writer.communicate()[1] == b""
        assert writer.returncode == 0
    cache = FeatureCache(tmp_path, spec)
    assert len(cache) == 45
    for who in range(3):
        for i in range(5):
            random_numbers = np.random.default_rng([who, i])
            features = random_numbers.normal(size=(3, 5)).astype(np.float32)
            digests = random_numbers.integers(0, 256, (3, 32), dtype=np.uint8)
            np.testing.assert_array_equal(cache.lookup(digests), features)
    with h5py.File(cache.write_index()) as file:
        assert len(file["features"]) == 45
