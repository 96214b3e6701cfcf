"""A trial says which images end the process that decodes them, in whatever way, and nothing about others."""

from __future__ import annotations

import io
import json
import os
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from featurecache.extract.images import decode
from featurecache.extract.job import trial
from featurecache.extract.job.trial import find_ending

WAYS = {(None, "full"), (8, "0:4095")}
ENDS = "decoding it ends the process ({}); convert it to another format, for example PNG"


def run_instead(monkeypatch, *lines: str, begun: bool = True) -> None:
    """Let a process with these lines stand for the trial; `path` is the image."""
    program = ["import json, os, signal, sys", *(["print('begun', flush=True)"] if begun else [])]
    program += [
        "for path in json.load(sys.stdin):",
        *(f"    {line}" for line in lines),
        "    print('decoded', flush=True)",
    ]
    monkeypatch.setattr(trial, "command", lambda: [sys.executable, "-S", "-c", "\n".join(program)])


def test_every_image_that_ends_the_process_is_found(monkeypatch):
    run_instead(
        monkeypatch,
        "if path.endswith('abort'): os.kill(os.getpid(), signal.SIGABRT)",
        "if path.endswith('exit'): os._exit(1)",
        "if path.endswith('done'): os._exit(0)",
    )
    paths = ["a", "abort", "exit", "b", "done", "c", "exit"]
    assert find_ending(paths, max_pixels=10**6, ways=WAYS) == {
        1: ENDS.format("SIGABRT"),
        2: ENDS.format("exit status 1"),
        4: ENDS.format("exit status 0"),
        6: ENDS.format("exit status 1"),
    }


def test_a_process_that_is_stopped_says_nothing_of_that_image_and_all_of_the_others(monkeypatch):
    run_instead(
        monkeypatch,
        f"if path.endswith('stopped'): os.kill(os.getpid(), {int(signal.SIGTERM)})",
        "if path.endswith('exit'): os._exit(3)",
    )
    found = find_ending(["stopped", "a", "exit", "stopped"], max_pixels=10**6, ways=WAYS)
    assert found == {2: ENDS.format("exit status 3")}


def test_lines_of_a_library_are_not_counted(monkeypatch):
    run_instead(monkeypatch, "print('libx:\\nbad chunk\\n')", "if path == 'exit': os._exit(1)")
    assert find_ending(["a", "b", "exit", "c"], max_pixels=10**6, ways=WAYS) == {2: ENDS.format("exit status 1")}


@pytest.mark.parametrize("command", [["there/is/no/such/program"], None])
def test_a_process_that_cannot_begin_says_nothing(monkeypatch, command):
    run_instead(monkeypatch, "os._exit(1)", begun=False)
    if command:
        monkeypatch.setattr(trial, "command", lambda: command)
    assert find_ending(["a", "b"], max_pixels=10**6, ways=WAYS) == {}


def test_a_trial_decodes_every_image_in_every_way(monkeypatch, tmp_path, capsys):
    decoded = []

    def noting(content, **how):
        decoded.append((how["at_least"], how["levels"]))
        if how["levels"] == "full":
            raise RuntimeError("an error of Python ends no process")

    monkeypatch.setattr(decode, "decode_pixels", noting)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "16 bits.png")
    paths = [str(tmp_path / "16 bits.png"), str(tmp_path / "no such file.png")]
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(paths)))
    trial.main(json.dumps([10**6, sorted(WAYS, key=str)]))
    assert sorted(decoded, key=str) == sorted(WAYS, key=str)
    assert capsys.readouterr().out.split() == ["begun", "decoded", "decoded"]


def test_a_trial_decodes_in_a_process_of_its_own(tmp_path):
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    assert trial._run([os.fspath(tmp_path / "a.png")] * 2, 10**6, WAYS) == (True, 2, 0)
