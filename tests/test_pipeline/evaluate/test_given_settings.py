"""Settings of heads that the user gives: --param."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from featurecache import FeatureCacheError, FeatureRequest, read_images, train_heads
from featurecache.cli.main import DONE, USAGE, run
from featurecache.evaluate import classify as evaluation
from featurecache.report.page import render
from featurecache.report.sections.reproduce import commands

PIXELS = ("--backbone", "pixels", "--size", "8")
FOREST = "sklearn.ensemble.RandomForestClassifier"


@pytest.fixture(scope="module")
def words(digits_folder, pixel_cache) -> list[str]:
    return ["classify", str(digits_folder), *PIXELS, "--cache", str(pixel_cache), "--quiet"]


@pytest.fixture(scope="module")
def given(words, tmp_path_factory) -> Path:
    """A run with settings that were given."""
    out = tmp_path_factory.mktemp("given") / "run"
    heads = ["--heads", f"logistic,knn,{FOREST}", "--shots", "2"]
    params = ["--param", "logistic.C=0.1,0.01", "--param", "knn.k=1", "--param", "knn.metric=cosine"]
    params += ["--param", f"{FOREST}.n_estimators=5,10", "--param", f"{FOREST}.max_features=sqrt"]
    assert run([*words, *heads, *params, "--out", str(out)]) == DONE
    return out


def results_of(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def test_what_is_given_is_what_is_tried(given):
    tried = {head["name"]: [row["params"] for row in head["grid"]] for head in results_of(given)["heads"]}
    assert [params["C"] for params in tried["logistic"]] == [0.01, 0.1]
    assert {(params["k"], params["metric"]) for params in tried["knn"]} == {(1, "cosine")}
    assert len(tried["knn"]) == 3
    assert tried[FOREST] == [{"n_estimators": n, "max_features": "sqrt"} for n in (5, 10)]


def test_the_run_says_what_was_given_and_how_to_do_it_again(given, parsed):
    config = json.loads((given / "config.json").read_text())
    assert config["params"] == {
        "logistic": {"C": [0.1, 0.01]},
        "knn": {"k": [1], "metric": ["cosine"]},
        FOREST: {"n_estimators": [5, 10], "max_features": ["sqrt"]},
    }
    assert results_of(given)["config"]["params"] == config["params"]
    line = shlex.split(commands(config)[-1])
    assert list(parsed(line[1:])["param"]) == [
        "logistic.C=0.1,0.01",
        "knn.k=1",
        "knn.metric=cosine",
        f"{FOREST}.n_estimators=5,10",
        f"{FOREST}.max_features=sqrt",
    ]
    assert "Given with the command: logistic.C=0.1,0.01; knn.k=1; knn.metric=cosine;" in render(given)


def test_few_labels_choose_among_what_is_given(words, tmp_path, monkeypatch):
    from featurecache.classify.selection import few_shot

    seen, sweep = [], few_shot.sweep

    def spy(*rest, grid, **how):
        seen.append(grid)
        return sweep(*rest, grid=grid, **how)

    monkeypatch.setattr(few_shot, "sweep", spy)
    out = ["--shots", "2", "--repeats", "1", "--out", str(tmp_path / "run")]
    assert run([*words, "--heads", "centroid", "--param", "centroid.shrink=0,1", *out]) == DONE
    assert seen == [
        [{"metric": metric, "shrink": shrink} for metric in ("euclidean", "cosine") for shrink in (1.0, 0.0)]
    ]


def test_folds_choose_among_what_is_given(words, tmp_path):
    out = ["--folds", "3", "--out", str(tmp_path / "run")]
    assert run([*words, "--heads", "ridge", "--param", "ridge.alpha=1,10", *out]) == DONE
    (head,) = results_of(tmp_path / "run")["heads"]
    assert [row["params"]["alpha"] for row in head["grid"]] == [10.0, 1.0]


def test_a_kept_head_is_trained_again_where_other_values_are_given(words, tmp_path, monkeypatch):
    trained, try_head = [], evaluation.try_head

    def stopping(name, *rest):
        if name == "centroid":
            raise KeyboardInterrupt
        trained.append(name)
        return try_head(name, *rest)

    command = [*words, "--heads", "ridge,lda,centroid", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(evaluation, "try_head", stopping)
    for params in ([], [], ["--param", "ridge.alpha=10"], ["--param", "ridge.alpha=10"], ["--param", "ridge.alpha=1"]):
        assert run([*command, *params]) == 130
    assert trained == ["ridge", "lda", "ridge", "ridge"]


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("ridge.alpha=-1", "ridge: alpha=-1.0 is not possible"),
        ("ridge.alfa=1", "The head 'ridge' has no parameter 'alfa' to give: did you mean alpha?"),
        ("rigde.alpha=1", "Parameters are given for the head 'rigde', which is not among those to train"),
        ("knn.k=1", "Parameters are given for the head 'knn', which is not among those to train: there are ridge"),
        ("ridge", "'ridge' is not HEAD.NAME=VALUE[,VALUE...]"),
    ],
)
def test_what_cannot_be_given_is_a_wrong_command_before_anything_is_done(
    words, digits_folder, tmp_path, capsys, param, said
):
    out = tmp_path / "run"
    assert run([*words, "--heads", "ridge", "--param", param, "--out", str(out)]) == USAGE
    assert said in capsys.readouterr().err
    cache = ["--cache", str(tmp_path / "cache")]
    both = ["run", str(digits_folder), *PIXELS, *cache, "--heads", "ridge", "--param", param, "--out", str(out)]
    assert run([*both, "--quiet"]) == USAGE
    assert said in capsys.readouterr().err
    assert not out.exists()
    assert not (tmp_path / "cache").exists()


def test_settings_are_given_from_python_too(digits_folder, pixel_cache, tmp_path):
    images, features = read_images(digits_folder), [FeatureRequest("pixels", size=8)]
    where = {"heads": ["logistic"], "cache_root": pixel_cache, "out": tmp_path / "run"}
    results = train_heads(images, features, params={"logistic": {"C": [1, 0.1], "max_iter": 300}}, **where)
    assert [row["params"] for row in results["heads"][0]["grid"]] == [{"C": C, "max_iter": 300} for C in (0.1, 1.0)]
    assert results["config"]["params"] == {"logistic": {"C": [1, 0.1], "max_iter": [300]}}
    with pytest.raises(FeatureCacheError, match=r"logistic: C=0\.0 is not possible"):
        train_heads(images, features, params={"logistic": {"C": 0}}, **where)


@pytest.mark.parametrize("params", [[], {"knn": 3}, {"knn": {"k": 3}}, {"knn": {"k": [{}]}}])
def test_a_run_that_says_something_else_was_given_is_refused(given, tmp_path, params):
    from featurecache.base.errors import PipelineError
    from featurecache.runs.record_checks import read_config

    config = json.loads((given / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"params": params}))
    with pytest.raises(PipelineError, match=r"'params' is .* and has to be parameters of heads"):
        read_config(tmp_path)
