"""Nothing that happens to a cache's files goes unseen: by `verify`, and by a read that needs the row."""

from __future__ import annotations

import hashlib
import random
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from featurecache.base.errors import CacheDamaged, CacheError
from featurecache.extract.cache.listing import shard_paths
from featurecache.extract.cache.shards import ShardRows, read_attributes, write_shard
from featurecache.extract.cache.store import INDEX_FILE, SPEC_FILE, FeatureCache
from featurecache.extract.cache.verify import repair_cache, verify_cache

N_FLIPS = 300


@pytest.fixture
def filled(tmp_path, spec, make_rows):
    """A cache of three shards with an index, and all their rows."""
    cache = FeatureCache(tmp_path / "cache", spec)
    parts = [make_rows(n, seed=n) for n in (4, 9, 6)]
    for part in parts:
        cache.add(part, {"engine": "torch"})
    cache.refresh()
    cache.write_index()
    names = [name for part in parts for name in part.names]
    return cache, ShardRows(
        np.concatenate([p.features for p in parts]), np.concatenate([p.digests for p in parts]), names
    )


def opened(cache):
    return FeatureCache(cache.folder.parent, cache.spec)


def content(path):
    """Every number and text of an HDF5 file."""
    with h5py.File(path) as file:
        return {
            **{name: file[name][:].tobytes() for name in file},
            **{name: str(value) for name, value in read_attributes(file).items()},
            "seal": str(read_attributes(file["seals"])),
        }


def unseal(path):
    """Make a shard what it was before there were seals."""
    with h5py.File(path, "r+") as file:
        del file["seals"]
        file.attrs["format"] = 1


def names_of(verdict):
    return [damage.path.name for damage in verdict.damaged]


def test_a_cache_that_nobody_touched_is_whole(filled):
    cache, _ = filled
    verdict = verify_cache(cache.folder)
    assert verdict.damaged == ()
    assert verdict.notes == ()
    assert (verdict.n_rows, verdict.n_shards, verdict.n_duplicates) == (19, 3, 0)
    assert verdict.n_bytes == sum(path.stat().st_size for path in shard_paths(cache.folder))


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path, spec, make_rows):
    """300 random single-byte changes: the read that needs the rows and verify both notice, or no vector is touched."""
    cache, rows = FeatureCache(tmp_path, spec), make_rows(40)
    cache.add(rows, {"engine": "torch"})
    (path,) = shard_paths(cache.folder)
    data, whole, chance = path.read_bytes(), content(path), random.Random(4)
    n_both = 0
    for place in chance.sample(range(len(data)), N_FLIPS):
        flipped = bytearray(data)
        flipped[place] ^= chance.randrange(1, 256)
        path.write_bytes(flipped)
        damaged = verify_cache(cache.folder).damaged
        try:
            served = opened(cache).lookup(rows.digests)
        except CacheDamaged as error:
            assert path.name in str(error)
            assert [damage.path for damage in damaged] == [path]
            n_both += 1
        else:
            np.testing.assert_array_equal(served, rows.features)
            assert damaged or content(path) == whole
    assert n_both > N_FLIPS // 2


def test_numbers_that_pass_hdf5s_own_checks_are_known_by_their_seals(filled):
    cache, rows = filled
    path = next(p for p in shard_paths(cache.folder) if h5py.File(p)["features"].shape[0] == 9)
    original = path.read_bytes()

    def change_a_number(file):
        file["features"][3, 2] += 1e-6

    def swap_two_vectors(file):
        file["features"][[0, 1]] = file["features"][:][[1, 0]]

    def swap_two_digests(file):
        file["digests"][[0, 1]] = file["digests"][:][[1, 0]]

    def change_a_seal(file):
        file["seals"][8, 15] ^= 1

    for change in (change_a_number, swap_two_vectors, swap_two_digests, change_a_seal):
        path.write_bytes(original)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(CacheDamaged, match="do not match their seals"):
            opened(cache).lookup(rows.digests)
        assert path.name in names_of(verify_cache(cache.folder))


