"""Any exception is one sentence on stderr, an exit code and, where nobody expected it, a log file."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from featurecache.base.errors import (
    ClassifyError,
    EngineError,
    EngineFailed,
    ExtractError,
    HeadFailed,
    NoSuchImages,
    PipelineError,
    UnknownHead,
    UnknownWeights,
    UsageError,
)
from featurecache.base.exits import DONE, FAILED, USAGE
from featurecache.cli import unexpected
from featurecache.cli.main import program, run
from featurecache.cli.unexpected import explain, log_places, write_log

VALUES = {"batch_size": None, "memory": None, "cache": Path("data/cache"), "out": None}


def of(kind: type[OSError], number: int, name: str | None = None) -> OSError:
    return kind(number, os.strerror(number), name)


def caught(act) -> BaseException:
    try:
        act()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def nest(depth: int = 0) -> int:
    return nest(depth + 1)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            of(OSError, errno.ENOSPC, "data/cache/x.h5"),
            "The disk is full: 'data/cache/x.h5' could not be written. Free some space, or choose another place with "
            "--cache or --out; what was finished is kept.",
        ),
        (RuntimeError("database or disk is full"), "The disk is full: a file could not be written. Free some space, "),
        (of(OSError, errno.EMFILE, "a.png"), "Too many files are open at once. Allow more with 'ulimit -n 4096'"),
        (
            of(PermissionError, errno.EACCES, "run/results.json"),
            "'run/results.json' may not be read or written (Permission denied). Correct its permissions, or use",
        ),
        (
            of(FileNotFoundError, errno.ENOENT, "photos/a.png"),
            "'photos/a.png' is not there, or not any more. Check the path and run the same command again.",
        ),
        (
            of(OSError, errno.EIO, "photos/a.png"),
            "'photos/a.png' cannot be read or written: Input/output error. Check the disk and run the same command",
        ),
        (
            OSError("Unable to synchronously open file (bad header)\nmore"),
            "a file cannot be read or written: Unable to synchronously open file (bad header). Check the disk and",
        ),
        (
            ModuleNotFoundError("No module named 'plotly'"),
            "A library is missing or broken: No module named 'plotly'. 'f",
        ),
    ],
)
def test_what_the_system_says_is_put_plainly(error, sentence):
    assert explain(error, VALUES).startswith(sentence)


@pytest.mark.parametrize(
    "act",
    [
        lambda: np.empty(1 << 57),
        lambda: torch.empty(1 << 58),
        lambda: (_ for _ in ()).throw(RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")),
        lambda: (_ for _ in ()).throw(MemoryError()),
    ],
)
def test_memory_that_is_not_enough_is_said_to_be_so(act):
    error = caught(act)
    said = explain(error, VALUES)
    assert said.startswith("The memory of the GPU is" if "CUDA" in str(error) else "The memory is not enough (")
    assert said.endswith("Close other programs, or give a smaller --batch-size or --memory.")
    assert "ask for fewer images" in explain(error)


def test_the_cause_of_an_error_is_what_is_said():
    try:
        try:
            raise MemoryError
        except MemoryError as cause:
            raise ValueError("no such array") from cause
    except ValueError as error:
        assert explain(error).startswith("The memory is not enough")


def test_what_is_nested_too_deeply_is_said_to_be_so():
    assert explain(caught(nest)).startswith("Something is nested too deeply to be followed, in cli/test_unexpected")


def test_any_other_error_names_itself_and_the_line():
    said = explain(caught(lambda: read_nothing()))
    line = read_nothing.__code__.co_firstlineno + 1
    assert said == (
        f"An unexpected ValueError in cli/test_unexpected.py:{line}: no rows. Run the same command again; if it "
        "ends here again, report it with the log."
    )


def read_nothing() -> None:
    raise ValueError("no rows.\nfor pages")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (PipelineError, FAILED), (UsageError, USAGE), (ExtractError, FAILED), (NoSuchImages, USAGE),
        (EngineError, USAGE), (EngineFailed, FAILED), (UnknownWeights, USAGE), (ClassifyError, FAILED),
        (UnknownHead, USAGE), (HeadFailed, FAILED),
    ],
)  # fmt: skip
def test_an_error_that_is_raised_on_purpose_carries_its_exit_code(monkeypatch, capsys, kind, code):
    do_instead(monkeypatch, "heads", lambda: raise_this(kind("There is none.")))
    assert run(["heads"]) == code
    assert capsys.readouterr() == ("", "featurecache: There is none.\n")


def raise_this(error: BaseException) -> int:
    raise error


def do_instead(monkeypatch, name, act) -> None:
    """Let a command do something else."""
    monkeypatch.setattr(program.get_command(None, name), "callback", lambda **_: act())


def test_an_unexpected_error_ends_in_one_sentence_and_a_log(monkeypatch, capsys, digits_folder, tmp_path):
    (tmp_path / "cache").mkdir()
    do_instead(monkeypatch, "extract", lambda: raise_this(ValueError("shapes (2,) (3,)")))
    argv = ["extract", str(digits_folder), "--cache", str(tmp_path / "cache")]
    assert run(argv) == FAILED
    out, err = capsys.readouterr()
    (log,) = (tmp_path / "cache").glob("featurecache-error-*.log")
    assert out == ""
    assert err.startswith("featurecache: An unexpected ValueError in cli/declare.py:")
    assert err.endswith(f"report it with the log. Log: '{log}'\n")
    assert "Traceback" not in err
    text = log.read_text()
    assert f"featurecache extract {digits_folder} --cache" in text
    assert f"numpy {np.__version__}" in text
    assert "Traceback (most recent call last)" in text
    assert "ValueError: shapes (2,) (3,)" in text


def test_a_panic_of_a_compiled_library_is_one_too(monkeypatch, capsys, tmp_path):
    class PanicException(BaseException):
        """As Rust's, in safetensors."""

    monkeypatch.setattr(unexpected.tempfile, "gettempdir", lambda: str(tmp_path))
    do_instead(monkeypatch, "heads", lambda: raise_this(PanicException("index out of bounds")))
    assert run(["heads"]) == FAILED
    assert "An unexpected PanicException" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*.log"))) == 1


