"""The ensemble: the mean of the heads tied on val, a row like any other, and a head that predicts."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet
import pytest

from featurecache import Predictor, compare_runs, read_arrays, train_heads
from featurecache.base.progress import Silent
from featurecache.cli.main import DONE, run
from featurecache.evaluate.ensemble import rows_of
from featurecache.runs.record_checks import read_results

HEADS = ["knn", "rbf_svm", "centroid", "ridge"]


@pytest.fixture(scope="module")
def images():
    """600 vectors of 3 classes, each on both ends of an axis: nothing linear tells them apart, and neighbours do."""
    random, y = np.random.default_rng(0), np.arange(600) % 3
    ends = random.choice([-3.0, 3.0], size=(600, 1))
    return read_arrays(ends * np.eye(6)[y] + random.normal(size=(600, 6)), y, name="digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images):
    out = tmp_path_factory.mktemp("ensemble") / "run"
    return out, train_heads(images, heads=HEADS, out=out, ensemble=True)


def proba_of(out):
    """{head: probabilities (N, C)} of predictions.parquet."""
    table = pyarrow.parquet.read_table(out / "predictions.parquet")
    heads, proba = np.array(table["head"].to_pylist()), np.array(table["probabilities"].to_pylist())
    return {name: proba[heads == name] for name in set(heads)}


def test_it_is_the_mean_of_the_heads_that_are_tied_on_val(trained):
    out, results = trained
    row = next(head for head in results["heads"] if head["name"] == "ensemble")
    names = [name.removeprefix("vectors/digits--") for name in row["members"]]
    assert set(names) == {"knn", "rbf_svm"}
    assert row["params"] == {"mean_of": ", ".join(names)}
    val = {head["name"]: head["val"]["accuracy"] for head in results["heads"]}
    assert val[names[0]] == max(val[name] for name in HEADS)
    proba = proba_of(out)
    np.testing.assert_allclose(proba["ensemble"], np.mean([proba[name] for name in names], axis=0), atol=1e-6)


def test_it_is_tested_like_the_rest(trained):
    out, results = trained
    assert read_results(out)["heads"] == results["heads"]
    row = next(head for head in results["heads"] if head["name"] == "ensemble")
    assert {"accuracy", "log_loss", "ece", "brier", "ci"} <= set(row["test"])
    assert row["features"] == "vectors/digits"
    assert sum("ensemble" in (pair["a"] + pair["b"]) for pair in results["pairs"]) == len(HEADS)
    assert any(line.split(",")[2] == "ensemble" for line in (out / "leaderboard.csv").read_text().splitlines())
    assert "ensemble" in {head["head"] for head in compare_runs([out])["heads"]}


def test_it_predicts_what_the_table_says(trained, images):
    out, _ = trained
    predictor = Predictor.load(out, head="ensemble")
    assert predictor.name == "ensemble on vectors/digits"
    found = predictor.predict(images)
    table = pyarrow.parquet.read_table(out / "predictions.parquet")
    shown = {
        path: row
        for path, head, row in zip(
            *(table[name].to_pylist() for name in ("path", "head", "probabilities")), strict=True
        )
        if head == "ensemble"
    }
    rows = {sample.name: row for sample, row in zip(found.samples, found.proba, strict=True)}
    for name, row in shown.items():
        np.testing.assert_allclose(rows[name], row, atol=1e-5)


def test_folds_tempering_and_the_command_line(images, tmp_path, capsys):
    X = np.stack([images.vectors.rows[i] for i in range(300)])
    np.savez(tmp_path / "some.npz", features=X, labels=[sample.label for sample in images.samples[:300]])
    words = ["classify", str(tmp_path / "some.npz"), "--heads", "ridge,lda", "--folds", "3", "--calibrate"]
    words += ["--ensemble", "--shots", "1", "--metric", "log_loss", "--out", str(tmp_path / "run")]
    assert run(words) == DONE
    said = capsys.readouterr()
    results = read_results(tmp_path / "run")
    assert results["config"]["ensemble"] is True
    names = {head["name"] for head in results["heads"]}
    if "ensemble" in names:
        assert "mean_of=" in said.out
        assert {row["head"] for row in results["shots"]} == {"ridge", "lda"}
    else:
        assert "There is no ensemble: on val no other head is tied with" in said.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "--calibrate --shots 1 --metric log_loss --ensemble" in page
    assert run(["report", str(tmp_path / "run")]) == DONE


def test_one_head_alone_is_no_ensemble(images, tmp_path):
    class Lines(Silent):
        lines: list[str] = []  # noqa: RUF012

        def say(self, text):
            self.lines.append(text)

    progress = Lines()
    results = train_heads(images, heads=["ridge"], out=tmp_path / "run", ensemble=True, progress=progress)
    assert len(results["heads"]) == 1
    assert "There is no ensemble: on val no other head is tied with vectors/digits--ridge." in progress.lines
    assert json.loads((tmp_path / "run" / "results.json").read_text())["config"]["ensemble"] is True


@pytest.mark.parametrize(("folds", "is_said"), [(None, True), (3, False)])
def test_few_rows_that_decide_who_is_a_member_are_remarked_on(images, tmp_path, caplog, folds, is_said):
    X = np.stack([images.vectors.rows[i] for i in range(90)])
    few = read_arrays(X, [sample.label for sample in images.samples[:90]])
    with caplog.at_level("INFO", logger="featurecache"):
        train_heads(few, heads=["ridge", "lda"], out=tmp_path / "run", ensemble=True, folds=folds)
    assert any("held-out samples say which heads are tied" in line for line in caplog.messages) == is_said


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("too few")])
def test_a_run_is_whole_without_an_ensemble_that_fails_or_is_stopped(images, tmp_path, monkeypatch, error):
    from featurecache.evaluate import ensemble

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ensemble, "hold_out", fail)
    results = train_heads(images, heads=["knn", "centroid"], out=tmp_path / "run", ensemble=True)
    assert {head["name"] for head in read_results(tmp_path / "run")["heads"]} == {"knn", "centroid"}
    assert results["interrupted"] == isinstance(error, KeyboardInterrupt)
    assert [each["head"] for each in results["failed"]] == ([] if results["interrupted"] else ["ensemble"])


def test_rows_that_follow_one_another_are_a_view():
    X = np.arange(10, dtype=np.float32).reshape(5, 2)
    view = rows_of(X, np.array([0, 1, 1, 0, 0], dtype=bool))
    assert view.base is not None
    assert np.shares_memory(view, X)
    np.testing.assert_array_equal(rows_of(X, np.array([1, 0, 1, 0, 0], dtype=bool)), X[[0, 2]])
