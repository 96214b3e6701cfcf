"""Progress goes to stderr, is quiet when asked, and every line is kept for log.txt."""

from __future__ import annotations

import io

from pipeline.console import Console


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
        console.digesting(5, 5)
        console.sweeping("ridge", 2, 2, "swept a setting")
    assert "reading" in stream.getvalue()
    assert "ridge" in stream.getvalue()
