"""A run folder is whole or not there, and nothing of the user's is ever replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extract.digests import Refusal
from pipeline.errors import PipelineError, UsageError
from pipeline.rundir import (
    check_fillable,
    check_run_folder,
    check_writable,
    point_latest,
    read_json,
    reading_run,
    reserving,
    write_errors,
    write_json,
    writing_run,
)


def test_a_run_appears_under_its_name_only_when_it_is_complete(tmp_path):
    with writing_run(tmp_path / "run") as folder:
        write_json(folder / "results.json", {"format": 1})
        assert not (tmp_path / "run").exists()
    assert read_json(tmp_path / "run" / "results.json") == {"format": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failing_run_leaves_nothing_and_keeps_the_older_one(tmp_path):
    with writing_run(tmp_path / "run") as folder:
        write_json(folder / "results.json", {"format": 1})
    with pytest.raises(KeyboardInterrupt), writing_run(tmp_path / "run") as folder:
        write_json(folder / "results.json", {"format": 2})
        raise KeyboardInterrupt
    assert read_json(tmp_path / "run" / "results.json") == {"format": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_new_run_replaces_the_older_one_of_the_same_name(tmp_path):
    for version in (1, 2):
        with writing_run(tmp_path / "run") as folder:
            write_json(folder / "results.json", {"format": version})
    assert read_json(tmp_path / "run" / "results.json") == {"format": 2}


@pytest.mark.parametrize("n_renames", [0, 1])
def test_an_interrupt_between_the_two_renames_puts_the_older_run_back(tmp_path, monkeypatch, n_renames):
    with writing_run(tmp_path / "run") as folder:
        write_json(folder / "results.json", {"format": 1})
    rename, done = Path.rename, []

    def interrupted(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == n_renames + 1:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), writing_run(tmp_path / "run") as folder:
        write_json(folder / "results.json", {"format": 2})
    assert read_json(tmp_path / "run" / "results.json") == {"format": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_runs_at_the_same_time_get_names_of_their_own(tmp_path):
    (tmp_path / "runs" / "digits-3").mkdir(parents=True)
    wanted = tmp_path / "runs" / "digits"
    with reserving(wanted) as first, reserving(wanted) as second, reserving(wanted) as third:
        assert [first.name, second.name, third.name] == ["digits", "digits-2", "digits-4"]
    assert [path.name for path in wanted.parent.iterdir()] == ["digits-3"]


def test_a_name_is_not_reserved_in_a_file(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PipelineError, match="cannot be written"), reserving(tmp_path / "file" / "run"):
        pass


def test_looking_whether_a_place_can_be_written_makes_nothing(tmp_path):
    check_writable(tmp_path / "runs" / "digits")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PipelineError, match="is not a folder"):
        check_writable(tmp_path / "file" / "runs" / "digits")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_can_be_filled_where_it_is_or_can_be_made(tmp_path):
    check_fillable(tmp_path)
    check_fillable(tmp_path / "new" / "deeper")
    (tmp_path / "file").write_text("in the way")
    for place in ("file", "file/deeper"):
        with pytest.raises(PipelineError, match=f"The folder '{tmp_path / place}' cannot be written"):
            check_fillable(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_run_is_called_latest(tmp_path):
    with pytest.raises(UsageError, match="the link that leads to the newest run"):
        check_run_folder(tmp_path / "latest")


def test_a_full_or_locked_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PipelineError, match="cannot be written"), writing_run(tmp_path / "file" / "run"):
        pass


def test_latest_leads_to_the_newest_run(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        point_latest(tmp_path / name)
    assert (tmp_path / "latest").resolve() == (tmp_path / "second").resolve()


def test_latest_never_replaces_something_that_is_no_link(tmp_path):
    (tmp_path / "latest").mkdir()
    (tmp_path / "run").mkdir()
    point_latest(tmp_path / "run")
    assert not (tmp_path / "latest").is_symlink()


def test_a_folder_of_other_things_is_no_place_for_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and not a run"):
        check_run_folder(tmp_path)


def test_damaged_json_is_one_sentence(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(PipelineError, match="cannot be read"):
        read_json(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(PipelineError, match="is not what"):
        read_json(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda: {}["heads"], "KeyError: 'heads'"),
        (lambda: [][0], "IndexError: list index out of range"),
        (lambda: None.get("x"), "AttributeError: 'NoneType' object has no attribute 'get'"),
        (lambda: b"\xff".decode(), "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0"),
    ],
)
def test_whatever_a_damaged_run_makes_a_reader_stumble_over_is_one_sentence(tmp_path, read, reason):
    with pytest.raises(PipelineError) as damaged, reading_run(tmp_path):
        read()
    said = str(damaged.value)
    assert said.startswith(f"The run '{tmp_path}' is not whole, or of an older version ({reason}")
    assert said.endswith("): classify again.")


def test_what_is_said_in_words_passes_a_reader_of_runs(tmp_path):
    with pytest.raises(UsageError, match="is not a run"), reading_run(tmp_path):
        read_json(tmp_path / "results.json")


def test_names_that_are_not_utf8_are_written_escaped(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    write_errors(tmp_path / "errors.csv", [Refusal(name, "00", "empty\nfile")])
    assert (tmp_path / "errors.csv").read_text().splitlines()[1] == r"caf\udce9.png,00,empty\nfile"
    write_json(tmp_path / "x.json", {"name": name})
    assert json.loads((tmp_path / "x.json").read_text())["name"]


def test_no_errors_means_no_errors_file(tmp_path: Path):
    write_errors(tmp_path / "errors.csv", [Refusal("a", "b", "c")])
    write_errors(tmp_path / "errors.csv", [])
    assert not (tmp_path / "errors.csv").exists()
