"""Nothing of the user's is taken for a run, and files of a run are read and written in plain words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featurecache.base.errors import PipelineError, UsageError
from featurecache.extract.images.digests import Refusal
from featurecache.runs.folder import (
    check_fillable,
    check_run_folder,
    check_writable,
    foreign_entries,
    is_run,
    known_files,
    point_latest,
    reserving,
    write_errors,
    write_json,
)
from featurecache.runs.reading import read_json, reading_run


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


def a_run(folder: Path) -> Path:
    """A folder with the results.json of a run."""
    folder.mkdir(parents=True)
    write_json(folder / "results.json", {"format": 1, "heads": []})
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """data/runs of a working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "runs"


def test_latest_leads_to_the_newest_run(runs):
    for name in ("first", "second"):
        a_run(runs / name)
        point_latest(Path("data/runs") / name)
        assert (runs / "latest").resolve() == runs / name
    assert {path.name for path in runs.iterdir()} == {"first", "second", "latest"}


def test_latest_is_moved_on_from_a_run_that_is_gone(runs):
    point_latest(a_run(runs / "first"))
    (runs / "first").rename(runs / "renamed")
    point_latest(a_run(runs / "second"))
    assert (runs / "latest").resolve() == runs / "second"


def test_outside_of_the_runs_nothing_is_called_latest(runs, tmp_path):
    point_latest(a_run(tmp_path / "mine" / "run"))
    point_latest(a_run(runs / "deeper" / "run"))
    assert not list(tmp_path.rglob("latest"))


@pytest.mark.parametrize("target", ["prod", "../../prod", "../elsewhere"])
def test_a_link_called_latest_that_is_not_ours_stays(runs, tmp_path, target):
    a_run(tmp_path / "data" / "elsewhere")
    (tmp_path / "prod").mkdir()
    runs.mkdir(parents=True)
    if target == "prod":
        (runs / "prod").mkdir()
    (runs / "latest").symlink_to(target)
    point_latest(a_run(runs / "run"))
    assert (runs / "latest").readlink() == Path(target)


def test_latest_never_replaces_something_that_is_no_link(runs):
    (runs / "latest").mkdir(parents=True)
    point_latest(a_run(runs / "run"))
    assert not (runs / "latest").is_symlink()


def test_a_folder_of_other_things_is_no_place_for_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"is not empty and not a run \('notes.txt'\). Choose another folder"):
        check_run_folder(tmp_path)


EVERYTHING = (
    *("results.json", "config.json", "splits.csv", "leaderboard.csv", "predictions.parquet", "report.html", "log.txt"),
    *("errors.csv", "audit.json", "audit_near_duplicates.csv", "heads/b@l--h/head.json", "heads/b--h/head.safetensors"),
    *(
        "heads/b--sklearn.tree.Tree/head.skops",
        ".report.html-77",
        ".audit_outliers.csv-123",
        ".writing-0123456789abcdef-report.html",
    ),
)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_text("mine")


def test_a_run_may_be_replaced_with_everything_that_is_written_into_one(tmp_path):
    run = a_run(tmp_path / "run")
    fill(
        run,
        *EVERYTHING,
        ".run-0123456789abcdef/heads/b--h/proba.npy",
        ".DS_Store",
        "lost+found/x",
        ".finetune-0123456789abcdef.pt",
    )
    check_run_folder(run)
    assert set(known_files(run)) == set(EVERYTHING)
    assert foreign_entries(run) == []


@pytest.mark.parametrize(
    "name",
    ["thesis.txt", "src/main.py", "predictions.csv", "heads/mine.txt", "heads/b--h/notes.txt", "heads/old/head.json",
     "heads/b--h/more/head.json", "audit.csv", "x/results.json", ".hidden", ".run-mine", "results.json.bak"],
)  # fmt: skip
def test_a_run_with_anything_else_in_it_is_not_replaced(tmp_path, name):
    run = a_run(tmp_path / "run")
    fill(run, *EVERYTHING, name)
    with pytest.raises(UsageError) as refused:
        check_run_folder(run)
    foreign = foreign_entries(run)
    assert len(foreign) == 1
    assert name.startswith(foreign[0])
    assert f"and what is no run's ('{foreign[0]}'). Move that away, or choose another folder" in str(refused.value)


def test_of_many_entries_in_the_way_the_first_are_named(tmp_path):
    run = a_run(tmp_path / "run")
    fill(run, *"abcde")
    with pytest.raises(UsageError, match=r"\('a', 'b', 'c' and 2 more\)"):
        check_run_folder(run)


def test_links_in_a_run_are_not_the_runs(tmp_path):
    fill(tmp_path / "big", "b--h/head.json")
    run = a_run(tmp_path / "run")
    (run / "heads").symlink_to(tmp_path / "big")
    (run / "log.txt").symlink_to(tmp_path / "mine.txt")
    assert foreign_entries(run) == ["heads", "log.txt"]


@pytest.mark.parametrize(
    "text", ["{}", "[]", "{", '{"format": 2, "heads": []}', '{"format": 1, "scores": []}', "[" * 99999]
)
def test_a_folder_with_another_results_json_is_no_run(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    assert not is_run(tmp_path)
    with pytest.raises(UsageError, match="is not empty and not a run"):
        check_run_folder(tmp_path)


def test_a_link_that_leads_nowhere_is_no_place_for_a_run(tmp_path):
    (tmp_path / "run").symlink_to("nowhere")
    with pytest.raises(UsageError, match="is a link that leads nowhere"):
        check_run_folder(tmp_path / "run")


def test_a_mounted_folder_can_be_written_below_one_that_cannot(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    check_writable(tmp_path / "out")
    with pytest.raises(PipelineError, match=f"'{tmp_path}' may not be written to"):
        check_writable(tmp_path / "new")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) == tmp_path)
    with pytest.raises(PipelineError, match=f"'{tmp_path / 'out'}' may not be written to"):
        check_writable(tmp_path / "out")


def test_a_name_that_is_too_long_is_found_out_before(tmp_path):
    check_run_folder(tmp_path / ("x" * 300))
    with pytest.raises(PipelineError, match="cannot be written"):
        check_writable(tmp_path / ("x" * 300))


def test_damaged_json_is_one_sentence(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(PipelineError, match="cannot be read"):
        read_json(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(PipelineError, match="is not what"):
        read_json(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("h.onnx", "is an exported file, and this needs a run"), ("h.zip", "is a file, not a run")],
)
def test_a_file_in_place_of_a_run_is_one_sentence(tmp_path, name, sentence):
    (tmp_path / name).write_bytes(b"model")
    with pytest.raises(UsageError, match=sentence):
        read_json(tmp_path / name / "results.json")
    with pytest.raises(UsageError, match=sentence), reading_run(tmp_path / name):
        (tmp_path / name / "splits.csv").read_text()


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
