"""Progress goes to stderr, is quiet when asked, and every line is kept for log.txt."""

from __future__ import annotations

import io
import sys

import pytest

from featurecache.cli import console as consoles
from featurecache.cli.console import Console, saying_that_it_loads


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_shown_and_kept():
    stream = io.StringIO()
    with Console(stream=stream) as console:
        console.say("one")
        console.say("two")
    assert stream.getvalue() == "one\ntwo\n"
    assert console.lines == ["one", "two"]


def test_quiet_shows_nothing_and_still_keeps_lines():
    stream = io.StringIO()
    with Console(quiet=True, stream=stream) as console:
        console.say("one")
        console.extracting(1, 2, 0)
    assert stream.getvalue() == ""
    assert console.lines == ["one"]


def test_a_bar_shows_what_is_done_of_how_much_and_what_was_refused():
    stream = io.StringIO()
    with Console(stream=stream) as console:
        for done in range(1, 4):
            console.extracting(done, 3, refused=1)
    assert "3/3" in stream.getvalue()
    assert "1 refused" in stream.getvalue()


def test_another_task_gets_a_bar_of_its_own():
    stream = io.StringIO()
    with Console(stream=stream) as console:
        console.digesting(4, 5)
        console.sweeping("ridge", 2, 2, "swept a setting")
    assert "reading" in stream.getvalue()
    assert "ridge" in stream.getvalue()


def test_a_line_said_during_a_bar_stands_above_it_and_the_bar_goes_on():
    stream = io.StringIO()
    with Console(stream=stream) as console:
        for done in range(1, 11):
            console.extracting(done, 10, done // 5)
            if done == 6:
                console.say("2.0 images/s: 8 min left")
    lines = stream.getvalue().replace("\r", "\n").splitlines()
    said = lines.index("2.0 images/s: 8 min left")
    assert not any("10/10" in line for line in lines[:said])
    assert "10/10" in lines[-1]
    assert "2 refused" in lines[-1]
    assert "images/s" in lines[-1]
    assert console.lines == ["2.0 images/s: 8 min left"]


@pytest.mark.parametrize(
    ("stream", "shown", "quiet", "text"),
    [
        (Terminal(), False, False, "loading ...\n"),
        (Terminal(), True, False, "a line\n"),
        (Terminal(), False, True, ""),
        (io.StringIO(), False, False, ""),
    ],
)
def test_a_terminal_that_shows_nothing_at_first_gets_a_line(monkeypatch, stream, shown, quiet, text):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(consoles, "SILENT_SECONDS", 60 if shown else 0.01)
    with saying_that_it_loads(quiet=quiet) as timer:
        if shown:
            Console().say("a line")
            timer.function()  # what it does after its time
        elif timer.is_alive():
            timer.join()
    assert stream.getvalue() == text
