import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from featurecache.classify.evaluation.bootstrap import bootstrap, draw_counts
from featurecache.classify.evaluation.intervals import (
    calibration_error_interval,
    difference_interval,
    intervals,
    loss_interval,
)
from featurecache.classify.evaluation.metrics import score_fully, share_interval

N_SIMULATIONS = 1000
# A quarter of the usual ones: a spread is then known to 4 %, and coverage to less than the tests allow.
N_RESAMPLES = 250


def drawn(rng, n, *, n_classes, delta, beta):
    """y, probabilities softmax(beta s) and predictions, s normal and the true class's raised by delta.

    At beta = delta the probabilities are those that the classes have given s.
    """
    y = rng.integers(0, n_classes, n)
    scores = rng.normal(size=(n, n_classes))
    scores[np.arange(n), y] += delta
    proba = np.exp(beta * (scores - scores.max(axis=1, keepdims=True)))
    proba /= proba.sum(axis=1, keepdims=True)
    return y, proba.astype(np.float32), proba.argmax(axis=1)


@pytest.mark.parametrize(("n_classes", "delta", "beta", "n"), [(3, 2.0, 2.0, 500), (7, 2.0, 1.0, 400)])
def test_in_1000_simulations_every_interval_covers_the_truth_93_to_97_times_of_100(n_classes, delta, beta, n):
    rng = np.random.default_rng(0)
    how = {"n_classes": n_classes, "delta": delta, "beta": beta}
    truth = score_fully(*drawn(rng, 1_000_000, **how))
    if beta == delta:
        truth["ece"] = 0.0  # calibrated by construction; a sample never says exactly that
    counts = draw_counts(n, n_resamples=N_RESAMPLES)
    covered = dict.fromkeys(truth, 0)
    for _ in range(N_SIMULATIONS):
        y, proba, predicted = drawn(rng, n, **how)
        replicates = bootstrap(y, {"head": (proba, predicted)}, counts)["head"]
        found = intervals(score_fully(y, proba, predicted), replicates, y, predicted)
        for name, (low, high) in found.items():
            covered[name] += low <= truth[name] <= high
    assert set(covered) >= {"accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "ece", "auc"}
    shares = {name: count / N_SIMULATIONS for name, count in covered.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


def test_in_1000_simulations_the_interval_of_a_difference_covers_it():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(N_SIMULATIONS):
        hard = rng.uniform(size=400)
        a, b = rng.uniform(size=400) > 0.3 * hard, rng.uniform(size=400) > 0.5 * hard
        low, high = difference_interval(a, b)
        covered += low <= 0.1 <= high  # the means are 0.85 and 0.75
    assert 0.93 <= covered / N_SIMULATIONS <= 0.97


def test_the_interval_of_accuracy_is_wilsons():
    y = np.array([0, 1] * 50)
    predicted = y.copy()
    predicted[:7] = 1 - predicted[:7]
    proba = np.eye(2)[predicted]
    replicates = bootstrap(y, {"head": (proba, predicted)}, draw_counts(100))["head"]
    found = intervals(score_fully(y, proba, predicted), replicates, y, predicted)
    assert found["accuracy"] == pytest.approx(proportion_confint(93, 100, method="wilson"))


def test_a_head_without_an_error_is_not_said_to_be_perfect():
    y = np.array([0] * 90 + [1] * 10)
    proba = np.eye(2)[y]
    replicates = bootstrap(y, {"head": (proba, y)}, draw_counts(100))["head"]
    found = intervals(score_fully(y, proba, y), replicates, y, y)
    assert found["accuracy"] == pytest.approx(proportion_confint(100, 100, method="wilson"))
    # A mean of two recalls on 90 and 10 images varies as a share of 4 / (1/90 + 1/10) = 36 images.
    assert found["balanced_accuracy"] == pytest.approx(proportion_confint(36, 36, method="wilson"))
    assert found["auc"][0] < 1.0 == found["auc"][1]


def test_the_interval_of_a_loss_is_normal_on_the_scale_of_its_logarithm():
    replicates = np.array([0.9, 1.1, 1.0, 0.8, 1.2])
    low, high = loss_interval(1.0, replicates)
    assert np.log(high) == pytest.approx(norm.ppf(0.975) * replicates.std())
    assert low == pytest.approx(1 / high)
    assert loss_interval(0.0, np.zeros(5)) == (0.0, 0.0)


def test_a_calibration_error_that_chance_explains_may_be_none():
    rng = np.random.default_rng(0)
    replicates, if_calibrated = 0.03 + 0.002 * rng.normal(size=(2, 1000))
    assert calibration_error_interval(0.03, replicates, if_calibrated)[0] == 0.0
    low, high = calibration_error_interval(0.09, replicates + 0.06, if_calibrated)
    assert (low, high) == pytest.approx((0.09 - 1.96 * 0.002, 0.09 + 1.96 * 0.002), abs=1e-3)


def test_a_share_of_a_number_that_is_not_whole_lies_between_its_neighbours():
    assert share_interval(0.9, 100)[0] < share_interval(0.9, 100.5)[0] < share_interval(0.9, 101)[0]


def tango_by_search(only_a, only_b, n):
    """The limits of the paired score interval with the likeliest shares at each difference found by a search."""

    def distance(d):
        def unlikely(q):  # minus the log-likelihood of q images in n for b alone, q + d for a alone
            parts = [(only_a, q + d), (only_b, q), (n - only_a - only_b, 1 - 2 * q - d)]
            return -sum(k * np.log(max(share, 1e-300)) for k, share in parts if k)

        ends = max(0.0, -d), (1 - d) / 2
        q = minimize_scalar(unlikely, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
        return (only_a - only_b - n * d) / np.sqrt(n * (2 * q + d * (1 - d)))

    z, middle = norm.ppf(0.975), (only_a - only_b) / n
    low = brentq(lambda d: distance(d) - z, -0.999, middle)
    return low, brentq(lambda d: distance(d) + z, middle, 0.999)


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(12, 2, 50), (1, 0, 20), (3, 9, 40), (30, 30, 400)])
def test_the_interval_of_a_difference_is_tangos(only_a, only_b, n):
    a = np.arange(n) < only_a
    b = (np.arange(n) >= only_a) & (np.arange(n) < only_a + only_b)
    assert difference_interval(a, b) == pytest.approx(tango_by_search(only_a, only_b, n), abs=1e-5)
    low, high = difference_interval(b, a)
    assert (-high, -low) == pytest.approx(difference_interval(a, b), abs=1e-12)


def test_heads_that_agree_on_all_of_20_images_may_yet_differ():
    z2 = norm.ppf(0.975) ** 2
    same = np.arange(20) < 15
    assert difference_interval(same, same) == pytest.approx((-z2 / (20 + z2), z2 / (20 + z2)))
    assert difference_interval(np.ones(20, dtype=bool), np.zeros(20, dtype=bool))[1] == 1.0


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_with_one_test_image_a_class_balanced_accuracy_is_covered_as_the_accuracy_that_it_is(share):
    rng = np.random.default_rng(0)
    y, counts = np.arange(40), draw_counts(40, n_resamples=200)
    covered = 0
    for _ in range(400):
        predicted = np.where(rng.uniform(size=40) < share, y, (y + 1) % 40)
        proba = np.eye(40)[predicted]
        replicates = bootstrap(y, {"head": (proba, predicted)}, counts)["head"]
        found = intervals(score_fully(y, proba, predicted), replicates, y, predicted)
        assert found["balanced_accuracy"] == pytest.approx(found["accuracy"])
        covered += found["balanced_accuracy"][0] <= share <= found["balanced_accuracy"][1]
    assert 0.93 <= covered / 400 <= 0.98


def test_one_class_of_one_image_widens_the_interval_of_balanced_accuracy():
    y = np.array([0] * 50 + [1] * 50 + [2])
    predicted = y.copy()
    predicted[[*range(10), *range(50, 60)]] = 2
    proba = np.eye(3)[predicted]
    replicates = bootstrap(y, {"head": (proba, predicted)}, draw_counts(101))["head"]
    low, high = intervals(score_fully(y, proba, predicted), replicates, y, predicted)["balanced_accuracy"]
    # By hand: recalls 0.8, 0.8 and 1, mean 0.8667; v = (2 * 0.16 / 49 + 0.8667 * 0.1333) / 9.
    mean = 2.6 / 3
    v = (2 * 0.16 / 49 + mean * (1 - mean)) / 9
    assert (low, high) == pytest.approx(share_interval(mean, mean * (1 - mean) / v))
