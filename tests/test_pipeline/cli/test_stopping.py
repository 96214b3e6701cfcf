"""SIGTERM keeps what Ctrl-C keeps, from the first instant; a second signal ends at once. With real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from prepared import run_program

from featurecache.base.exits import DONE, INTERRUPTED, TERMINATED
from featurecache.cli import stopping
from featurecache.cli.commands.extract import FEATURES_KEPT
from featurecache.cli.main import run
from featurecache.cli.stopping import Stops, Terminated, stoppable

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

SMALL = ["--backbone", "pixels", "--size", "8", "--batch-size", "2", "--engine", "torch"]
MAIN = """
from featurecache.__main__ import main
sys.exit(main())
"""
STOP_WHEN_20_ARE_DONE = """
import os, signal, sys, time
from featurecache.cli import console
def stop(self, done, total, refused):
    if done == 20:
        os.kill(os.getpid(), signal.{name})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without
console.Console.extracting = stop
"""
STOP_AT_AN_IMPORT = """
import os, signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Stop())
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def ended(program: str, *argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", INTERRUPTED), ("SIGTERM", TERMINATED)])
def test_a_signal_keeps_what_was_extracted_and_says_how_to_go_on(images, tmp_path, capsys, name, code):
    """A real process, a real signal, in the middle of a real extraction."""
    argv = ["extract", images, "--cache", tmp_path / "cache", *SMALL]
    stopped = run_program(STOP_WHEN_20_ARE_DONE.format(name=name) + MAIN, *argv)
    assert stopped.returncode == code
    assert stopped.stderr.endswith(f"\n{FEATURES_KEPT}\n")
    assert "are kept: the same command continues from there" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert run([*map(str, argv)]) == DONE
    finished = capsys.readouterr().out
    n_kept = int(finished.split(" already there")[0].rsplit(", ", 1)[1])
    assert 16 <= n_kept <= 20
    assert f"{90 - n_kept} extracted" in finished


def test_sigterm_keeps_the_heads_that_are_finished(digits_folder, filled_cache, tmp_path):
    program = """
import os, signal, sys
from featurecache.cli import console
def stop(self, head, done, total, text):
    if head == "centroid":
        os.kill(os.getpid(), signal.SIGTERM)
console.Console.sweeping = stop
"""
    heads = ["--heads", "ridge,centroid", "--out", tmp_path / "run"]
    stopped = run_program(program + MAIN, "classify", digits_folder, "--cache", filled_cache, *heads)
    assert stopped.returncode == TERMINATED
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["interrupted"]
    assert "ridge" in [head["name"] for head in results["heads"]]


@pytest.mark.parametrize("module", ["featurecache.cli.main", "featurecache.extract.job.extract", "numpy"])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", INTERRUPTED), ("SIGTERM", TERMINATED)])
def test_a_signal_while_libraries_are_imported_is_one_line(digits_folder, tmp_path, module, name, code):
    program = STOP_AT_AN_IMPORT.format(module=module, name=name) + MAIN
    stopped = ended(program, "extract", digits_folder, "--cache", tmp_path / "cache")
    assert stopped.returncode == code
    assert stopped.stderr == ("\nStopped.\n" if module == "featurecache.cli.main" else f"\n{FEATURES_KEPT}\n")


def test_a_second_signal_ends_at_once(images, tmp_path):
    program = """
from featurecache.cli import stopping
from featurecache.extract.job.writer import Writer
stopping.SAME_WISH_S = -1
def again(self):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
Writer._hand_over = again
"""
    argv = ["extract", images, "--cache", tmp_path / "cache", *SMALL]
    stopped = run_program(STOP_WHEN_20_ARE_DONE.format(name="SIGTERM") + program + MAIN, *argv)
    assert stopped.returncode == INTERRUPTED
    assert FEATURES_KEPT not in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_one_wish_that_comes_twice_is_one(monkeypatch):
    gone: list[int] = []
    monkeypatch.setattr(os, "_exit", gone.append)
    stops = Stops()
    with pytest.raises(Terminated):
        stops.handle(signal.SIGTERM, None)
    monkeypatch.setattr(stopping, "SAME_WISH_S", 1e9)
    stops.handle(signal.SIGTERM, None)
    assert gone == []
    monkeypatch.setattr(stopping, "SAME_WISH_S", -1.0)
    stops.handle(signal.SIGTERM, None)
    assert gone == [TERMINATED]
    stops.done()


def test_what_takes_long_to_stop_says_so_once(monkeypatch, capsys):
    monkeypatch.setattr(stopping, "QUIET_S", 0.01)
    for is_slow in (True, False):
        stops = Stops()
        with pytest.raises(KeyboardInterrupt):
            stops.handle(signal.SIGINT, None)
        if not is_slow:
            stops.done()
        time.sleep(0.2)
        assert capsys.readouterr().err == (f"\n{stopping.STOPPING}\n" if is_slow else "")


def test_a_signal_that_is_ignored_stays_so():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with stoppable():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