def test_a_read_checks_the_rows_it_needs_and_no_others(filled):
    cache, rows = filled
    path = next(p for p in shard_paths(cache.folder) if h5py.File(p)["features"].shape[0] == 9)
    with h5py.File(path, "r+") as file:
        file["features"][8] += 1
    reader = opened(cache)
    np.testing.assert_array_equal(reader.lookup(rows.digests[:12]), rows.features[:12])
    with pytest.raises(CacheDamaged):
        reader.lookup(rows.digests[12:13])


def test_a_changed_path_is_seen_by_verify(filled):
    cache, _ = filled
    path = shard_paths(cache.folder)[0]
    with h5py.File(path, "r+") as file:
        file["paths"][0] = b"another.png"
    (damage,) = verify_cache(cache.folder).damaged
    assert damage.path == path
    assert damage.reason == "its paths do not match their seals"
    assert damage.n_rows == 4


@pytest.mark.parametrize("keep", [0, 1, 200, 0.5, -1])
def test_a_cut_off_shard_is_named_by_both(filled, keep):
    cache, _ = filled
    path = shard_paths(cache.folder)[1]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    (damage,) = verify_cache(cache.folder).damaged
    assert damage.path == path
    assert damage.n_rows == 9
    with pytest.raises(CacheDamaged, match=f"{path.name}.*featurecache cache verify --repair"):
        opened(cache)


def test_a_deleted_shard_is_missing_rows_nan_for_h5py_and_named_by_verify(filled):
    cache, rows = filled
    path = shard_paths(cache.folder)[1]
    path.unlink()
    assert opened(cache).missing(rows.digests).tolist() == [False] * 4 + [True] * 9 + [False] * 6
    with h5py.File(cache.folder / INDEX_FILE) as file:
        vectors = file["features"][:]
    assert np.isnan(vectors).all(axis=1).sum() == 9
    np.testing.assert_array_equal(np.isnan(vectors).any(axis=1), np.isnan(vectors).all(axis=1))
    (damage,) = verify_cache(cache.folder).damaged
    assert (damage.path, damage.reason, damage.n_rows) == (path, "it is gone", 9)
    repair_cache(verify_cache(cache.folder))
    assert verify_cache(cache.folder).damaged == ()
    with h5py.File(cache.folder / INDEX_FILE) as file:
        assert file["features"].shape == (10, 5)


def test_a_shard_of_another_cache_in_place_of_ours_is_named_by_both(filled, spec, make_rows):
    cache, rows = filled
    stranger = FeatureCache(cache.folder.parent, replace(spec, pooling="max"))
    stranger.add(make_rows(9, seed=9), {})
    before = opened(cache)
    path = shard_paths(cache.folder)[1]
    shutil.copy(shard_paths(stranger.folder)[0], path)
    for read in (before.lookup, lambda digests: opened(cache).lookup(digests)):
        with pytest.raises(CacheDamaged, match=f"{path.name}.*another spec"):
            read(rows.digests)
    (damage,) = verify_cache(cache.folder).damaged
    assert (damage.path, damage.reason, damage.n_rows) == (path, "its features are those of another spec", 9)


def test_a_shard_exchanged_for_another_of_the_same_cache_is_never_served_for_it(filled, make_rows):
    cache, rows = filled
    before = opened(cache)
    first, second, _ = shard_paths(cache.folder)
    shutil.copy(second, first)
    with pytest.raises(CacheDamaged, match=first.name):
        before.lookup(rows.digests)
    verdict = verify_cache(cache.folder)
    assert verdict.n_rows == 15
    assert verdict.n_duplicates == 9
    assert names_of(verdict) == [INDEX_FILE]


def test_rows_that_are_not_numbers_are_named(filled, make_rows):
    cache, _ = filled
    rows = make_rows(3, seed=50)
    rows.features[1, 1] = np.inf
    path = write_shard(cache.folder / "shards", rows, cache.spec, {})
    (damage,) = verify_cache(cache.folder).damaged
    assert (damage.path, damage.reason, damage.n_rows) == (path, "it holds NaN or infinite values", 3)


def test_second_copies_are_counted_and_are_no_damage(filled):
    cache, rows = filled
    cache.add(ShardRows(rows.features[:5], rows.digests[:5], rows.names[:5]), {})
    cache.refresh()
    cache.write_index()
    verdict = verify_cache(cache.folder)
    assert (verdict.damaged, verdict.n_rows, verdict.n_duplicates) == ((), 19, 5)


