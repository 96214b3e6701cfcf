"""A shard is there completely and gives back what was written, or says that it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.base import files
from featurecache.base.errors import CacheDamaged, CacheUnwritable
from featurecache.extract.cache import shards
from featurecache.extract.cache.shards import (
    ShardRows,
    new_shard_name,
    read_digests,
    read_features,
    read_record,
    write_shard,
)

RECORD = {
    "engine": "torch",
    "device": "cpu",
    "batch_size": 16,
    "seconds": 1.5,
    "weights": "ünï",
    "versions": {"a": "1"},
}


@pytest.fixture
def written(tmp_path, spec, make_rows):
    """A shard of nine rows and the rows."""
    rows = make_rows(9)
    return write_shard(tmp_path, rows, spec, RECORD), rows


def features_of(path, wanted, width):
    out = np.full((len(wanted), width), np.nan, dtype=np.float32)
    read_features(path, np.asarray(wanted, dtype=np.int64), out, np.arange(len(wanted)))
    return out


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_back_bit_for_bit(tmp_path, spec, make_rows, dtype):
    spec = replace(spec, dtype=dtype, feature_dim=37)
    rows = make_rows(300, spec=spec)
    path = write_shard(tmp_path, rows, spec, RECORD)
    np.testing.assert_array_equal(read_digests(path, spec), rows.digests)
    np.testing.assert_array_equal(features_of(path, range(300), 37), rows.features.astype(np.float32))


def test_chosen_rows_come_back_in_the_order_asked_for_and_as_often(written):
    path, rows = written
    wanted = [8, 0, 3, 3, 0, 8, 8]
    np.testing.assert_array_equal(features_of(path, wanted, 5), rows.features[wanted])


def test_rows_go_to_the_places_named_and_nowhere_else(written):
    path, rows = written
    out = np.full((10, 5), np.nan, dtype=np.float32)
    read_features(path, np.array([7, 2]), out, np.array([1, 8]))
    np.testing.assert_array_equal(out[[1, 8]], rows.features[[7, 2]])
    assert np.isnan(np.delete(out, [1, 8], axis=0)).all()


@pytest.mark.parametrize("rows_at_once", [1, 4, 9, 50])
def test_rows_of_several_blocks_are_put_together(written, monkeypatch, rows_at_once):
    monkeypatch.setattr(shards, "READ_BYTES", rows_at_once * 5 * 4)
    path, rows = written
    wanted = [8, 3, 3, 4, 0, 8, 5]
    np.testing.assert_array_equal(features_of(path, wanted, 5), rows.features[wanted])


def test_plain_h5py_reads_the_file_as_the_design_says(written, spec):
    path, rows = written
    with h5py.File(path) as file:
        assert file["features"].shape == (9, 5)
        assert file["features"].fletcher32
        assert np.isnan(file["features"].fillvalue)
        assert file["digests"].dtype == np.uint8
        assert [name.decode() for name in file["paths"][:]] == rows.names
        assert file.attrs["format"] == 2
        assert file.attrs["spec"].decode() == spec.to_json()


def test_a_chunk_is_about_one_mebibyte_of_whole_rows(tmp_path, spec, make_rows):
    spec = replace(spec, feature_dim=1280)
    path = write_shard(tmp_path, make_rows(500, spec=spec), spec, {})
    with h5py.File(path) as file:
        assert file["features"].chunks == ((1 << 20) // (4 * 1280), 1280)


def test_rows_wider_than_a_chunk_are_one_row_each(tmp_path, spec, make_rows):
    spec = replace(spec, feature_dim=300_000)
    path = write_shard(tmp_path, make_rows(2, spec=spec), spec, {})
    with h5py.File(path) as file:
        assert file["features"].chunks == (1, 300_000)


def test_what_was_written_down_is_read_as_it_was(written, spec):
    path, _ = written
    record = read_record(path)
    assert record == {**RECORD, "versions": '{"a": "1"}', "format": 2, "spec": spec.to_json(), "n": 9}
    assert {name: type(value) for name, value in record.items() if name in RECORD} == {
        "engine": str,
        "device": str,
        "batch_size": int,
        "seconds": float,
        "weights": str,
        "versions": str,
    }


def test_any_name_can_be_kept(tmp_path, spec, make_rows):
    rows = make_rows(4)
    names = ["", "ünï/日本.png", "new\nline", os.fsdecode(b"\xff.png")]
    path = write_shard(tmp_path, ShardRows(rows.features, rows.digests, names), spec, {})
    with h5py.File(path) as file:
        assert [name.decode() for name in file["paths"][:]] == ["", "ünï/日本.png", "new\nline", "\\udcff.png"]


def test_names_sort_by_the_time_they_were_made_and_never_meet(monkeypatch):
    moment = iter(range(1_700_000_000_000_000_000, 1_900_000_000_000_000_000, 10**15))
    monkeypatch.setattr(shards.time, "time_ns", lambda: next(moment))
    names = [new_shard_name() for _ in range(100)]
    assert names == sorted(names)
    monkeypatch.undo()
    assert len({new_shard_name() for _ in range(1000)}) == 1000
    for name in names:
        parsed = uuid.UUID(name.removesuffix(".h5"))
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122


def test_nothing_but_the_shard_is_left_in_the_folder(written, tmp_path):
    assert list(tmp_path.iterdir()) == [written[0]]


def test_a_file_has_its_final_name_only_when_it_is_complete(tmp_path, spec, make_rows, monkeypatch):
    publish = files.publish

    def look_first(temporary, path):
        assert temporary.name.startswith(files.TEMPORARY_PREFIX)
        assert not path.exists()
        assert len(read_digests(temporary, spec)) == 3
        publish(temporary, path)

    monkeypatch.setattr(files, "publish", look_first)
    assert write_shard(tmp_path, make_rows(3), spec, {}).exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_a_truncated_shard_is_damaged(written, spec, share):
    path, _ = written
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CacheDamaged, match=re.escape(f"The shard '{path}' is damaged (")) as raised:
        read_digests(path, spec)
    assert str(raised.value).endswith("and then extract again: only its rows are redone.")
    assert "\n" not in str(raised.value)


def test_what_is_no_hdf5_is_damaged(tmp_path, spec):
    (tmp_path / "x.h5").write_bytes(b"something else" * 1000)
    for read in (lambda path: read_digests(path, spec), read_record, lambda path: features_of(path, [0], 5)):
        with pytest.raises(CacheDamaged):
            read(tmp_path / "x.h5")


def test_a_shard_without_one_of_its_parts_is_damaged(written, spec):
    path, _ = written
    with h5py.File(path, "r+") as file:
        del file["features"]
    with pytest.raises(CacheDamaged):
        read_digests(path, spec)


def test_a_shard_whose_parts_have_different_lengths_is_damaged(written, spec, make_rows):
    path, _ = written
    with h5py.File(path, "r+") as file:
        del file["digests"]
        file["digests"] = make_rows(8).digests
    with pytest.raises(CacheDamaged, match="do not belong together"):
        read_digests(path, spec)


def test_a_shard_of_other_features_is_refused(written, spec):
    with pytest.raises(CacheDamaged, match="its features are those of another spec"):
        read_digests(written[0], replace(spec, pooling="max"))


def test_every_flipped_bit_is_noticed_or_harmless(written, spec):
    """One bit of every fifth byte: the same rows, or CacheDamaged; never other rows, and never an endless search."""
    path, rows = written
    data = path.read_bytes()
    noticed = 0
    for place in range(0, len(data), 5):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            digests, features = read_digests(path, spec), features_of(path, range(9), 5)
            read_record(path)
        except CacheDamaged:
            noticed += 1
        else:
            np.testing.assert_array_equal(digests, rows.digests)
            np.testing.assert_array_equal(features, rows.features)
    assert 5 * noticed > rows.features.nbytes + rows.digests.nbytes


def test_a_folder_that_cannot_be_written_is_said_and_left_empty(open_folder, closed_to_us, spec, make_rows):
    open_folder.chmod(0o500)
    complaint = re.escape(f"The cache folder '{open_folder}' cannot be written: Permission denied. Free some space")
    with closed_to_us(), pytest.raises(CacheUnwritable, match=complaint):
        write_shard(open_folder, make_rows(3), spec, {})
    assert list(open_folder.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 3000, 200_000])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, limit):
    """A limit on the size of files stands in for the full disk: the write fails in the middle."""
    code = (
        "import resource, sys; sys.path[:0] = sys.argv[2:4]\n"
        "import numpy as np; from pathlib import Path; import h5py\n"
        "from conftest import TOY_SPEC; from featurecache.extract.cache.shards import ShardRows, write_shard\n"
        "from featurecache.base.errors import CacheUnwritable\n"
        "rows = ShardRows(np.ones((20000, 5), 'f4'), np.ones((20000, 32), 'u1'), ['x'] * 20000)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        "try: write_shard(Path(sys.argv[1]), rows, TOY_SPEC, {})\n"
        "except CacheUnwritable as error: print(error)\n"
    )
    here = Path(__file__).parents[1]
    command = [sys.executable, "-c", code, str(tmp_path / "shards"), str(here), str(here.parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot be written: File too large. Free some space" in done.stdout
    assert done.stderr == ""
    assert list((tmp_path / "shards").iterdir()) == []


def test_interrupting_a_write_leaves_nothing(tmp_path, spec, make_rows, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, make_rows(3), spec, {})
    assert list(tmp_path.iterdir()) == []
