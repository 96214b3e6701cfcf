"""The metric that settings are chosen by and heads are ranked by: --metric."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from featurecache import FeatureCacheError, FeatureRequest, Predictor, compare_runs, read_images, train_heads
from featurecache.base.errors import PipelineError
from featurecache.classify.evaluation.criteria import METRICS, preference
from featurecache.classify.evaluation.metrics import log_losses
from featurecache.classify.evaluation.permutation import Answers, permutation_tests
from featurecache.cli.main import DONE, USAGE, run
from featurecache.report.page import render
from featurecache.report.sections.reproduce import commands
from featurecache.runs.head_choice import choose_head, metric_of

PIXELS = ("--backbone", "pixels", "--size", "8")
HEADS = "ridge,lda,centroid,naive_bayes"
OTHERS = METRICS[1:]


@pytest.fixture(scope="module")
def images(tmp_path_factory, digits_folder) -> Path:
    """30 digits 0, 20 digits 1, 12 digits 2: classes of different size."""
    root = tmp_path_factory.mktemp("images") / "uneven"
    shutil.copytree(digits_folder, root)
    for label, n in (("1", 20), ("2", 12)):
        for path in sorted((root / label).iterdir())[n:]:
            path.unlink()
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory, images) -> Path:
    root = tmp_path_factory.mktemp("pixels") / "cache"
    assert run(["extract", str(images), *PIXELS, "--cache", str(root), "--quiet"]) == DONE
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory, images, cache) -> dict[str, Path]:
    """A run by each metric."""
    root = tmp_path_factory.mktemp("runs")
    words = ["classify", str(images), *PIXELS, "--cache", str(cache), "--quiet", "--heads", HEADS]
    for metric in METRICS:
        assert run([*words, "--metric", metric, "--folds", "3", "--out", str(root / metric)]) == DONE
    return {metric: root / metric for metric in METRICS}


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("metric", METRICS)
def test_every_head_keeps_the_setting_that_is_best_by_the_metric(runs, metric):
    for head in results_of(runs[metric])["heads"]:
        rows = [{name[4:]: value for name, value in row.items() if name.startswith("val_")} for row in head["grid"]]
        best = min(rows, key=lambda row: preference(row, metric))
        assert head["val"][metric] == best[metric]
        assert head["grid"][rows.index(best)]["params"] == head["params"]


@pytest.mark.parametrize("metric", METRICS)
def test_heads_stand_in_the_order_of_the_metric_on_test(runs, metric):
    results = results_of(runs[metric])
    order = [preference(head["test"], metric) for head in results["heads"]]
    assert order == sorted(order)
    assert results["config"]["metric"] == metric
    assert results["heads"][0]["p_vs_best"] == 1.0


@pytest.mark.parametrize("metric", OTHERS)
def test_ties_and_pairs_are_by_the_metric(runs, metric):
    results = results_of(runs[metric])
    table = pyarrow.parquet.read_table(runs[metric] / "predictions.parquet").to_pandas()
    answers, truth = {}, None
    for name, rows in table.groupby("head"):
        truth = rows["label"].astype(int).to_numpy()
        answers[name] = Answers(
            rows["predicted"].astype(int).to_numpy(), log_losses(truth, np.stack(rows["probabilities"]))
        )
    for pair in results["pairs"]:
        a, b = (answers[pair[side].split("--")[1]] for side in "ab")
        (p,) = permutation_tests(metric, truth, [a, b], [(0, 1)])
        assert pair["p"] == pytest.approx(p, abs=2e-3)
        assert pair["difference"] == pytest.approx(a.value(metric, truth) - b.value(metric, truth), abs=1e-5)
        low, high = pair["difference_ci"]
        assert low <= pair["difference"] <= high


def test_leaderboard_has_the_metric_on_val_and_its_interval(runs):
    rows = list(csv.DictReader((runs["log_loss"] / "leaderboard.csv").read_text().splitlines()))
    heads = results_of(runs["log_loss"])["heads"]
    assert [float(row["log_loss"]) for row in rows] == sorted(head["test"]["log_loss"] for head in heads)
    for row, head in zip(rows, heads, strict=True):
        assert float(row["val_log_loss"]) == head["val"]["log_loss"]
        assert [float(row["log_loss_ci_low"]), float(row["log_loss_ci_high"])] == head["test"]["ci"]["log_loss"]
    assert "val_accuracy" in rows[0]
    plain = (runs["accuracy"] / "leaderboard.csv").read_text().splitlines()[0]
    assert plain.endswith(",tied_with_best,features")


@pytest.mark.parametrize("metric", METRICS)
def test_predict_takes_the_best_on_val_by_the_metric(runs, metric):
    heads = results_of(runs[metric])["heads"]
    best = min(heads, key=lambda head: preference(head["val"], metric))
    assert Predictor.load(runs[metric]).name.startswith(f"{best['name']} on ")


def test_the_head_of_a_run_is_the_one_with_the_lowest_log_loss_and_of_an_earlier_run_the_most_accurate():
    surer = {"name": "surer", "backbone": "b", "val": {"accuracy": 0.8, "log_loss": 0.2}}
    righter = {"name": "righter", "backbone": "b", "val": {"accuracy": 0.9, "log_loss": 0.4}}
    assert choose_head([righter, surer], None)["name"] == "righter"
    assert choose_head([righter, surer], None, metric="log_loss")["name"] == "surer"
    assert metric_of({"config": {}}) == "accuracy"


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (
            "balanced_accuracy",
            ("3 folds balanced %", "test balanced %", "chosen, ranked and tested by balanced accuracy"),
        ),
        ("macro_f1", ("3 folds macro F1 %", "test macro F1 %", "(paired permutation test of all pairs")),
        ("log_loss", ("3 folds log loss", "test log loss", "tested by log loss, lower is better")),
        ("accuracy", ("3 folds %", "test %", "(McNemar's exact test of all pairs")),
    ],
)
def test_the_table_shows_the_metric_first(runs, metric, said):
    from featurecache.cli.text import leaderboard_text

    text = leaderboard_text(results_of(runs[metric]))
    assert all(each in text for each in said)
    assert ("accuracy %" in text) == (metric != "accuracy")


@pytest.mark.parametrize("metric", METRICS)
def test_the_page_speaks_of_the_metric(runs, metric):
    page = render(runs[metric])
    test = "paired permutation test" if metric != "accuracy" else "McNemar&#39;s exact test"
    assert test in page
    title = {"log_loss": "Log loss", "macro_f1": "Macro F1", "balanced_accuracy": "Balanced accuracy"}.get(
        metric, "Accuracy"
    )
    assert f"<p>{title} on the validation images for every setting" in page
    assert f"test {title.lower() if metric != 'macro_f1' else 'macro F1'}" in page


def test_the_command_to_do_it_again_names_the_metric(runs, parsed):
    for metric in METRICS:
        words = shlex.split(commands(results_of(runs[metric])["config"])[-1])
        assert parsed(words[1:])["metric"] == metric
        assert ("--metric" in words) == (metric != "accuracy")


def test_runs_are_compared_by_their_own_metric_or_by_the_one_that_is_named(runs, tmp_path):
    for metric in METRICS:
        compared = compare_runs([runs[metric]])
        assert compared["metric"] == metric
        heads = results_of(runs[metric])["heads"]
        found = [(row["head"], row["rank"], row["tied_with_best"]) for row in compared["heads"]]
        assert found == [(head["name"], head["rank"], head["tied_with_best"]) for head in heads]
    by_loss = compare_runs([runs["accuracy"]], metric="log_loss")
    assert [row["log_loss"] for row in by_loss["heads"]] == sorted(row["log_loss"] for row in by_loss["heads"])
    assert by_loss["notes"][0] == "accuracy chose its settings by accuracy, and is compared by log loss."
    mixed = compare_runs([runs["log_loss"], runs["macro_f1"]])
    assert mixed["metric"] == "accuracy"
    assert mixed["notes"][0] == "log_loss chose its settings by log loss, and is compared by accuracy."


def test_compare_shows_the_metric(runs, capsys):
    assert run(["compare", str(runs["log_loss"])]) == DONE
    text = capsys.readouterr().out
    assert "test log loss" in text
    assert "(paired permutation test of all pairs, Holm, 5 %)" in text
    assert "by log loss, lower is better" in text
    assert run(["compare", str(runs["log_loss"]), "--metric", "balanced_accuracy"]) == DONE
    assert "test balanced %" in capsys.readouterr().out


def test_splits_are_joined_by_the_metric(images, cache, tmp_path):
    where = {"heads": ["ridge", "lda"], "cache_root": cache, "metric": "log_loss"}
    for seed in (0, 1, 2):
        train_heads(
            read_images(images), [FeatureRequest("pixels", size=8)], out=tmp_path / str(seed), seed=seed, **where
        )
    joined = compare_runs([tmp_path / str(seed) for seed in (0, 1, 2)])["over_splits"]
    assert [row["mean"] for row in joined] == sorted(row["mean"] for row in joined)
    assert all(row["mean_ci"][0] <= row["mean"] <= row["mean_ci"][1] for row in joined)
    assert "accuracy" not in joined[0]


def test_few_labels_choose_by_the_metric(images, cache, tmp_path, monkeypatch):
    from featurecache.classify.selection import few_shot

    seen, sweep = [], few_shot.sweep

    def spy(*rest, metric, **how):
        seen.append(metric)
        return sweep(*rest, metric=metric, **how)

    monkeypatch.setattr(few_shot, "sweep", spy)
    words = ["classify", str(images), *PIXELS, "--cache", str(cache), "--quiet", "--heads", "lda"]
    words += ["--shots", "2", "--repeats", "1", "--metric", "macro_f1", "--out", str(tmp_path / "run")]
    assert run(words) == DONE
    assert seen == ["macro_f1"]


def test_another_metric_is_a_wrong_command(images, cache, tmp_path, capsys):
    words = ["classify", str(images), *PIXELS, "--cache", str(cache), "--out", str(tmp_path / "run")]
    assert run([*words, "--metric", "auc"]) == USAGE
    assert "accuracy" in capsys.readouterr().err
    with pytest.raises(FeatureCacheError, match="There is no metric 'auc': choose from accuracy, balanced"):
        train_heads(read_images(images), [FeatureRequest("pixels", size=8)], metric="auc", out=tmp_path / "run")


@pytest.mark.parametrize("metric", ["auc", 3, None, ["accuracy"]])
def test_a_run_with_another_metric_is_refused(runs, tmp_path, metric):
    from featurecache.runs.record_checks import read_results

    results = results_of(runs["accuracy"])
    results["config"]["metric"] = metric
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(PipelineError, match=r"'config\.metric' is .* and has to be one of accuracy"):
        read_results(tmp_path)
