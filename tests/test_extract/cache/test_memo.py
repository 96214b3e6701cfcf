"""The memo saves work and is never believed against the evidence."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featurecache.base.errors import CacheUnwritable
from featurecache.extract.cache import memo as memo_module
from featurecache.extract.cache.memo import FILE_NAME, RACY_NS, FileState, Memo

LONG_AGO = FileState(10, 1_000_000_000, 1_000_000_000)


def row(number: int, state: FileState = LONG_AGO):
    return (b"/images/%d.png" % number, state, bytes([number % 256]) * 32)


def remember(memo: Memo, *rows, read_ns: int | None = None) -> None:
    memo.remember_digests(rows, read_ns=time.time_ns() if read_ns is None else read_ns)


def test_what_is_remembered_is_known_the_next_time(tmp_path):
    path = b"/images/\xff \n.png"
    with Memo(tmp_path) as memo:
        remember(memo, (path, LONG_AGO, b"d" * 32))
        memo.remember_answer("question", "answer")
        memo.remember_refusals({(b"x" * 32, "key"): "no image"})
    with Memo(tmp_path) as memo:
        assert memo.known_digests([path]) == {path: (LONG_AGO, b"d" * 32)}
        assert memo.answer("question") == "answer"
        assert memo.refusals("key") == {b"x" * 32: "no image"}
        assert memo.refusals("another") == {}


def test_an_empty_memo_knows_nothing(tmp_path):
    with Memo(tmp_path / "new" / "folder") as memo:
        assert list(memo.paths()) == []
        assert memo.answer("question") is None
        assert memo.refusals("key") == {}


def test_the_last_word_counts(tmp_path):
    with Memo(tmp_path) as memo:
        remember(memo, row(1))
        remember(memo, (row(1)[0], LONG_AGO, b"n" * 32))
        memo.remember_answer("question", "old")
        memo.remember_answer("question", "new")
        assert memo.known_digests([row(1)[0]])[row(1)[0]] == (LONG_AGO, b"n" * 32)
        assert memo.answer("question") == "new"


def test_refusals_hold_for_one_cache_and_the_newest_reason_counts(tmp_path):
    with Memo(tmp_path) as memo:
        memo.remember_refusals({(b"a" * 32, "one"): "too large", (b"b" * 32, "two"): "damaged"})
        memo.remember_refusals({(b"a" * 32, "one"): "damaged"})
        assert memo.refusals("one") == {b"a" * 32: "damaged"}
        assert memo.refusals("two") == {b"b" * 32: "damaged"}


@pytest.mark.parametrize("age", ["mtime_ns", "ctime_ns"])
def test_a_file_that_changed_just_before_it_was_read_is_not_remembered(tmp_path, age):
    read = 100 * RACY_NS
    fresh = LONG_AGO._replace(**{age: read - RACY_NS})
    settled = LONG_AGO._replace(**{age: read - RACY_NS - 1})
    with Memo(tmp_path) as memo:
        remember(memo, row(1, fresh), row(2, settled), read_ns=read)
        assert list(memo.paths()) == [row(2)[0]]


def test_a_file_state_is_that_of_the_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    os.utime(path, ns=(7, 11))
    status = path.stat()
    assert FileState.of(status) == (5, 11, status.st_ctime_ns)


@pytest.mark.parametrize("bytes_of", [b"", b"this is no database", b"SQLite format 3\0" + b"\xff" * 500])
def test_what_is_no_database_is_replaced(tmp_path, bytes_of):
    (tmp_path / FILE_NAME).write_bytes(bytes_of)
    with Memo(tmp_path) as memo:
        remember(memo, row(1))
    with Memo(tmp_path) as memo:
        assert len(list(memo.paths())) == 1


def test_a_database_of_another_program_knows_nothing_and_is_survived(tmp_path):
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("CREATE TABLE digests (something TEXT)")
    database.close()
    with Memo(tmp_path) as memo:
        remember(memo, row(1))
        assert list(memo.paths()) == []


def test_no_damage_to_the_file_raises(tmp_path):
    with Memo(tmp_path / "whole") as memo:
        remember(memo, *map(row, range(2000)))
        memo.remember_answer("question", "answer")
        whole = memo.path.read_bytes()
    chance = random.Random(0)
    for trial in range(40):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 50, 2000))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        if trial % 4 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        root = tmp_path / str(trial)
        root.mkdir()
        (root / FILE_NAME).write_bytes(damaged)
        with Memo(root) as memo:
            memo.known_digests([row(n)[0] for n in range(2000)])
            memo.refusals(1)
            memo.answer("question")
            remember(memo, row(7))
            memo.remember_answer("question", "answer")


def test_a_damaged_tree_is_replaced_and_remembers_again(tmp_path):
    with Memo(tmp_path) as memo:
        remember(memo, *map(row, range(2000)))
    damaged = bytearray(memo.path.read_bytes())
    damaged[4096 * 3 :] = b"\xff" * (len(damaged) - 4096 * 3)
    memo.path.write_bytes(damaged)
    with Memo(tmp_path) as memo:
        assert list(memo.paths()) == []
        remember(memo, row(1))
    with Memo(tmp_path) as memo:
        assert len(list(memo.paths())) == 1


def test_only_the_files_that_are_asked_for_are_looked_up(tmp_path):
    with Memo(tmp_path) as memo:
        remember(memo, *map(row, range(3000)))
        for step in (1, 2, 7):
            found = memo.known_digests([row(n)[0] for n in range(0, 6000, step)])
            assert set(found) >= {row(n)[0] for n in range(0, 3000, step)}
            assert all(found[row(n)[0]] == row(n)[1:] for n in range(0, 3000, step))
            assert len(found) <= 2 * 6000 / step
        assert memo.known_digests([]) == {}
        assert memo.known_digests([b"/nowhere"]) == {}


def test_a_block_of_files_is_known_where_the_memo_has_all_of_them_and_none_between(tmp_path):
    """Numbers of any sign, digests of any bytes, and formats of other files in between."""
    states = [FileState(10 + i, i - 2, -(1 << 60) + i) for i in range(5)]
    rows = [(b"/\xff/%d.png" % i, state, bytes([i * 63]) * 32) for i, state in enumerate(states)]
    paths = [path for path, _, _ in rows]
    with Memo(tmp_path) as memo:
        remember(memo, *rows)
        memo.remember_formats([(paths[1], LONG_AGO, b"PNG")], read_ns=time.time_ns())
        assert memo.known_block(paths) == (list(map(tuple, states)), b"".join(digest for _, _, digest in rows))
        assert memo.known_block(paths[2:3]) == ([tuple(states[2])], rows[2][2])
        unknown = ([], paths[::-1], [paths[0], paths[2]], [*paths, b"/\xff/9.png"], [b"/a", *paths], [b"/none"])
        assert [memo.known_block(some) for some in unknown] == [None] * 6
        memo._database.execute("UPDATE digests SET size = 'many' WHERE path = ?", (paths[4],))
        assert memo.known_block(paths) is None
        memo._database.execute("UPDATE digests SET size = NULL WHERE path = ?", (paths[4],))
        assert memo.known_block(paths) is None


def test_a_file_that_is_forgotten_is_unknown(tmp_path):
    with Memo(tmp_path) as memo:
        remember(memo, row(1), row(2))
        memo.forget([row(1)[0], b"/never/seen"])
        assert list(memo.paths()) == [row(2)[0]]


def locked(path):
    """A connection of another program in the middle of a transaction that nobody else may read or write."""
    other = sqlite3.connect(path)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    return contextlib.closing(other)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_memo_that_another_program_has_locked_costs_time_and_ends_nothing(tmp_path, monkeypatch, caplog, read_only):
    monkeypatch.setattr(memo_module, "LOCK_TIMEOUT_S", 0.0)
    with Memo(tmp_path) as memo:
        remember(memo, row(1))
    with locked(memo.path), Memo(tmp_path, read_only=read_only) as second:
        remember(second, row(2))
        assert list(second.paths()) == [row(2)[0]]
    assert f"'{memo.path}' is locked by another program" in caplog.text
    with Memo(tmp_path) as memo:
        assert list(memo.paths()) == [row(1)[0]]


def test_a_lock_that_comes_later_is_waited_for_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(memo_module, "LOCK_TIMEOUT_S", 0.0)
    with Memo(tmp_path) as memo:
        remember(memo, row(1))
        with locked(memo.path):
            remember(memo, row(2))
            remember(memo, row(3))
            assert list(memo.paths()) == [row(3)[0]]
    assert caplog.text.count("is locked by another program") == 1


def test_a_damaged_memo_is_left_as_it_is_by_who_only_reads(tmp_path):
    with Memo(tmp_path) as memo:
        remember(memo, *map(row, range(2000)))
    for damaged in (b"this is no database", memo.path.read_bytes()[: 4096 * 3] + b"\xff" * 4096 * 9):
        memo.path.write_bytes(damaged)
        with Memo(tmp_path, read_only=True) as reader:
            assert reader.known_digests([row(n)[0] for n in range(2000)]) == {}
            assert reader.uses() == []
        assert memo.path.read_bytes() == damaged


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(open_folder, closed_to_us):
    open_folder.chmod(0o500)
    with closed_to_us(), pytest.raises(CacheUnwritable, match=r"cannot be written: .*Choose another with --cache"):
        Memo(open_folder)
    with closed_to_us(), pytest.raises(CacheUnwritable, match="Permission denied"):
        Memo(open_folder / "deeper")
    assert list(open_folder.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_said_in_a_sentence(tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(CacheUnwritable, match="cannot be written"):
        Memo(tmp_path / "cache")


def test_a_memo_that_may_only_be_read_is_read_and_left_as_it_is(open_folder, closed_to_us):
    with Memo(open_folder) as memo:
        remember(memo, row(1))
    memo.path.chmod(0o444)
    open_folder.chmod(0o555)
    before = memo.path.read_bytes()
    with closed_to_us(), Memo(open_folder, read_only=True) as memo:
        remember(memo, row(2))
        assert list(memo.paths()) == [row(1)[0]]
    assert memo.path.read_bytes() == before


def test_reading_where_there_is_no_memo_makes_none(tmp_path):
    with Memo(tmp_path / "cache", read_only=True) as memo:
        remember(memo, row(1))
    assert not (tmp_path / "cache").exists()


def test_many_writers_lose_nothing(tmp_path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[3])\n"
        "from featurecache.extract.cache.memo import Memo, FileState\n"
        "who = int(sys.argv[2])\n"
        "for i in range(20):\n"
        "    with Memo(sys.argv[1]) as memo:\n"
        "        rows = [(b'%d/%d/%d' % (who, i, k), FileState(1, 1, 1), b'd' * 32) for k in range(50)]\n"
        "        memo.remember_digests(rows, read_ns=time.time_ns())\n"
    )
    here = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", code, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(who), here], stderr=subprocess.PIPE) for who in range(4)]
    for writer in writers:
        assert writer.communicate()[1] == b""
        assert writer.returncode == 0
    with Memo(tmp_path) as memo:
        assert len(list(memo.paths())) == 4 * 20 * 50
