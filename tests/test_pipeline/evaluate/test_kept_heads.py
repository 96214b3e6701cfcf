"""What is finished stays finished: a classify that is killed goes on behind its last head, to the same numbers."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from prepared import run_program

from featurecache.cli.main import DONE, INTERRUPTED, run
from featurecache.evaluate import classify as story
from featurecache.evaluate.kept_heads import KeptHeads
from featurecache.report import page

HEADS = "ridge,logistic,lda"
PIXELS = ("--backbone", "pixels", "--size", "8")
SECONDS = ("fit_seconds", "predict_seconds", "seconds", "created")


class Killed(BaseException):
    """Like a kill nothing catches it."""


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """The page takes longer than all heads, and holds none of them; so does the search for what can be freed."""
    monkeypatch.setattr(page, "write_report", lambda run_folder, **_: run_folder)
    monkeypatch.setattr(story, "return_freed_memory", lambda *_: None)


@pytest.fixture(scope="module")
def command(digits_folder, pixel_cache) -> list[str]:
    return [
        "classify",
        str(digits_folder),
        *PIXELS,
        "--cache",
        str(pixel_cache),
        "--heads",
        HEADS,
        "--calibrate",
        "--out",
    ]


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run([*command, str(out), "--quiet"]) == DONE
    return out


def stopping_at(monkeypatch, head: str, how: type[BaseException]) -> list[str]:
    """Let the process end where that head would be trained; the heads that are trained."""
    tried, trained = story.try_head, []

    def until(name, *rest):
        if name == head:
            raise how
        trained.append(name)
        return tried(name, *rest)

    monkeypatch.setattr(story, "try_head", until)
    return trained


def timeless(values):
    """Without what another run takes another time for."""
    if isinstance(values, dict):
        return {key: timeless(each) for key, each in values.items() if key not in SECONDS}
    return [timeless(each) for each in values] if isinstance(values, list) else values


def assert_same(one: Path, other: Path) -> None:
    told = [timeless(json.loads((folder / "results.json").read_text())) for folder in (one, other)]
    assert told[0] == told[1]
    tables = [pyarrow.parquet.read_table(folder / "predictions.parquet") for folder in (one, other)]
    assert tables[0] == tables[1]
    for head in told[0]["heads"]:
        assert (one / head["saved"] / "head.safetensors").read_bytes() == (
            other / head["saved"] / "head.safetensors"
        ).read_bytes()


def test_after_a_kill_only_the_rest_is_trained_and_the_numbers_are_the_same(
    command, undisturbed, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        assert stopping_at(patch, "lda", Killed) == []
        with pytest.raises(Killed):
            story_run([*command, str(out)])
    assert not out.exists()
    (work,) = tmp_path.glob(".run-*")
    assert {path.name for path in (work / "heads").iterdir()} == {
        "pixels--ridge",
        "pixels--logistic",
    }
    trained = stopping_at(monkeypatch, "none", Killed)
    capsys.readouterr()
    assert run([*command, str(out)]) == DONE
    assert "2 heads are there already from a run that was stopped." in capsys.readouterr().err
    assert trained == ["lda"]
    assert_same(out, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def story_run(words: list[str]) -> int:
    """The command itself: what the command line makes of an exception is not asked here."""
    from featurecache.cli.declare import Invocation
    from featurecache.cli.main import invoke, program

    return invoke(program, "featurecache", words, Invocation())


def test_what_ctrl_c_left_is_gone_on_from_and_then_whole(command, undisturbed, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping_at(patch, "lda", KeyboardInterrupt)
        assert run([*command, str(out), "--quiet"]) == INTERRUPTED
    results = json.loads((out / "results.json").read_text())
    assert {head["name"] for head in results["heads"]} == {"ridge", "logistic"}
    assert results["interrupted"] is True
    trained = stopping_at(monkeypatch, "none", Killed)
    assert run([*command, str(out)]) == DONE
    assert "2 heads are there already from a run that was stopped." in capsys.readouterr().err
    assert trained == ["lda"]
    assert_same(out, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_best_of_a_part_of_a_sweep_is_not_gone_on_from(command, undisturbed, tmp_path, monkeypatch):
    from featurecache.cli.console import Console

    told, out = Console.sweeping, tmp_path / "run"

    def until(self, name, done, total, text):
        told(self, name, done, total, text)
        if (name, done) == ("logistic", 3) and not until.done:
            until.done = True
            raise KeyboardInterrupt

    until.done = False
    monkeypatch.setattr(Console, "sweeping", until)
    assert run([*command, str(out), "--quiet"]) == INTERRUPTED
    assert len(json.loads((out / "results.json").read_text())["heads"]) == 2
    trained = stopping_at(monkeypatch, "none", Killed)
    assert run([*command, str(out), "--quiet"]) == DONE
    assert trained == ["logistic", "lda"]
    assert_same(out, undisturbed)


@pytest.mark.parametrize("more", [["--seed", "1"], ["--folds", "3"], ["--memory", "0"], ["--calibrate"], []])
def test_another_command_goes_on_from_nothing_of_it(digits_folder, pixel_cache, tmp_path, monkeypatch, capsys, more):
    out = str(tmp_path / "run")
    words = [
        "classify",
        str(digits_folder),
        *PIXELS,
        "--cache",
        str(pixel_cache),
        "--heads",
        "ridge,centroid",
        "--out",
        out,
    ]
    with monkeypatch.context() as patch:
        stopping_at(patch, "centroid", Killed)
        with pytest.raises(Killed):
            story_run(words)
    trained = stopping_at(monkeypatch, "centroid", Killed)
    with pytest.raises(Killed):
        story_run([*words, *more])
    assert trained == (["ridge"] if more else [])


def test_other_images_go_on_from_nothing_and_other_heads_from_those_they_share(
    images, pixel_cache, tmp_path, monkeypatch
):
    words = ["classify", str(images), *PIXELS, "--cache", str(pixel_cache), "--quiet", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        stopping_at(patch, "lda", Killed)
        with pytest.raises(Killed):
            story_run([*words, "--heads", "ridge,centroid,lda"])
    trained = stopping_at(monkeypatch, "lda", Killed)
    with pytest.raises(Killed):
        story_run([*words, "--heads", "centroid,naive_bayes,lda"])
    assert trained == ["naive_bayes"]
    next((images / "0").iterdir()).unlink()
    with pytest.raises(Killed):
        story_run([*words, "--heads", "centroid,lda"])
    assert trained == ["naive_bayes", "centroid"]


def test_without_a_named_folder_it_is_found_again_by_what_was_asked(
    digits_folder, pixel_cache, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = ["classify", str(digits_folder), *PIXELS, "--cache", str(pixel_cache), "--heads", "ridge,centroid"]
    with monkeypatch.context() as patch:
        stopping_at(patch, "centroid", Killed)
        with pytest.raises(Killed):
            story_run(words)
    trained = stopping_at(monkeypatch, "none", Killed)
    assert run(words) == DONE
    assert "1 head is there already from a run that was stopped." in capsys.readouterr().err
    assert trained == ["centroid"]
    names = {path.name for path in (tmp_path / "data" / "runs").iterdir()}
    assert len(names) == 2, names
    assert "latest" in names


@pytest.mark.parametrize("gone", ["record.json", "proba.npy", "head/head.json", "predicted.npy"])
@pytest.mark.parametrize("how", ["damaged", "removed"])
def test_half_a_head_is_trained_again(digits_folder, pixel_cache, tmp_path, monkeypatch, gone, how):
    words = [
        "classify",
        str(digits_folder),
        *PIXELS,
        "--cache",
        str(pixel_cache),
        "--heads",
        "ridge,centroid",
        "--quiet",
    ]
    words += ["--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        stopping_at(patch, "centroid", Killed)
        with pytest.raises(Killed):
            story_run(words)
    (path,) = tmp_path.glob(f".run-*/heads/*--ridge/{gone}")
    path.unlink() if how == "removed" else path.write_text("{")
    trained = stopping_at(monkeypatch, "none", Killed)
    assert run(words) == DONE
    assert trained == (["centroid"] if (gone, how) == ("head/head.json", "damaged") else ["ridge", "centroid"])


def test_probabilities_leave_memory_and_come_back_to_the_last_bit(digits_folder, pixel_cache, tmp_path, monkeypatch):
    before, after = {}, {}
    keep = KeptHeads.keep

    def kept(self, tried, *, meta):
        before[tried.name] = tried
        after[tried.name] = keep(self, tried, meta=meta)
        return after[tried.name]

    monkeypatch.setattr(KeptHeads, "keep", kept)
    words = [
        "classify",
        str(digits_folder),
        *PIXELS,
        "--cache",
        str(pixel_cache),
        "--heads",
        "ridge,lda,knn",
        "--quiet",
    ]
    assert run([*words, "--out", str(tmp_path / "run")]) == DONE
    for name, tried in after.items():
        assert isinstance(tried.proba, np.memmap)
        assert tried.result.head is None
        assert tried.proba.dtype == before[name].proba.dtype
        assert (tried.proba == before[name].proba).all()
        assert tried.result.grid == before[name].result.grid
        assert tried.result.params == before[name].result.params
    table = pyarrow.parquet.ParquetFile(tmp_path / "run" / "predictions.parquet")
    assert table.num_row_groups == 3
    groups = [set(table.read_row_group(i)["head"].to_pylist()) for i in range(3)]
    assert sorted(groups, key=min) == [{"knn"}, {"lda"}, {"ridge"}]


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_everything_in_a_run_is_as_open_as_the_user_has_it(digits_folder, pixel_cache, tmp_path, mask):
    words = ["classify", str(digits_folder), *PIXELS, "--cache", str(pixel_cache), "--heads", "ridge", "--quiet"]
    before = os.umask(mask)
    try:
        assert run([*words, "--out", str(tmp_path / "run")]) == DONE
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]}
    assert modes == {path: (0o777 if path.is_dir() else 0o666) & ~mask for path in modes}


KILLED = """
import os, signal, sys
import featurecache.{module} as owner
from featurecache.cli.main import run
kept = owner.{name}
def deadly(*args, **kwargs):
    result = kept(*args, **kwargs) if {after} else None
    os.kill(os.getpid(), signal.SIGKILL)
owner.{name} = deadly
run(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("module", "name", "after", "n_heads"),
    [
        ("evaluate.results", "write_predictions", True, 3),
        ("runs.work_folder", "commit", True, 3),
        ("report.page", "write_report", False, 3),
    ],
)
def test_a_real_kill_behind_the_heads_loses_none_of_them(
    command, undisturbed, tmp_path, capsys, module, name, after, n_heads
):
    out = tmp_path / "run"
    program = KILLED.format(module=module, name=name, after=after)
    ended = run_program(program, *command, out, "--quiet")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert run([*command, str(out)]) == DONE
    assert (f"{n_heads} heads are there already" in capsys.readouterr().err) == bool(n_heads)
    assert_same(out, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