def test_a_log_that_can_be_written_nowhere_is_no_second_error(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(unexpected.tempfile, "gettempdir", lambda: str(tmp_path / "nowhere"))
    do_instead(monkeypatch, "heads", lambda: raise_this(ValueError("odd")))
    assert run(["heads"]) == FAILED
    assert capsys.readouterr().err.endswith("There is no log: it could be written nowhere.\n")


def test_an_error_while_saying_so_is_still_one_line(monkeypatch, capsys):
    monkeypatch.setattr(unexpected, "write_log", lambda *_: raise_this(MemoryError()))
    do_instead(monkeypatch, "heads", lambda: raise_this(ValueError("odd")))
    assert run(["heads"]) == FAILED
    assert capsys.readouterr().err == "featurecache: ValueError: odd (then MemoryError). Run it again.\n"


def test_logs_go_beside_a_run_and_never_into_it(tmp_path):
    run_folder = tmp_path / "runs" / "one"
    run_folder.mkdir(parents=True)
    values = {"cache": tmp_path / "no cache", "out": run_folder, "run": run_folder}
    assert log_places(values) == [tmp_path / "runs"]
    log = write_log(caught(read_nothing), ["classify"], log_places(values))
    assert log is not None
    assert log.parent == tmp_path / "runs"
    assert list(run_folder.iterdir()) == []


def test_a_name_that_stdout_cannot_show_is_shown_escaped(tmp_path, filled_cache):
    cache = shutil.copytree(filled_cache, tmp_path / "слон")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "featurecache", "cache", "info", "--cache", str(cache)]
    ended = subprocess.run(command, env=ascii_only, capture_output=True, check=False)
    assert ended.returncode == DONE, ended.stderr
    assert rb"\u0441\u043b\u043e\u043d/efficientnet_lite0-" in ended.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_full_disk_below_stdout_is_one_sentence():
    command = [sys.executable, "-m", "featurecache", "heads"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == FAILED
    assert ended.stderr.startswith(b"featurecache: The disk is full: a file could not be written.")
    assert ended.stderr.count(b"\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m featurecache backbones --json | head -n 1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert ended.stdout == "[\n"
    assert ended.stderr == ""


def test_what_a_library_says_when_it_ends_the_process_is_shown(monkeypatch, capsys):
    do_instead(monkeypatch, "heads", lambda: raise_this(SystemExit("this build is too old")))
    assert run(["heads"]) == FAILED
    assert capsys.readouterr().err == "this build is too old\n"