def test_a_shard_from_before_there_were_seals_is_served_and_said(filled):
    cache, rows = filled
    old = shard_paths(cache.folder)[0]
    unseal(old)
    np.testing.assert_array_equal(opened(cache).lookup(rows.digests), rows.features)
    verdict = verify_cache(cache.folder)
    assert verdict.damaged == ()
    assert verdict.notes == (
        f"1 shard is older than seals, so only checksums were compared ({old.name}); "
        "'featurecache cache compact' seals them",
    )


def test_a_shard_of_format_1_with_seals_is_read_like_any(filled):
    cache, rows = filled
    for path in shard_paths(cache.folder):
        with h5py.File(path, "r+") as file:
            file.attrs["format"] = 1
    np.testing.assert_array_equal(opened(cache).lookup(rows.digests), rows.features)
    assert (verify_cache(cache.folder).damaged, verify_cache(cache.folder).notes) == ((), ())


def test_a_shard_of_format_2_without_seals_is_damaged(filled):
    cache, _ = filled
    with h5py.File(shard_paths(cache.folder)[0], "r+") as file:
        del file["seals"]
    with pytest.raises(CacheDamaged, match="it has no seals"):
        opened(cache)
    assert [each.reason for each in verify_cache(cache.folder).damaged] == ["it has no seals"]


def test_progress_counts_the_bytes_to_the_last(filled):
    cache, _ = filled
    told = []
    verdict = verify_cache(cache.folder, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (verdict.n_bytes, verdict.n_bytes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# The spec and the index


def test_an_index_that_is_old_or_not_there_is_no_damage(filled, make_rows):
    cache, _ = filled
    cache.add(make_rows(2, seed=70), {})
    for _ in range(2):
        verdict = verify_cache(cache.folder)
        assert verdict.damaged == ()
        assert verdict.notes == ("features.h5 is not up to date; extract and compact renew it",)
        (cache.folder / INDEX_FILE).unlink(missing_ok=True)


def test_every_flipped_byte_of_the_index_is_noticed(filled):
    """Some of them would end the process if HDF5 were to read them."""
    cache, _ = filled
    path = cache.folder / INDEX_FILE
    data, chance = path.read_bytes(), random.Random(5)
    for place in chance.sample(range(len(data)), 60):
        flipped = bytearray(data)
        flipped[place] ^= chance.randrange(1, 256)
        path.write_bytes(flipped)
        assert names_of(verify_cache(cache.folder)) == [INDEX_FILE]


@pytest.mark.parametrize("is_signed", [False, True])
def test_an_index_that_shows_other_rows_is_damage_and_is_made_anew(filled, is_signed):
    cache, _ = filled
    path = cache.folder / INDEX_FILE
    with h5py.File(path, "r+") as file:
        digests, features = file["digests"][:], file["features"][:]
        layout = h5py.VirtualLayout((19, 5), np.float32)
        at = 0
        for shard, n in zip(shard_paths(cache.folder), (4, 9, 6), strict=True):
            source = h5py.VirtualSource(f"shards/{shard.name}", "features", shape=(n, 5), dtype=np.float32)
            for row in range(n):
                layout[at + row] = source[n - 1 - row]
            at += n
        del file["features"]
        file.create_virtual_dataset("features", layout, fillvalue=np.nan)
        assert not np.array_equal(file["features"][:], features)
    if is_signed:
        path.write_bytes(path.read_bytes() + hashlib.sha256(path.read_bytes()).digest())
    verdict = verify_cache(cache.folder)
    assert names_of(verdict) == [INDEX_FILE]
    repair_cache(verdict)
    assert verify_cache(cache.folder).damaged == ()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["digests"][:], digests)
        np.testing.assert_array_equal(file["features"][:], features)


@pytest.mark.parametrize("data", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 200])
def test_an_index_that_cannot_be_read_is_damage_and_is_made_anew(filled, data):
    cache, _ = filled
    (cache.folder / INDEX_FILE).write_bytes(data)
    verdict = verify_cache(cache.folder)
    assert names_of(verdict) == [INDEX_FILE]
    repair_cache(verdict)
    assert verify_cache(cache.folder).damaged == ()


