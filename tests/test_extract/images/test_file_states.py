"""The state of every file is that of `os.stat`, however many threads ask for it."""

from __future__ import annotations

import itertools
import os
import threading

import pytest

from featurecache.extract.images import file_states
from featurecache.extract.images.file_states import StateReader, read_states

N = 40


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[bytes]:
    """Paths of 40 files of different sizes."""
    root = tmp_path_factory.mktemp("files")
    for i in range(N):
        (root / f"{i:02d}").write_bytes(b"x" * i)
    return [os.fsencode(root / f"{i:02d}") for i in range(N)]


@pytest.fixture
def several_kinds(files) -> list[bytes]:
    """The same with a file that is not there, a folder, and a name that is too long."""
    return [*files[:20], files[0] + b" gone", os.path.dirname(files[0]), *files[20:], files[0] + b"x" * 300]


def kinds(reasons):
    return {i: type(reason) for i, reason in reasons.items()}


def test_reasons_hold_no_frames(several_kinds):
    _, reasons = read_states(several_kinds)
    assert [reason.__traceback__ for reason in reasons.values() if reason is not None] == [None, None]


@pytest.mark.parametrize("slow", [-1.0, 1e9], ids=["threads", "one after another"])
def test_states_and_reasons_are_those_of_each_file(files, several_kinds, monkeypatch, slow):
    monkeypatch.setattr(file_states, "SLOW_S", slow)
    with StateReader() as reader:
        for _ in range(2):
            states, reasons = reader.read(files)
            assert states == [read_states([path])[0][0] for path in files]
            assert [state and state[0] for state in states] == list(range(N))
            assert reasons == {}
            states, reasons = reader.read(several_kinds)
            assert kinds(reasons) == {20: FileNotFoundError, 21: type(None), N + 2: OSError}
            assert [i for i, state in enumerate(states) if state is None] == sorted(reasons)
            assert [state for state in states if state] == [read_states([path])[0][0] for path in files]
        assert reader.read([]) == ([], {})


def test_threads_share_slow_calls_only(files, monkeypatch):
    who: set[str] = set()
    ticks, stat_of = itertools.count(), os.stat

    def watched(path):
        who.add(threading.current_thread().name)
        return stat_of(path)

    monkeypatch.setattr(file_states.os, "stat", watched)
    with StateReader() as reader:
        for seconds in (1.0, 0.0):
            who.clear()
            monkeypatch.setattr(file_states.time, "perf_counter", lambda each=seconds: each * next(ticks))
            reader.read(files)
            assert "MainThread" in who
            assert any(name.startswith("stat") for name in who) == bool(seconds)
