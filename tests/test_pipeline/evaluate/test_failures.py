"""A head that fails in any way costs itself alone; what ends a run is named."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest

from featurecache.base.errors import BadLabels, HeadFailed, PipelineError
from featurecache.cli.main import DONE, FAILED, REFUSED, run
from featurecache.evaluate import classify as story
from featurecache.evaluate.failures import check_answers, check_chosen, why_failed
from featurecache.evaluate.finite_numbers import without_nan

# On 90 images it divides by zero and gives NaN for all of them.
NAN_HEAD = "sklearn.semi_supervised.LabelPropagation"


def raising(monkeypatch, error, head="lda"):
    tried = story.try_head

    def until(name, *rest):
        if name == head:
            raise error
        return tried(name, *rest)

    monkeypatch.setattr(story, "try_head", until)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "it needs more memory than there is. --memory lowers what the features take of it."),
        (ValueError("odd"), "it ended with an error of its own, ValueError: odd."),
        (RuntimeError("[enforce fail]\nframe 0"), "it ended with an error of its own, RuntimeError: [enforce fail]."),
        (RecursionError("too deep"), "it ended with an error of its own, RecursionError: too deep."),
        (KeyError("k"), "it ended with an error of its own, KeyError: 'k'."),
        (ZeroDivisionError(), "it ended with an error of its own, ZeroDivisionError."),
        (OSError(errno.EACCES, "Permission denied"), "PermissionError: [Errno 13] Permission denied."),
        (HeadFailed("it cannot."), "it cannot."),
    ],
)
def test_whatever_a_head_raises_costs_itself_alone(
    digits_folder, filled_cache, tmp_path, monkeypatch, capsys, error, why
):
    raising(monkeypatch, error)
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge,lda,centroid"]
    assert run([*command, "--out", str(out)]) == REFUSED
    results = json.loads((out / "results.json").read_text())
    assert {head["name"] for head in results["heads"]} == {"ridge", "centroid"}
    (failed,) = results["failed"]
    assert failed["said"].startswith("lda on efficientnet_lite0 is left out: ")
    assert failed["said"].endswith(why)
    told = capsys.readouterr()
    assert failed["said"] in told.out
    assert "Traceback" not in told.err
    assert "Traceback" in (out / "log.txt").read_text()


@pytest.mark.filterwarnings("ignore")
def test_a_head_whose_probabilities_are_not_numbers_is_left_out(digits_folder, filled_cache, tmp_path):
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", f"{NAN_HEAD},ridge", "--quiet"]
    assert run([*command, "--out", str(out)]) == REFUSED
    results = json.loads((out / "results.json").read_text())
    assert [head["name"] for head in results["heads"]] == ["ridge"]
    assert [failed["head"] for failed in results["failed"]] == [NAN_HEAD]


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (BadLabels("one class"), BadLabels, "one class"),
        (OSError(errno.ENOSPC, "No space left on device"), PipelineError, "There is no room left on the disk"),
        (PipelineError("the place is gone"), PipelineError, "the place is gone"),
    ],
)
def test_what_every_head_would_say_ends_the_run(error, raised, said):
    with pytest.raises(raised, match=said):
        why_failed(error)


def test_a_run_that_cannot_go_on_says_so(digits_folder, filled_cache, tmp_path, monkeypatch, capsys):
    raising(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge,lda", "--quiet"]
    assert run([*command, "--out", str(tmp_path / "run")]) == FAILED
    assert "There is no room left on the disk" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


HALVES = np.full((3, 2), 0.5)


def test_answers_of_the_right_shape_that_sum_to_one_pass():
    check_answers(np.array([0, 1, 1]), HALVES, n=3, n_classes=2)
    check_answers(np.array([0, 1, 1]), HALVES.astype(np.float32) * np.float32(1 + 1e-5), n=3, n_classes=2)


@pytest.mark.parametrize(
    ("predicted", "proba", "said"),
    [
        ([0, 1], HALVES, "labels of shape (2,)"),
        ([0, 1, 1], np.full((3, 3), 1 / 3), "probabilities of shape (3, 3)"),
        ([0, 1, 1], np.where(np.arange(6).reshape(3, 2) == 3, np.nan, 0.5), "those of 1 of 3 images are not"),
        ([0, 1, 1], np.where(np.arange(6).reshape(3, 2) < 2, np.inf, 0.5), "are finite numbers: those of 1 of 3"),
        ([0, 1, 1], HALVES * 1.01, "that sum to one: those of 3 of 3 images are not"),
        ([0, 1, 1], [[1.5, -0.5], [1, 0], [1, 0]], "that sum to one: those of 1 of 3 images are not"),
        ([0, 1, 2], HALVES, "labels that no class has"),
    ],
)
def test_answers_that_are_none_fail_the_head(predicted, proba, said):
    with pytest.raises(HeadFailed) as failed:
        check_answers(np.array(predicted), np.array(proba), n=3, n_classes=2)
    assert said in str(failed.value)


def test_a_head_is_not_chosen_by_what_is_no_number():
    check_chosen({"accuracy": 1.0, "log_loss": 0.1})
    with pytest.raises(HeadFailed, match="its log_loss on val, by which it would be chosen, cannot be computed"):
        check_chosen({"accuracy": 1.0, "log_loss": float("nan")})


def test_numbers_that_are_none_become_null_with_a_warning():
    nan, infinite = float("nan"), float("inf")
    results = {
        "heads": [{"grid": [{"val_log_loss": nan}, {"val_log_loss": 0.5}]}],
        "ci": (0.1, infinite),
        "warnings": [],
    }
    found = without_nan(results)
    assert found["heads"] == [{"grid": [{"val_log_loss": None}, {"val_log_loss": 0.5}]}]
    assert found["ci"] == [0.1, None]
    assert found["warnings"] == ["Not finite, and null in results.json: heads[0].grid[0].val_log_loss, ci[1]."]
    json.dumps(found, allow_nan=False)
    assert without_nan({"heads": [nan] * 5})["warnings"] == [
        "Not finite, and null in results.json: heads[0], heads[1], heads[2] and 2 more."
    ]
    assert without_nan({"heads": [0.5], "warnings": []}) == {"heads": [0.5], "warnings": []}


def test_a_number_that_is_none_does_not_end_the_run(digits_folder, filled_cache, tmp_path, monkeypatch, capsys):
    summarise = story.summarise

    def with_nan(*arguments):
        results = summarise(*arguments)
        results["heads"][0]["grid"][0]["val_log_loss"] = float("nan")
        return results

    monkeypatch.setattr(story, "summarise", with_nan)
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge", "--quiet", "--json"]
    assert run([*command, "--out", str(out)]) == DONE
    written = json.loads((out / "results.json").read_text())
    assert written["heads"][0]["grid"][0]["val_log_loss"] is None
    assert "NaN" not in capsys.readouterr().out
    assert "Not finite" in written["warnings"][-1]