@pytest.mark.parametrize("text", [None, "", "[]", "other"])
def test_a_spec_that_is_not_the_folders_is_damage_and_comes_back_from_a_shard(filled, text):
    cache, rows = filled
    path = cache.folder / SPEC_FILE
    path.unlink()
    if text is not None:
        path.write_text(replace(cache.spec, pooling="max").to_json() if text == "other" else text)
    verdict = verify_cache(cache.folder)
    assert names_of(verdict) == [SPEC_FILE]
    assert verdict.n_rows == 19
    repair_cache(verdict)
    assert path.read_text() == cache.spec.to_json()
    assert verify_cache(cache.folder).damaged == ()
    np.testing.assert_array_equal(opened(cache).lookup(rows.digests), rows.features)


def test_a_renamed_folder_is_damage_that_only_people_can_repair(filled):
    cache, _ = filled
    moved = cache.folder.rename(cache.folder.with_name("toy-0123456789ab"))
    verdict = verify_cache(moved)
    assert names_of(verdict) == [SPEC_FILE]
    with pytest.raises(CacheError, match="Give the folder its old name back"):
        repair_cache(verdict)
    assert len(shard_paths(moved)) == 3


def test_a_folder_of_a_run_that_was_killed_at_once_is_whole(tmp_path):
    (tmp_path / "toy-0123456789ab" / "shards").mkdir(parents=True)
    assert verify_cache(tmp_path / "toy-0123456789ab").damaged == ()


# Repair


def test_repair_sets_aside_and_the_next_extract_redoes_exactly_those_rows(filled):
    cache, rows = filled
    path = shard_paths(cache.folder)[1]
    broken = path.read_bytes()[:-100]
    path.write_bytes(broken)
    (aside,) = repair_cache(verify_cache(cache.folder))
    assert aside.read_bytes() == broken
    again = opened(cache)
    missing = again.missing(rows.digests)
    assert missing.tolist() == [False] * 4 + [True] * 9 + [False] * 6
    again.add(ShardRows(rows.features[missing], rows.digests[missing], ["x"] * 9), {})
    again.refresh()
    again.write_index()
    np.testing.assert_array_equal(again.lookup(rows.digests), rows.features)
    assert verify_cache(cache.folder).damaged == ()


def test_a_shard_that_may_not_be_read_is_named_beside_the_others_and_stays(open_folder, closed_to_us, spec, make_rows):
    cache = FeatureCache(open_folder, spec)
    for n in (4, 9, 6):
        cache.add(make_rows(n, seed=n), {"engine": "torch"})
    cache.refresh()
    cache.write_index()
    closed, cut, _ = shard_paths(cache.folder)
    closed.chmod(0)
    cut.write_bytes(b"")
    with closed_to_us():
        verdict = verify_cache(cache.folder)
        with pytest.raises(CacheError, match=r"cannot be read: Permission denied\. Correct the permissions first"):
            repair_cache(verdict)
    assert [(d.path, d.n_rows, d.is_closed) for d in verdict.damaged] == [(closed, 4, True), (cut, 9, False)]
    assert verdict.damaged[0].reason == f"The shard '{closed}' cannot be read: Permission denied."
    assert verdict.n_rows == 6
    assert len(shard_paths(cache.folder)) == 3


def test_files_set_aside_under_one_name_are_all_kept(filled):
    cache, _ = filled
    path = cache.folder / INDEX_FILE
    for text in (b"one", b"two", b"three"):
        path.write_bytes(text)
        repair_cache(verify_cache(cache.folder))
    assert sorted(p.read_bytes() for p in (cache.folder / "damaged").iterdir()) == [b"one", b"three", b"two"]


def test_all_shards_damaged_leaves_an_empty_cache_that_can_be_filled(filled):
    cache, rows = filled
    for path in shard_paths(cache.folder):
        path.write_bytes(b"")
    repair_cache(verify_cache(cache.folder))
    assert opened(cache).missing(rows.digests).all()
    assert not (cache.folder / INDEX_FILE).exists()
    assert verify_cache(cache.folder).damaged == ()
