"""Features beyond the budget go to a file and change nothing; an interrupted run keeps the heads that are finished."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest

import featurecache.features.feature_arrays
from featurecache.base import cgroups
from featurecache.base.errors import PipelineError
from featurecache.cli.console import Console
from featurecache.cli.main import DONE, FAILED, INTERRUPTED, REFUSED, run
from featurecache.evaluate import classify as story
from featurecache.features.feature_arrays import FeatureArrays, default_budget
from featurecache.report import page


class Rows:
    """A cache of numbered rows."""

    class spec:  # noqa: N801
        feature_dim = 3

    def stored_order(self, digests):
        return np.arange(len(digests))[::-1]

    def lookup(self, digests):
        return np.repeat(digests[:, :1].astype(np.float32), 3, axis=1)


# The allocator learns that blocks of 31 MB come and go, so that smaller ones lie side by side, between some that stay.
FREED = """
import numpy as np
from featurecache.bench.classify import memory_kib
from featurecache.features.feature_arrays import return_freed_memory
large = np.ones(31 * 2**17)
del large
pairs = [(np.ones(2**19), np.ones(2**14)) for _ in range(40)]
staying = [small for _, small in pairs]
full = memory_kib("RssAnon")
del pairs
kept = memory_kib("RssAnon")
return_freed_memory()
print(full, kept, memory_kib("RssAnon"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_the_allocator_keeps_is_returned_to_the_system():
    found = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    full, kept, after = (int(each) / 1024 for each in found.stdout.split())
    assert full - kept < 40  # of 160 MB
    assert kept - after > 120


def test_features_stay_in_memory_until_the_budget_is_spent(tmp_path, monkeypatch):
    monkeypatch.setattr(featurecache.features.feature_arrays, "BLOCK", 2)
    arrays, digests = FeatureArrays(100, tmp_path), np.arange(5, dtype=np.uint8)[:, None]
    first, second = arrays.load(Rows(), digests), arrays.load(Rows(), digests)
    assert not isinstance(first, np.memmap)
    assert isinstance(second, np.memmap)
    assert (second == first).all()
    assert first[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_the_file_has_no_name_and_leaves_nothing_behind(tmp_path):
    X = FeatureArrays(0, tmp_path).load(Rows(), np.zeros((4, 1), dtype=np.uint8))
    assert X.shape == (4, 3)
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_room_for_the_file_is_one_sentence(tmp_path):
    with pytest.raises(PipelineError) as refused:
        FeatureArrays(0, tmp_path / "nowhere").load(Rows(), np.zeros((4, 1), dtype=np.uint8))
    assert str(refused.value) == (
        f"Features of 0.00 GB are beyond the memory budget and cannot be put into a file in '{tmp_path / 'nowhere'}': "
        "No such file or directory. Make room there, or raise the budget with --memory."
    )


def test_half_of_the_memory_is_the_default():
    assert 0 < default_budget() < 1e15


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """A machine of 64 GB; returns the folder of its control groups, and the process is in /slurm/job_1/step_0."""
    monkeypatch.setattr(featurecache.features.feature_arrays, "_physical_memory", lambda: 64e9)
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")
    (tmp_path / "own").write_text("1:cpu,memory:/slurm/job_1/step_0\n0::/slurm/job_1/step_0\n")
    for root in (tmp_path, tmp_path / "memory"):
        (root / "slurm" / "job_1" / "step_0").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "told", "budget"),
    [
        ("memory.max", "8000000000\n", 4e9),
        ("slurm/job_1/memory.max", "8000000000\n", 4e9),
        ("slurm/job_1/step_0/memory.high", "6000000000\n", 3e9),
        ("memory/memory.limit_in_bytes", "8000000000\n", 4e9),
        ("memory/slurm/job_1/step_0/memory.limit_in_bytes", "8000000000\n", 4e9),
        ("slurm/job_1/memory.max", "max\n", 32e9),
        ("memory/slurm/memory.limit_in_bytes", "9223372036854771712\n", 32e9),
        ("elsewhere", "1", 32e9),
    ],
)
def test_a_limit_of_any_group_that_the_process_is_in_counts(groups, file, told, budget):
    (groups / file).write_text(told)
    assert default_budget() == budget


def test_a_container_that_sees_its_own_group_as_the_root_has_its_limit(groups):
    (groups / "own").write_text("0::/docker/0123456789ab\n")
    (groups / "memory.max").write_text("2000000000\n")
    assert default_budget() == 1e9


def test_a_system_without_sysconf_has_a_budget_too(monkeypatch, tmp_path):
    """As Windows, which tells it in its own way, and others, which do not."""
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(featurecache.features.feature_arrays, "_memory_of_windows", lambda: 16e9)
    assert default_budget() == 8e9
    monkeypatch.undo()
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    monkeypatch.delattr(os, "sysconf")
    assert default_budget() == featurecache.features.feature_arrays.ASSUMED_MEMORY / 2


def test_the_same_heads_come_from_a_file(digits_folder, filled_cache, tmp_path, monkeypatch, capsys):
    """And they say so; what was freed is returned before each head begins, when all are done, and twice after that."""
    told, returned = [], Mock()
    monkeypatch.setattr(story, "return_freed_memory", returned)
    for name, memory in (("file", "0"), ("memory", "1")):
        command = [
            "classify",
            str(digits_folder),
            "--cache",
            str(filled_cache),
            "--heads",
            "logistic,ridge,linear_svm,lda",
        ]
        assert run([*command, "--out", str(tmp_path / name), "--memory", memory]) == DONE
        assert ("MB of features are read from a file, for at most 0.0 MB are held" in capsys.readouterr().err) == (
            name == "file"
        )
        told.append(json.loads((tmp_path / name / "results.json").read_text()))
    assert [head["test"] for head in told[0]["heads"]] == [head["test"] for head in told[1]["heads"]]
    assert told[0]["config"]["memory"] == 0.0
    assert returned.call_count == 2 * (4 + 3)


@pytest.mark.parametrize("text", ["-1", "lots", "inf"])
def test_an_amount_that_is_none_is_a_usage_error(text, digits_folder, capsys):
    assert run(["classify", str(digits_folder), "--memory", text]) == 2
    assert "memory" in capsys.readouterr().err.lower()


def interrupting(monkeypatch, head):
    tried = story.try_head

    def until(name, *rest):
        if name == head:
            raise KeyboardInterrupt
        return tried(name, *rest)

    monkeypatch.setattr(story, "try_head", until)


def test_ctrl_c_keeps_the_heads_that_are_finished(digits_folder, filled_cache, tmp_path, monkeypatch, capsys):
    interrupting(monkeypatch, "knn")
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge,lda,knn,centroid"]
    assert run([*command, "--out", str(out)]) == INTERRUPTED
    results = json.loads((out / "results.json").read_text())
    assert results["interrupted"] is True
    assert {head["name"] for head in results["heads"]} == {"ridge", "lda"}
    assert {path.name for path in (out / "heads").iterdir()} == {"efficientnet_lite0--ridge", "efficientnet_lite0--lda"}
    said = "Stopped: 2 of 4 heads are finished and kept; the run is marked as interrupted."
    assert said in capsys.readouterr().err
    assert said in (out / "log.txt").read_text()


def interrupting_sweeps(monkeypatch, head, after):
    """The user interrupts a head's sweep once, after so many settings."""
    told = Console.sweeping

    def until(self, name, done, total, text):
        told(self, name, done, total, text)
        if (name, done) == (head, after) and not any(line == "interrupted" for line in self.lines):
            self.lines.append("interrupted")
            raise KeyboardInterrupt

    monkeypatch.setattr(Console, "sweeping", until)


@pytest.mark.parametrize(("heads", "kept"), [("ridge,lda,knn", {"ridge", "lda"}), ("ridge,lda", {"ridge", "lda"})])
def test_ctrl_c_in_a_sweep_keeps_the_best_of_the_settings_that_are_through(
    digits_folder, filled_cache, tmp_path, monkeypatch, capsys, heads, kept
):
    interrupting_sweeps(monkeypatch, "lda", 3)
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", heads, "--out", str(out)]
    assert run(command) == INTERRUPTED
    results = json.loads((out / "results.json").read_text())
    assert results["interrupted"] is True
    by_name = {head["name"]: head for head in results["heads"]}
    assert set(by_name) == {path.name.split("--")[1] for path in (out / "heads").iterdir()} == kept
    assert (len(by_name["lda"]["grid"]), by_name["lda"]["grid_size"]) == (3, 15)
    said = capsys.readouterr().err
    assert "lda: Stopped after 3 of 15 settings: the best of those is kept." in said
    stopped = (
        f"Stopped: 1 of {len(heads.split(','))} heads are finished and kept, and of lda the best of what was tried"
    )
    assert stopped in said


def test_a_second_ctrl_c_in_the_refit_leaves_the_heads_before(
    digits_folder, filled_cache, tmp_path, monkeypatch, capsys
):
    from featurecache.classify.heads.lda import LDAHead

    def fit(self, *_, **__):
        raise KeyboardInterrupt

    interrupting_sweeps(monkeypatch, "lda", 3)
    monkeypatch.setattr(LDAHead, "fit", fit)
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge,lda", "--out", str(out)]
    assert run(command) == INTERRUPTED
    assert [head["name"] for head in json.loads((out / "results.json").read_text())["heads"]] == ["ridge"]
    assert "Stopped: 1 of 2 heads are finished and kept" in capsys.readouterr().err


# No image has another within a distance of 1.
LONELY = "sklearn.neighbors.RadiusNeighborsClassifier"


def test_a_head_that_fails_is_told_and_costs_only_itself(digits_folder, filled_cache, tmp_path, monkeypatch, capsys):
    from featurecache.classify.heads.lda import LDAHead

    def unsolvable(*_, **__):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(LDAHead, "try_grid", unsolvable)
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", f"{LONELY},lda,ridge"]
    assert run([*command, "--out", str(out)]) == REFUSED
    told = capsys.readouterr()
    results = json.loads((out / "results.json").read_text())
    assert [head["name"] for head in results["heads"]] == ["ridge"]
    assert [(each["features"], each["head"]) for each in results["failed"]] == [
        ("efficientnet_lite0", LONELY),
        ("efficientnet_lite0", "lda"),
    ]
    assert results["interrupted"] is False
    for said in (
        f"{LONELY} on efficientnet_lite0 is left out: RadiusNeighborsClassifier cannot predict: No neighbors found",
        "lda on efficientnet_lite0 is left out: its equations cannot be solved (Singular matrix).",
    ):
        assert said in told.out
        assert said in told.err
        assert said in (out / "log.txt").read_text()


def test_a_run_without_a_head_that_is_left_has_failed(digits_folder, filled_cache, tmp_path, capsys):
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", LONELY, "--quiet"]
    assert run([*command, "--out", str(tmp_path / "run")]) == FAILED
    assert not (tmp_path / "run").exists()
    assert f"featurecache: No head is left. {LONELY} on efficientnet_lite0 is left out: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("owner", "step", "said"),
    [
        (story, "few_shot", "without the curves of few labels"),
        (page, "write_report", "whole but for its report"),
    ],
)
def test_ctrl_c_after_the_heads_keeps_them_all(
    digits_folder, filled_cache, tmp_path, monkeypatch, capsys, owner, step, said
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, step, interrupted)
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge,lda", "--shots", "1,2"]
    assert run([*command, "--out", str(out), "--repeats", "2"]) == INTERRUPTED
    assert {head["name"] for head in json.loads((out / "results.json").read_text())["heads"]} == {"ridge", "lda"}
    told = capsys.readouterr().err
    assert said in told
    assert (out / "report.html").exists() == (step == "few_shot"), told


