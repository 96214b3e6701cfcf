"""Every image gets its true digest, and a file that did not change is not opened for it."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from featurecache.extract.cache.memo import RACY_NS, FileState, Memo
from featurecache.extract.images import digests, memo_paths, sources
from featurecache.extract.images.digests import Refusal, digest_samples, forget_others
from featurecache.extract.images.manifest import Sample


@pytest.fixture
def folder(tmp_path):
    """Five files, two of them alike."""
    root = tmp_path / "images"
    root.mkdir()
    for name, content in {"a": b"alpha", "b": b"beta", "c": b"alpha", "d": b"", "e\n\udcff": b"epsilon"}.items():
        (root / f"{name}.png").write_bytes(content)
    return root


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def settle(monkeypatch):
    """A clock that is an hour ahead, for which every file has settled."""
    now = time.time_ns
    monkeypatch.setattr(digests.time, "time_ns", lambda: now() + 3600 * 10**9)


def samples_in(root):
    return [Sample(str(path), path.name) for path in sorted(root.iterdir(), key=os.fsencode)]


def digest(root, cache, **options):
    with Memo(cache) as known:
        return digest_samples(samples_in(root), known, **options)


def sha256_of(samples):
    return [hashlib.sha256(Path(sample.path).read_bytes()).hexdigest() for sample in samples]


def test_every_file_has_the_sha256_of_its_bytes_in_the_order_given(folder, cache):
    with Memo(cache) as known:
        samples = samples_in(folder)[::-1]
        found = digest_samples(samples, known)
    hexadecimal = [bytes(row).hex() for row in found.digests]
    assert found.samples == tuple(samples)
    assert found.digests.dtype == np.uint8
    assert found.digests.shape == (5, 32)
    assert hexadecimal == sha256_of(samples)
    assert found.refusals == ()
    assert found.n_hashed == 5


def test_a_warm_run_opens_no_file(folder, cache, settle, monkeypatch):
    cold = digest(folder, cache)
    monkeypatch.setattr(digests, "_hash_file", lambda sample: pytest.fail(f"{sample.name} was opened"))
    warm = digest(folder, cache)
    assert warm.n_hashed == 0
    np.testing.assert_array_equal(warm.digests, cold.digests)


def test_files_that_changed_a_moment_ago_are_read_again(folder, cache, monkeypatch):
    oldest = min(path.stat().st_ctime_ns for path in folder.iterdir())
    monkeypatch.setattr(digests.time, "time_ns", lambda: oldest + RACY_NS)
    assert digest(folder, cache).n_hashed == 5
    assert digest(folder, cache).n_hashed == 5


def test_a_file_is_judged_settled_by_when_it_was_read_and_not_by_when_it_was_written_down(folder, cache, monkeypatch):
    """A slow block of files must not make its own first files look old."""
    now = [min(path.stat().st_mtime_ns for path in folder.iterdir())]
    hash_file = digests._hash_file

    def slowly(sample):
        result = hash_file(sample)
        now[0] += 3600 * 10**9
        return result

    monkeypatch.setattr(digests.time, "time_ns", lambda: now[0])
    monkeypatch.setattr(digests, "_hash_file", slowly)
    digest(folder, cache)
    with Memo(cache) as known:
        assert list(known.paths()) == []


def test_an_edit_that_keeps_size_and_modification_time_is_noticed(folder, cache, settle):
    path = folder / "a.png"
    before, status = digest(folder, cache), path.stat()
    path.write_bytes(b"omega")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = digest(folder, cache)
    assert after.n_hashed == 1
    assert bytes(after.digests[0]) == hashlib.sha256(b"omega").digest()
    np.testing.assert_array_equal(after.digests[1:], before.digests[1:])


def test_a_file_that_took_the_place_of_another_is_read(folder, cache, settle):
    digest(folder, cache)
    (folder / "b.png").rename(folder / "a.png")
    found = digest(folder, cache)
    assert found.n_hashed == 1
    assert bytes(found.digests[0]) == hashlib.sha256(b"beta").digest()


def test_the_same_file_by_a_relative_path_is_known(folder, cache, settle, monkeypatch):
    digest(folder, cache)
    monkeypatch.chdir(folder)
    with Memo(cache) as known:
        assert digest_samples([Sample("a.png", "a.png")], known).n_hashed == 0


def test_a_file_that_changes_while_it_is_read_is_not_remembered(folder, cache, settle, monkeypatch):
    file_digest = hashlib.file_digest

    def edited_meanwhile(file, algorithm):
        if file.name == str(folder / "b.png"):
            with open(folder / "b.png", "ab") as again:
                again.write(b"!")
        return file_digest(file, algorithm)

    monkeypatch.setattr(sources.hashlib, "file_digest", edited_meanwhile)
    digest(folder, cache)
    with Memo(cache) as known:
        assert os.fsencode(folder / "b.png") not in list(known.paths())
        assert len(list(known.paths())) == 4


def test_a_large_file_is_not_held_in_memory(folder, cache):
    with open(folder / "large.png", "wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        assert digest(folder, cache).n_hashed == 6
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_what_cannot_be_read_is_refused_by_name_and_the_rest_goes_on(folder, cache):
    samples = [
        *samples_in(folder)[:2],
        Sample(str(folder / "gone.png"), "gone.png"),
        Sample(str(folder), "folder.png"),
        *samples_in(folder)[2:],
    ]
    with Memo(cache) as known:
        found = digest_samples(samples, known)
    assert found.refusals == (
        Refusal("gone.png", "", "cannot be read: No such file or directory"),
        Refusal("folder.png", "", "not a regular file"),
    )
    assert [s.name for s in found.samples] == [s.name for s in samples_in(folder)]
    assert [bytes(row).hex() for row in found.digests] == sha256_of(found.samples)


def test_a_pipe_with_the_name_of_an_image_is_refused_and_not_waited_for(folder, cache):
    os.mkfifo(folder / "p.png")
    result = []
    thread = threading.Thread(target=lambda: result.append(digest(folder, cache)), daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert [r.reason for r in result[0].refusals] == ["not a regular file"]


def test_a_device_that_never_ends_is_refused(folder, cache):
    (folder / "zero.png").symlink_to("/dev/zero")
    assert [r.reason for r in digest(folder, cache).refusals] == ["not a regular file"]


def test_a_file_that_vanishes_before_it_is_read_is_refused(folder, cache, monkeypatch):
    hash_file = digests._hash_file

    def vanished(sample):
        if sample.name == "a.png":
            os.unlink(sample.path)
        return hash_file(sample)

    monkeypatch.setattr(digests, "_hash_file", vanished)
    assert digest(folder, cache).refusals == (Refusal("a.png", "", "cannot be read: No such file or directory"),)


def test_a_file_that_may_not_be_read_is_refused(open_folder, closed_to_us):
    for name in ("a.png", "b.png"):
        (open_folder / name).write_bytes(name.encode())
    (open_folder / "a.png").chmod(0)
    with Memo(open_folder / "cache") as known, closed_to_us():
        found = digest_samples([Sample(str(open_folder / n), n) for n in ("a.png", "b.png")], known)
    assert found.refusals == (Refusal("a.png", "", "cannot be read: Permission denied"),)
    assert len(found.samples) == 1


def test_a_file_that_only_a_relative_path_reaches_is_read(open_folder, closed_to_us, monkeypatch):
    inner = open_folder / "closed" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.png").write_bytes(b"a")
    monkeypatch.chdir(inner)
    inner.parent.chmod(0)
    with Memo(open_folder / "cache") as known, closed_to_us():
        found = digest_samples([Sample(name, name) for name in ("a.png", "gone.png", ".")], known)
    assert [sample.name for sample in found.samples] == ["a.png"]
    assert [refusal.reason for refusal in found.refusals] == [
        "cannot be read: No such file or directory", "not a regular file",
    ]  # fmt: skip


def test_no_samples_are_an_empty_table(cache):
    with Memo(cache) as known:
        found = digest_samples([], known)
    assert found.digests.shape == (0, 32)
    assert found.n_hashed == 0


def test_progress_ends_at_the_number_of_files_that_were_read(folder, cache, monkeypatch):
    monkeypatch.setattr(digests, "BLOCK", 2)
    seen = []
    digest(folder, cache, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_a_stopped_run_remembers_the_blocks_that_were_done(folder, cache, settle, monkeypatch):
    monkeypatch.setattr(digests, "BLOCK", 2)

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digest(folder, cache, on_progress=stop)
    assert digest(folder, cache).n_hashed == 1


def test_the_memo_forgets_files_that_are_not_wanted_any_more(folder, cache, settle):
    digest(folder, cache)
    forget_others(samples_in(folder)[:2], cache)
    with Memo(cache) as known:
        assert set(known.paths()) == {os.fsencode(folder / name) for name in ("a.png", "b.png")}
    assert digest(folder, cache).n_hashed == 3


@pytest.mark.parametrize("name", ["a.png", "./x/../a.png", "x//a.png", "..", "a/.", "/a.png", "//a/b.png", "ü/\udcff"])
def test_a_file_is_remembered_under_its_absolute_path(name):
    assert memo_paths.memo_path(name, {}) == os.fsencode(os.path.abspath(name))


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.png"],
        ["/x/a", "/x/b", "/y/c"],
        ["x//a", "x/./b"],
        ["a/.", "b/c"],
        ["ü/\udcff", "ü/z"],
        ["/a", "/b/c"],
        ["/x/y/b", "/x/y/a", "/x/y/ü\udcff", "/x/y/c d"],
        ["x/x/b", "x/x/c"],
        ["x/b", "x/c/d"],
        ["x/b", "xx/c"],
        ["x/b", "x/"],
        ["x/b", "x/.", "x/c"],
        ["x/b", "x/c", "x/.."],
        ["./b", "./c"],
        ["../x/b", "../x/c"],
        ["//x/b", "//x/c"],
        ["b"],
        [],
        ["x/b\0x/c"],
        ["x/b\0x/c", "x"],
    ],
)
def test_files_of_a_block_are_remembered_under_their_absolute_paths(names):
    assert memo_paths.memo_paths(names, {}) == [os.fsencode(os.path.abspath(name)) for name in names]


def test_a_file_behind_a_link_and_two_dots_is_the_one_that_is_read(tmp_path, cache, settle):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"alpha")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    samples = [Sample(str(tmp_path / "link") + "/../a.png", "a.png")]
    for n_hashed in (1, 0):
        with Memo(cache) as known:
            found = digest_samples(samples, known)
        assert bytes(found.digests[0]) == hashlib.sha256(b"alpha").digest()
        assert found.n_hashed == n_hashed


def test_one_file_of_a_block_that_changed_is_read_and_no_other(folder, cache, settle):
    before = digest(folder, cache)
    (folder / "c.png").write_bytes(b"gamma")
    (folder / "b.png").unlink()
    after = digest(folder, cache)
    assert after.n_hashed == 1
    assert [bytes(row).hex() for row in after.digests] == sha256_of(after.samples)
    assert [sample.name for sample in after.samples] == [s.name for s in before.samples if s.name != "b.png"]


def test_the_memo_keeps_the_state_that_was_read(folder, cache, settle):
    digest(folder, cache)
    with Memo(cache) as known:
        state, found = known.known_digests([os.fsencode(folder / "a.png")])[os.fsencode(folder / "a.png")]
    assert state == FileState.of((folder / "a.png").stat())
    assert found == hashlib.sha256(b"alpha").digest()


@pytest.mark.parametrize("name", ["a\0b.png", "half \ud800.png"])
def test_a_path_that_no_file_can_have_is_refused_and_the_rest_goes_on(folder, cache, name):
    samples = [*samples_in(folder), Sample(str(folder / name), name), Sample(name, name)]
    with Memo(cache) as known:
        found = digest_samples(samples, known)
    assert list(found.samples) == samples[:5]
    assert sha256_of(found.samples) == [bytes(row).hex() for row in found.digests]
    assert [each.reason for each in found.refusals] == ["cannot be read: no file can have such a name"] * 2
