import json

import numpy as np
import pytest

from featurecache.classify.evaluation.comparison import compare_heads
from featurecache.classify.evaluation.metrics import score_fully
from featurecache.classify.evaluation.significance import paired_test


def head(y, n_wrong, seed, n_classes=6):
    """Predictions with the first n_wrong of a shuffled y wrong, and probabilities around them."""
    rng = np.random.default_rng(seed)
    predicted = y.copy()
    wrong = rng.permutation(len(y))[:n_wrong]
    predicted[wrong] = (predicted[wrong] + 1) % n_classes
    proba = rng.dirichlet(np.ones(n_classes), len(y)) + 2 * np.eye(n_classes)[predicted]
    return proba / proba.sum(axis=1, keepdims=True), predicted


Y = np.arange(300) % 6
HEADS = {"poor": head(Y, 90, 0), "good": head(Y, 20, 1), "fine": head(Y, 22, 2)}


@pytest.fixture(scope="module")
def compared():
    return compare_heads(Y, HEADS, n_resamples=200)


def test_every_metric_comes_with_an_interval_around_it(compared):
    for name, (proba, predicted) in HEADS.items():
        test = compared.heads[name]["test"]
        expected = score_fully(Y, proba, predicted)
        assert {key: test[key] for key in expected} == expected
        assert set(test["ci"]) == set(expected) >= {"top5_accuracy", "auc"}
        assert test["accuracy_ci"] == test["ci"]["accuracy"]
        for key in set(expected) - {"ece"}:
            low, high = test["ci"][key]
            assert low < expected[key] < high or expected[key] == 1.0 == high


def test_ties_follow_from_the_tests_of_all_pairs(compared):
    assert compared.best == "good"
    assert {name: h["tied_with_best"] for name, h in compared.heads.items()} == {
        "poor": False, "good": True, "fine": True,
    }  # fmt: skip
    assert {name: h["rank"] for name, h in compared.heads.items()} == {"poor": 3, "good": 1, "fine": 1}
    assert [(pair["a"], pair["b"]) for pair in compared.pairs] == [
        ("poor", "good"), ("poor", "fine"), ("good", "fine"),
    ]  # fmt: skip
    first = compared.pairs[0]
    assert first["p"] == paired_test(HEADS["poor"][1] == Y, HEADS["good"][1] == Y)
    assert first["difference"] == pytest.approx(-70 / 300)
    low, high = first["difference_ci"]
    assert low < -70 / 300 < high < 0


def test_all_of_it_is_json(compared):
    text = json.dumps([compared.heads, compared.pairs], allow_nan=False)
    assert json.loads(text)[0]["good"]["by_class"][0]["support"] == 50


def test_a_head_alone_is_the_best_and_has_no_pair():
    alone = compare_heads(Y, {"only": HEADS["good"]}, n_resamples=50)
    assert (alone.best, alone.pairs, alone.heads["only"]["rank"]) == ("only", [], 1)


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="no head"):
        compare_heads(Y, {})


def test_where_every_image_is_a_unit_of_its_own_all_numbers_are_those_without_units():
    alone = compare_heads(Y, HEADS, n_resamples=50)
    assert compare_heads(Y, HEADS, units=np.random.default_rng(0).permutation(300), n_resamples=50) == alone


def test_copies_of_test_images_are_no_further_evidence():
    """Every image six times: intervals and tests are about those of the images once, not sqrt(6) times narrower."""
    rows = np.tile(np.arange(300), 6)
    heads = {name: (proba[rows], predicted[rows]) for name, (proba, predicted) in HEADS.items()}
    once = compare_heads(Y, HEADS, n_resamples=400)
    fooled = compare_heads(Y[rows], heads, n_resamples=400)
    tied = compare_heads(Y[rows], heads, units=rows, n_resamples=400)
    for name in HEADS:
        for key, (low, high) in once.heads[name]["test"]["ci"].items():
            ends = tied.heads[name]["test"]["ci"][key]
            assert ends[1] - ends[0] == pytest.approx(high - low, rel=0.12)
            narrow = fooled.heads[name]["test"]["ci"][key]
            assert key == "ece" or narrow[1] - narrow[0] < 0.6 * (high - low)
        for mine, theirs in zip(tied.heads[name]["by_class"], once.heads[name]["by_class"], strict=True):
            assert mine["recall_ci"] == pytest.approx(theirs["recall_ci"], abs=0.02)
            assert mine["precision_ci"] == pytest.approx(theirs["precision_ci"], abs=0.02)
    for mine, theirs in zip(tied.pairs, once.pairs, strict=True):
        assert mine["p"] == pytest.approx(theirs["p"], rel=1e-9)
        assert mine["difference_ci"] == pytest.approx(theirs["difference_ci"], abs=0.005)


def test_of_a_single_group_nothing_is_known():
    found = compare_heads(Y, HEADS, units=np.zeros(300, dtype=int), n_resamples=50)
    test = found.heads["good"]["test"]
    assert test["ci"]["accuracy"] == test["ci"]["auc"] == test["ci"]["ece"] == [0.0, 1.0]
    assert test["ci"]["brier"] == [0.0, 2.0]
    assert all(pair["p"] == 1.0 and pair["difference_ci"] == [-1.0, 1.0] for pair in found.pairs)
    json.dumps([found.heads, found.pairs], allow_nan=False)
