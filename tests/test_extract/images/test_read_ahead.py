"""Parts of files are read ahead in order, as many as are allowed; errors and large files wait for their turn."""

from __future__ import annotations

import threading

import pytest

from featurecache.extract.images import read_ahead, sources
from featurecache.extract.images.read_ahead import LEFT, ReadAhead


@pytest.fixture
def files(tmp_path) -> list[str]:
    for i in range(12):
        (tmp_path / f"{i:02d}").write_bytes(bytes([i]) * 10)
    return [str(path) for path in sorted(tmp_path.iterdir())]


def contents(found: list[read_ahead.ReadFile]) -> list[object]:
    return [None if each.file is None else each.file.content for each in found]


def test_every_part_is_given_its_files(files):
    with ReadAhead(n_threads=2, n_ahead=3) as ahead:
        parts = [ahead.expect(files[start : start + 2]) for start in range(0, 12, 2)]
        found = [content for part in parts for content in contents(ahead.take(part))]
    assert found == [bytes([i]) * 10 for i in range(12)]
    assert (ahead._n_bytes, ahead._n_left) == (0, 3)


def test_no_more_parts_are_read_than_are_allowed_before_they_are_taken(files, monkeypatch):
    read, begun = [], threading.Semaphore(0)
    read_hashed = read_ahead.read_hashed

    def noting(path):
        read.append(path)
        begun.release()
        return read_hashed(path)

    monkeypatch.setattr(read_ahead, "read_hashed", noting)
    with ReadAhead(n_threads=4, n_ahead=2) as ahead:
        parts = [ahead.expect([path]) for path in files]
        for _ in range(2):
            assert begun.acquire(timeout=20)
        assert sorted(read) == files[:2]
        ahead.take(parts[0])
        assert begun.acquire(timeout=20)
        assert sorted(read) == files[:3]


def test_what_cannot_be_read_is_an_error_of_its_own_file(files, tmp_path):
    with ReadAhead(n_threads=1, n_ahead=1) as ahead:
        broken, sound = ahead.take(ahead.expect([str(tmp_path / "none"), files[0]]))
    assert isinstance(broken.error, FileNotFoundError)
    assert sound.file is not None
    assert sound.file.content == bytes(10)


def test_large_files_and_those_beyond_the_bytes_are_left_to_be_opened(files, monkeypatch):
    monkeypatch.setattr(sources, "WHOLE_BYTES", 9)
    with ReadAhead(n_threads=1, n_ahead=1) as ahead:
        assert contents(ahead.take(ahead.expect(files[:1]))) == [None]
    monkeypatch.setattr(sources, "WHOLE_BYTES", 10)
    monkeypatch.setattr(read_ahead, "READ_BYTES", 15)
    with ReadAhead(n_threads=1, n_ahead=1) as ahead:
        found = ahead.take(ahead.expect(files[:3]))
    assert contents(found[:2]) == [bytes(10), b"\x01" * 10]
    assert found[2] == LEFT


def test_a_part_that_is_taken_before_its_turn_is_left_to_be_opened(files):
    with ReadAhead(n_threads=1, n_ahead=1) as ahead:
        first, second = ahead.expect(files[:1]), ahead.expect(files[1:3])
        assert ahead.take(second) == [LEFT, LEFT]
        assert contents(ahead.take(first)) == [bytes(10)]


def test_what_there_is_no_memory_for_is_left_to_be_opened_and_ends_nothing(files, monkeypatch):
    read_hashed = read_ahead.read_hashed

    def scarce(path):
        if path == files[1]:
            raise MemoryError
        return read_hashed(path)

    monkeypatch.setattr(read_ahead, "read_hashed", scarce)
    with ReadAhead(n_threads=1, n_ahead=1) as ahead:
        found = ahead.take(ahead.expect(files[:3]))
    assert contents(found) == [bytes(10), None, b"\x02" * 10]
    assert found[1] == LEFT


def test_no_further_file_of_a_part_is_read_once_it_is_over(files, monkeypatch):
    read, begun, goes_on = [], threading.Event(), threading.Event()

    def slow(path):
        read.append(path)
        begun.set()
        goes_on.wait(timeout=20)

    monkeypatch.setattr(read_ahead, "read_hashed", slow)
    ahead = ReadAhead(n_threads=1, n_ahead=1)
    ahead.expect(files)
    assert begun.wait(timeout=20)
    shutdown = ahead._pool.shutdown
    monkeypatch.setattr(ahead._pool, "shutdown", lambda **how: (goes_on.set(), shutdown(**how)))
    with ahead:
        pass
    assert read == files[:1]


def threads_that_read() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read")]


def test_where_reading_is_fast_whoever_takes_a_part_reads_it(files):
    with ReadAhead(n_threads=2, n_ahead=3, slow_s=20.0) as ahead:
        parts = [ahead.expect(files[start : start + 4]) for start in range(0, 12, 4)]
        found = [content for part in parts for content in contents(ahead.take(part))]
        assert threads_that_read() == []
    assert found == [bytes([i]) * 10 for i in range(12)]


def test_a_few_slow_files_in_a_row_begin_the_reading_ahead(files, monkeypatch):
    monkeypatch.setattr(read_ahead, "N_SLOW", 2)
    with ReadAhead(n_threads=2, n_ahead=2, slow_s=1e-9) as ahead:
        parts = [ahead.expect(files[start : start + 4]) for start in range(0, 12, 4)]
        assert threads_that_read() == []
        found = contents(ahead.take(parts[0]))
        assert threads_that_read() != []
        assert [part.files is not None for part in parts] == [False, True, True]
        found += contents(ahead.take(parts[1])) + contents(ahead.take(parts[2]))
    assert found == [bytes([i]) * 10 for i in range(12)]
    assert (ahead._n_bytes, ahead._n_left) == (0, 2)


def test_one_slow_file_alone_does_not(files, monkeypatch):
    seconds = iter([0.0, 9.0, 0.0, 0.0, 9.0, 0.0] * 2)
    monkeypatch.setattr(read_ahead, "N_SLOW", 2)
    monkeypatch.setattr(read_ahead, "_read", lambda path: read_ahead.ReadFile(None, None, next(seconds)))
    with ReadAhead(n_threads=2, n_ahead=2, slow_s=1.0) as ahead:
        for start in range(0, 12, 4):
            ahead.take(ahead.expect(files[start : start + 4]))
        assert threads_that_read() == []


def test_a_part_of_many_bytes_is_read_as_far_as_they_fit(files, monkeypatch):
    monkeypatch.setattr(read_ahead, "PART_BYTES", 15)
    with ReadAhead(n_threads=1, n_ahead=1, slow_s=20.0) as ahead:
        found = ahead.take(ahead.expect(files[:4]))
    assert contents(found) == [bytes(10), b"\x01" * 10, None, None]
    assert found[3] == LEFT
