"""A cache folder from a stranger: what leads out of it, or is too large, is refused in a sentence before it is read."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.base.errors import CacheDamaged, CacheError
from featurecache.extract.cache import opening
from featurecache.extract.cache.compact import compact_cache
from featurecache.extract.cache.inventory import describe_caches
from featurecache.extract.cache.listing import shard_paths
from featurecache.extract.cache.memo import FILE_NAME, FileState, Memo
from featurecache.extract.cache.shards import read_digests, read_names, read_record
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import INDEX_FILE, SPEC_FILE, FeatureCache, read_spec
from featurecache.extract.cache.verify import repair_cache, verify_cache
from featurecache.extract.job.request import FeatureRequest, _memo_key, recall, remembered

N = 9
SECRET = b"the bytes of a file that is none of its business"


@pytest.fixture
def filled(tmp_path, spec, make_rows):
    """A cache of one shard of nine rows with an index, and its rows."""
    cache, rows = FeatureCache(tmp_path / "cache", spec), make_rows(N)
    cache.add(rows, {"engine": "torch", "seconds": 1.0})
    cache.refresh()
    cache.write_index()
    return cache, rows


@pytest.fixture
def secret(tmp_path) -> Path:
    """A file outside the cache, large enough for features and digests to lie in it."""
    path = tmp_path / "secret.bin"
    path.write_bytes(SECRET * 20)
    return path


def shard_of(cache) -> Path:
    (path,) = shard_paths(cache.folder)
    return path


def said_by_every_reader(cache, rows) -> list[str]:
    """What each way of reading the shard says; all of them refuse."""
    path, said = shard_of(cache), []
    readers = (
        lambda: cache.lookup(rows.digests),
        lambda: FeatureCache(cache.folder.parent, cache.spec),
        lambda: read_digests(path, cache.spec),
        lambda: read_names(path),
        lambda: read_record(path),
        lambda: compact_cache(cache.folder),
    )
    for read in readers:
        with pytest.raises(CacheDamaged) as raised:
            read()
        said.append(str(raised.value))
    (damage,) = verify_cache(cache.folder).damaged
    assert damage.path == path
    (info,) = describe_caches(cache.folder.parent)
    return [*said, damage.reason, *info.damaged]


def put(file, name, **keywords):
    """Put another dataset in the place of one."""
    del file[name]
    return file.create_dataset(name, **keywords)


def to_format_1(file):
    """Without seals nothing but the structure can tell."""
    del file["seals"]
    file.attrs["format"] = 1


def features_in(file, secret):
    put(file, "features", shape=(N, 5), dtype="<f4", external=[(str(secret), 0, N * 20)])


def digests_in(file, secret):
    put(file, "digests", shape=(N, 32), dtype="u1", external=[(str(secret), 0, N * 32)])


def paths_in(file, secret):
    put(file, "paths", shape=(N,), dtype=h5py.string_dtype("utf-8", 20), external=[(str(secret), 0, N * 20)])


def seals_in(file, secret):
    put(file, "seals", shape=(N, 16), dtype="u1", external=[(str(secret), 0, N * 16)])


def virtual_features(file, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["x"] = np.frombuffer(secret.read_bytes()[: N * 20], "<f4").reshape(N, 5)
    layout = h5py.VirtualLayout((N, 5), "<f4")
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "x", shape=(N, 5))
    del file["features"]
    file.create_virtual_dataset("features", layout)


def external_link(file, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["x"] = np.zeros((N, 5), "<f4")
    del file["features"]
    file["features"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/x")


def soft_link(file, secret):
    file["seals"].parent.move("features", "paths_too")
    file["features"] = h5py.SoftLink("/paths_too")


def soft_link_under_a_known_name(file, secret):
    del file["features"]
    file["features"] = h5py.SoftLink("/digests")


def more_than_a_shard_holds(file, secret):
    file["more"] = h5py.ExternalLink(str(secret), "/")


def a_group(file, secret):
    del file["features"]
    file.create_group("features")


def a_terabyte_of_rows(file, secret):
    for name, shape, dtype in (("features", (10**12, 5), "<f4"), ("digests", (10**12, 32), "u1")):
        put(file, name, shape=shape, dtype=dtype, chunks=(1000, shape[1]))
    put(file, "paths", shape=(10**12,), dtype=h5py.string_dtype("utf-8", 20), chunks=(1000,))


def packed(file, secret):
    put(file, "features", data=np.zeros((N, 5), "<f4"), compression="gzip")


def growing(file, secret):
    put(file, "features", shape=(N, 5), maxshape=(None, 5), dtype="<f4", chunks=(1 << 20, 5))


def text_of_any_length(file, secret):
    put(file, "paths", data=["x"] * N, dtype=h5py.string_dtype())


def lists_of_any_length(file, secret):
    put(file, "features", shape=(N, 5), dtype=h5py.vlen_dtype(np.float32))


def references(file, secret):
    put(file, "features", shape=(N, 5), dtype=h5py.ref_dtype)


def wide_features(file, secret):
    put(file, "features", data=np.zeros((N, 6), "<f4"))


def doubles(file, secret):
    put(file, "features", data=np.zeros((N, 5), "<f8"))


def halves(file, secret):
    put(file, "features", data=np.zeros((N, 5), "<f2"))


def one_row_of_features(file, secret):
    put(file, "features", data=np.zeros(5, "<f4"))


def short_seals(file, secret):
    put(file, "seals", data=np.zeros((N, 8), "u1"))


def too_few_seals(file, secret):
    put(file, "seals", data=np.zeros((N - 1, 16), "u1"))


def another_format(file, secret):
    file.attrs["format"] = 3


def format_as_text(file, secret):
    file.attrs["format"] = "2"


def no_format(file, secret):
    del file.attrs["format"]


def no_spec(file, secret):
    del file.attrs["spec"]


def spec_as_a_list(file, secret):
    file.attrs["spec"] = np.zeros(3)


def spec_of_any_length(file, secret):
    file.attrs["spec"] = "x" * 100


def no_seals(file, secret):
    del file["seals"]


LEADING_OUT = [features_in, digests_in, paths_in, seals_in, virtual_features, external_link, more_than_a_shard_holds]
STRANGE = [soft_link, soft_link_under_a_known_name, a_group, a_terabyte_of_rows, packed, growing, text_of_any_length,
           lists_of_any_length, references, wide_features, doubles, halves, one_row_of_features, short_seals,
           too_few_seals, another_format, format_as_text, no_format, no_spec, spec_as_a_list, spec_of_any_length,
           no_seals]  # fmt: skip
READ_BY_SOME = {wide_features, doubles, halves, no_spec}


@pytest.mark.parametrize("change", LEADING_OUT, ids=lambda change: change.__name__)
def test_no_reader_is_led_out_of_the_cache(filled, secret, change, capfd):
    cache, rows = filled
    with h5py.File(shard_of(cache), "r+") as file:
        change(file, secret)
        if change is not seals_in:
            to_format_1(file)
    for said in said_by_every_reader(cache, rows):
        assert SECRET.decode()[:8] not in said
        assert "\n" not in said
    assert SECRET.decode()[:8] not in "".join(capfd.readouterr())
    repair_cache(verify_cache(cache.folder))
    assert FeatureCache(cache.folder.parent, cache.spec).missing(rows.digests).all()


def test_the_file_outside_is_what_hdf5_itself_would_read(filled, secret):
    """So the tests above would fail if nobody looked."""
    cache, _ = filled
    with h5py.File(shard_of(cache), "r+") as file:
        features_in(file, secret)
    with h5py.File(shard_of(cache)) as file:
        assert file["features"][:].tobytes().startswith(SECRET)


@pytest.mark.parametrize("change", STRANGE, ids=lambda change: change.__name__)
def test_a_file_that_is_made_otherwise_is_damaged_before_a_row_is_read(filled, secret, change):
    cache, rows = filled
    with h5py.File(shard_of(cache), "r+") as file:
        change(file, secret)
    if change in READ_BY_SOME:  # by who does not ask for the features
        with pytest.raises(CacheDamaged):
            cache.lookup(rows.digests)
        assert [damage.path for damage in verify_cache(cache.folder).damaged] == [shard_of(cache)]
        return
    said_by_every_reader(cache, rows)


def test_a_shard_of_a_terabyte_of_rows_takes_no_memory(filled, secret):
    """In a process of its own that may have one GiB more than it begins with."""
    cache, _ = filled
    with h5py.File(shard_of(cache), "r+") as file:
        a_terabyte_of_rows(file, secret)
        to_format_1(file)
    code = (
        "import resource, sys; from pathlib import Path; from featurecache.extract.cache.verify import verify_cache\n"
        "import h5py, numpy\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n"
        "print([damage.reason for damage in verify_cache(Path(sys.argv[1])).damaged])\n"
    )
    command = [sys.executable, "-c", code, str(cache.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "would be larger than the file" in done.stdout


@pytest.mark.parametrize("name", ["engine", "seconds", "created", "batch_size"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "text"])
def test_what_is_written_down_has_the_type_and_range_that_it_had(filled, name, value):
    cache, _ = filled
    path = shard_of(cache)
    with h5py.File(path, "r+") as file:
        file.attrs.create(name, value if isinstance(value, float) else np.bytes_(value))
    if isinstance(value, str) and name in ("engine", "created"):
        assert read_record(path)[name] == value
        return
    with pytest.raises(CacheDamaged, match=f"its '{name}' is "):
        read_record(path)
    assert [damage.path for damage in verify_cache(cache.folder).damaged] == [path]


# Links, pipes, and other files than HDF5


def test_a_shard_that_is_a_link_to_elsewhere_is_set_aside(filled, tmp_path):
    cache, rows = filled
    path = shard_of(cache)
    outside = path.rename(tmp_path / "elsewhere.h5")
    path.symlink_to(outside)
    assert all("it is a link that leads out of its folder" in said for said in said_by_every_reader(cache, rows))
    repair_cache(verify_cache(cache.folder))
    assert outside.exists()


def test_a_shard_that_is_a_link_to_nothing_does_not_make_anybody_wait(filled):
    cache, rows = filled
    path = shard_of(cache)
    path.unlink()
    path.symlink_to("nowhere.h5")
    assert all("it is a link that leads nowhere" in said for said in said_by_every_reader(cache, rows))


@pytest.mark.parametrize("name", ["shard", SPEC_FILE, INDEX_FILE])
def test_a_pipe_is_not_waited_for(filled, name):
    cache, _ = filled
    path = shard_of(cache) if name == "shard" else cache.folder / name
    path.unlink()
    os.mkfifo(path)
    code = "import sys; from pathlib import Path; from featurecache.extract.cache.verify import verify_cache; " \
           "print([damage.reason for damage in verify_cache(Path(sys.argv[1])).damaged])"  # fmt: skip
    command = [sys.executable, "-c", code, str(cache.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.replace("'", '"'))


# spec.json


@pytest.mark.parametrize(
    "values",
    [
        {"backbone": "../../secret"},
        {"backbone": "/etc"},
        {"backbone": ".."},
        {"backbone": 3},
        {"feature_dim": 10**12},
        {"feature_dim": -1},
        {"feature_dim": 5.0},
        {"feature_dim": True},
        {"dtype": "object"},
        {"dtype": "int8"},
        {"precision": "fp8"},
        {"decode": ["full"]},
        {"weights_digest": "ab"},
        {"layer": ["a"]},
        {"layer": "x" * 100_000},
        {"view": None},
        {"transform": []},
        {"transform": {"crop": 10**9}},
        {"transform": {"mean": [0.5, 0.5]}},
        {"transform": {"std": [0.5, 0.5, 0.0]}},
        {"transform": {"antialias": "yes"}},
        {"transform": {"interpolation": "__class__"}},
        {"transform": {"more": 1}},
    ],
)
def test_a_spec_with_an_impossible_value_is_none(filled, values):
    cache, _ = filled
    whole = cache.spec.to_dict()
    if isinstance(values.get("transform"), dict):
        values = {"transform": {**whole["transform"], **values["transform"]}}
    with pytest.raises((ValueError, TypeError, KeyError)):
        FeatureSpec.from_dict({**whole, **values})
    (cache.folder / SPEC_FILE).write_text(json.dumps({**whole, **values}))
    with pytest.raises(CacheDamaged, match="is no feature spec"):
        read_spec(cache.folder)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000 + "]" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "9" * 5000, '{"a": NaN}', '{"a": 1e999}',
     "\udcff", "[]", "null", " " * (1 << 21)],
    ids=["deep list", "deep object", "long number", "NaN", "too large", "no UTF-8", "list", "null", "long"],
)  # fmt: skip
def test_a_spec_that_is_no_json_of_ours_is_none(filled, text):
    cache, _ = filled
    (cache.folder / SPEC_FILE).write_text(text, errors="surrogateescape")
    with pytest.raises(CacheDamaged, match="is no feature spec"):
        FeatureCache(cache.folder.parent, cache.spec)
    assert [damage.path.name for damage in verify_cache(cache.folder).damaged] == [SPEC_FILE]


def test_a_spec_that_is_a_link_to_elsewhere_is_not_read(filled, secret):
    cache, _ = filled
    path = cache.folder / SPEC_FILE
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(CacheDamaged) as raised:
        read_spec(cache.folder)
    assert SECRET.decode()[:8] not in str(raised.value)


# What is not damage


@pytest.mark.parametrize("locking", [None, True, "best-effort"])
def test_a_file_that_a_notebook_has_open_is_read_and_is_no_damage(filled, locking):
    cache, rows = filled
    with h5py.File(shard_of(cache), "r", locking=locking):
        np.testing.assert_array_equal(FeatureCache(cache.folder.parent, cache.spec).lookup(rows.digests), rows.features)
        assert verify_cache(cache.folder).damaged == ()
    with h5py.File(cache.folder / INDEX_FILE, "r", locking=locking) as index:
        np.testing.assert_array_equal(index["features"][:], rows.features)
        assert verify_cache(cache.folder).damaged == ()
        cache.write_index()


def test_a_shard_that_a_program_has_open_for_writing_is_not_called_damaged(filled):
    cache, rows = filled
    path = shard_of(cache)
    process = os.fork()
    if process == 0:
        file = h5py.File(path, "r+")  # noqa: F841 (held)
        os._exit(0)  # killed: HDF5's mark of a file that is open for writing stays
    os.waitpid(process, 0)
    with pytest.raises(CacheError, match="is open for writing in another program") as raised:
        cache.lookup(rows.digests)
    assert not isinstance(raised.value, CacheDamaged)
    (damage,) = verify_cache(cache.folder).damaged
    assert damage.is_closed


@pytest.mark.parametrize("number", [24, 5, 11], ids=["too many open files", "a failing disk", "a lock"])
def test_what_keeps_a_shard_from_being_read_is_not_called_damage(filled, monkeypatch, number):
    cache, rows = filled

    def failing(*_, **__):
        raise OSError(number, "said by the system")

    monkeypatch.setattr(opening, "_open_as_it_is_open", failing)
    with pytest.raises(CacheError) as raised:
        cache.lookup(rows.digests)
    assert not isinstance(raised.value, CacheDamaged)
    assert str(raised.value) == (
        f"The shard '{shard_of(cache)}' cannot be read: {os.strerror(number)}. It may be whole; nothing was changed."
    )
    verdict = verify_cache(cache.folder)
    assert all(damage.is_closed for damage in verdict.damaged if damage.path == shard_of(cache))
    with pytest.raises(CacheError):
        repair_cache(verdict)
    assert shard_of(cache).exists()


# The memo


def test_a_memo_that_is_a_link_to_another_database_leaves_that_alone(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "other.sqlite")) as other, other:
        other.execute("CREATE TABLE mine (x)")
    before = (tmp_path / "other.sqlite").read_bytes()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE_NAME).symlink_to(tmp_path / "other.sqlite")
    with Memo(tmp_path / "cache", read_only=True) as memo:
        memo.remember_answer("a", "b")
    with Memo(tmp_path / "cache") as memo:
        memo.remember_answer("a", "b")
        assert memo.answer("a") == "b"
    assert (tmp_path / "other.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW digests AS SELECT x'61' AS path, 1 AS size, 1 AS mtime_ns, 1 AS ctime_ns, zeroblob(32) AS sha256",
        "CREATE TABLE uses (cache, images, used); CREATE TRIGGER t AFTER INSERT ON uses BEGIN DELETE FROM uses; END",
        "CREATE TABLE secrets (x)",
    ],
)
def test_a_memo_with_more_than_tables_of_ours_is_replaced(tmp_path, statement):
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as database, database:
        database.executescript(statement)
    with Memo(tmp_path) as memo:
        assert list(memo.paths()) == []
        memo.remember_use(["a"], b"images", 3)
        assert memo.uses() == [("a", b"images", 3)]


def test_rows_of_other_types_are_passed_over(tmp_path):
    with Memo(tmp_path) as memo:
        memo.remember_use(["a"], b"images", 3)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as database, database:
        database.execute("INSERT INTO digests VALUES ('text', 1, 1, 1, zeroblob(32)), (x'61', 1, 1, 1, zeroblob(31))")
        database.execute("INSERT INTO uses VALUES ('b', 'text', 4), ('c', x'61', 'text'), ('d', x'61', 1 << 62)")
        database.execute("INSERT INTO refused VALUES ('text', 'k', 'r'), (zeroblob(32), 'k', x'07')")
    with Memo(tmp_path) as memo:
        assert (list(memo.paths()), memo.refusals("k"), memo.uses()) == ([], {}, [("a", b"images", 3)])


def test_an_answer_never_leads_to_a_folder_outside(tmp_path, spec):
    """What was remembered of a request names a cache folder."""
    request = FeatureRequest("toy")
    answer = {"weights": "w", "weights_path": __file__, "state": list(FileState.of(Path(__file__).stat()))}
    with Memo(tmp_path) as memo:
        memo.remember_answer(_memo_key(request), json.dumps({**answer, "spec": spec.to_dict()}))
        assert recall(request, memo) is not None
        for backbone in ("../toy", "other"):
            stranger = {**spec.to_dict(), "backbone": backbone}
            memo.remember_answer(_memo_key(request), json.dumps({**answer, "spec": stranger}))
            assert recall(request, memo) is None
        memo.remember_answer(_memo_key(request), "[" * 100_000)
        assert recall(request, memo) is None
        assert remembered(memo) == []
