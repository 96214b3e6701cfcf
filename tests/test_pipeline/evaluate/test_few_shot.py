"""Curves over few labels from the cache, the same samples for every head."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from featurecache.cli.console import Console
from featurecache.cli.text import few_shot_text
from featurecache.evaluate.few_shot import few_shot


@pytest.fixture(scope="module")
def labelled():
    """240 samples of 3 classes, well apart: 150 train, 30 val, 60 test, in shuffled order."""
    rng = np.random.default_rng(0)
    splits = rng.permutation(np.repeat(["train", "val", "test"], [150, 30, 60]))
    return SimpleNamespace(
        y=np.arange(240) % 3,
        classes=["a", "b", "c"],
        units=np.arange(240),
        rows=lambda *names: np.flatnonzero(np.isin(splits, names)),
    )


@pytest.fixture(scope="module")
def found(labelled):
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(240, 12)) + 1.5 * np.eye(12)[labelled.y]).astype(np.float32)
    heads = [
        {"name": name, "features": "net", "test": {"accuracy": 0.9, "accuracy_ci": [0.8, 0.95]}}
        for name in ("centroid", "ridge")
    ]
    features = [SimpleNamespace(name="net", X=X)]
    return few_shot(
        heads, features, labelled, shots=[1, 2, 4, 8], repeats=4, seed=0, progress=Console(quiet=True)
    )  # fmt: skip


def test_a_row_for_each_head_and_number_of_labels_and_one_for_all_of_them(found):
    rows = [row for row in found["shots"] if row["head"] == "ridge"]
    assert [(row["shots"], row["n_train"], row["repeats"]) for row in rows] == [
        (1, 3, 4), (2, 6, 4), (4, 12, 4), (8, 24, 4), (60.0, 180, 1),
    ]  # fmt: skip
    assert all(0 <= row["low"] <= row["mean"] <= row["high"] <= 1 for row in found["shots"])
    assert rows[0]["mean"] < rows[3]["mean"]
    assert len(found["shots"]) == 10
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_doubling_starts_from_what_all_labels_gave(found):
    for row in found["doubling"]:
        assert (row["n_now"], row["n_doubled"], row["now"]) == (180, 360, 0.9)
        assert row["low"] <= row["expected"] <= row["high"]
        assert row["expected"] == pytest.approx(min(1.0, 0.9 + row["gain"]))


def test_more_shots_than_there_are_images_are_left_out_with_a_word(labelled):
    console = Console(quiet=True)
    found = few_shot([], [], labelled, shots=[2, 500], repeats=1, seed=0, progress=console)
    assert found == {"shots": [], "doubling": []}
    assert console.lines == ["No class has 500 training images: that number of shots, and any above it, is left out."]


def test_a_head_that_cannot_learn_from_so_few_labels_is_left_out_with_a_word(labelled):
    X = np.random.default_rng(1).normal(size=(240, 12)).astype(np.float32)
    heads = [
        {"name": name, "features": "net", "test": {"accuracy": 0.9, "accuracy_ci": [0.8, 0.95]}}
        for name in ("sklearn.neighbors.KNeighborsClassifier", "centroid")
    ]
    console = Console(quiet=True)
    features = [SimpleNamespace(name="net", X=X)]
    found = few_shot(heads, features, labelled, shots=[1, 2], repeats=1, seed=0, progress=console)
    assert {row["head"] for row in found["shots"]} == {"centroid"}
    (said,) = console.lines
    assert said.startswith("sklearn.neighbors.KNeighborsClassifier has no curve of few labels: KNeighborsClassifier ")


def test_a_line_for_each_head(found):
    text = few_shot_text(found)
    assert "1 a class" in text
    assert "twice as many, expected" in text
    assert "± " in text
    assert "90.00" in text
    assert few_shot_text({}) == ""


def test_the_table_says_that_one_label_a_class_has_its_setting_chosen_on_two(found):
    assert [row["n_chosen"] for row in found["shots"][:4]] == [6, 6, 12, 24]
    said = "1 a class: settings are chosen on 2 labels a class, since 1 leaves none to hold out; heads train on 1."
    assert few_shot_text(found).endswith(said)
    without = {"shots": [row for row in found["shots"] if row["shots"] != 1], "doubling": []}
    assert "chosen on" not in few_shot_text(without)
    old = {**found, "shots": [{k: v for k, v in row.items() if k != "n_chosen"} for row in found["shots"]]}
    assert "chosen on" not in few_shot_text(old)


def test_intervals_are_those_of_the_groups_of_the_test_images(labelled):
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(240, 12)) + 1.5 * np.eye(12)[labelled.y]).astype(np.float32)
    strange = np.arange(240) % 4 == 0  # a quarter of the groups looks like another class
    X[strange] += 9 * np.eye(12)[(labelled.y[strange] + 1) % 3].astype(np.float32)
    heads = [{"name": "centroid", "features": "net", "test": {"accuracy": 0.9, "accuracy_ci": [0.8, 0.95]}}]
    how = {"shots": [8], "repeats": 1, "seed": 0, "progress": Console(quiet=True)}
    groups = np.arange(240) % 4 + 4 * (np.arange(240) // 40)
    grouped = SimpleNamespace(**{**vars(labelled), "units": np.unique(groups, return_inverse=True)[1]})
    found = [
        few_shot(heads, [SimpleNamespace(name="net", X=X)], each, **how)["shots"][0] for each in (grouped, labelled)
    ]
    wide, narrow = (row["high"] - row["low"] for row in found)
    assert wide > 1.3 * narrow