def test_a_report_that_cannot_be_written_costs_nothing_else(digits_folder, filled_cache, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "write_report", full)
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge"]
    assert run([*command, "--out", str(tmp_path / "run")]) == DONE
    assert (tmp_path / "run" / "results.json").exists()
    assert "No report: [Errno 28] No space left on device" in capsys.readouterr().err


def test_ctrl_c_before_the_first_head_writes_no_run(digits_folder, filled_cache, tmp_path, monkeypatch, capsys):
    interrupting(monkeypatch, "ridge")
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge", "--quiet"]
    assert run([*command, "--out", str(tmp_path / "run")]) == INTERRUPTED
    assert not (tmp_path / "run").exists()
    assert "Stopped: no run was written. Heads that are finished are kept" in capsys.readouterr().err


def test_the_table_names_the_folds_that_chose(digits_folder, filled_cache, tmp_path, capsys):
    command = [
        "classify",
        str(digits_folder),
        "--cache",
        str(filled_cache),
        "--heads",
        "lda",
        "--folds",
        "3",
        "--quiet",
    ]
    assert run([*command, "--out", str(tmp_path / "run")]) == DONE
    heading = capsys.readouterr().out.splitlines()[2]
    assert "chosen by 3 folds" in heading
    assert "3 folds %" in heading
    assert " val" not in heading
