import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import t as student

from featurecache.classify.evaluation.bootstrap import bootstrap, draw_counts
from featurecache.classify.evaluation.clustered import are_own, effective_number, kish_number, student_factor, widening
from featurecache.classify.evaluation.intervals import difference_interval, intervals
from featurecache.classify.evaluation.metrics import accuracy_interval, answers_interval, score_fully
from featurecache.classify.evaluation.significance import paired_test


def test_images_of_their_own_count_as_many_as_they_are():
    values = np.arange(12) % 3 == 0
    assert effective_number(values, None) == effective_number(values, np.arange(12)[::-1]) == 12
    assert are_own(None)
    assert are_own(np.array([2, 0, 1]))
    assert not are_own(np.array([0, 0, 1]))
    assert widening(np.arange(5)) == 1.0


def test_the_variance_is_the_cluster_robust_one_of_statsmodels():
    rng = np.random.default_rng(0)
    units = rng.integers(0, 15, 200)
    x = (rng.uniform(size=200) < rng.beta(2, 1, 15)[units]).astype(float)
    how = {"cov_type": "cluster", "cov_kwds": {"groups": units}}
    fitted = sm.OLS(x, np.ones(200)).fit(**how)
    v = fitted.bse[0] ** 2
    alone = x.var() / 199
    factor = (student.ppf(0.975, 199) / student.ppf(0.975, 14)) ** 2
    assert effective_number(x, units) == pytest.approx(200 * alone / v * factor, rel=1e-9)


def test_units_whose_images_are_all_alike_count_one_each():
    units = np.repeat(np.arange(10), 7)
    right = units % 3 > 0
    factor = student_factor(10, 70)
    assert effective_number(right, units) == pytest.approx(9 * 70 / 69 * factor)
    assert effective_number(np.ones(70), units) == pytest.approx(10 * factor)
    assert kish_number(np.full(70, 1 / 70), units) == pytest.approx(10 * factor)


def test_of_one_unit_nothing_is_known_and_no_number_is_above_that_of_the_images():
    assert effective_number(np.arange(5) > 1, np.zeros(5, dtype=int)) == 0.0
    assert answers_interval(np.arange(5) > 1, np.zeros(5, dtype=int)) == (0.0, 1.0)
    assert widening(np.zeros(5, dtype=int)) == np.inf
    even = np.tile([True, False], 30)
    assert effective_number(even, np.arange(60) // 2) == pytest.approx(60 * student_factor(30, 60))


def test_a_class_of_one_group_hides_no_error_behind_its_size():
    right = np.ones(100, dtype=bool)
    low, _ = answers_interval(right, np.arange(100) // 25)
    assert low < 0.4  # four groups, all right
    assert accuracy_interval(100, 100)[0] > 0.96


@pytest.mark.parametrize(("n_sets", "n_groups", "size"), [
    (400, 40, 25),
    pytest.param(4000, 40, 25, marks=pytest.mark.slow),
    pytest.param(2000, 10, 25, marks=pytest.mark.slow),
])  # fmt: skip
def test_of_groups_that_differ_intervals_cover_and_equal_heads_are_seldom_called_different(n_sets, n_groups, size):
    """40 groups of 25 images, accuracy by group Beta(4, 1), mean 0.8: by images, 61 % and 38 % instead of 95 and 5."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(n_groups), size)
    covered, apart, called = 0, 0, 0
    for _ in range(n_sets):
        a, b = rng.uniform(size=(2, len(units))) < rng.beta(4, 1, (2, n_groups)).repeat(size, axis=1)
        low, high = answers_interval(a, units)
        covered += low <= 0.8 <= high
        low, high = difference_interval(a, b, units)
        apart += low <= 0.0 <= high
        called += paired_test(a, b, units) <= 0.05
    assert 0.93 <= covered / n_sets <= 0.97
    assert 0.93 <= apart / n_sets <= 0.98
    assert called / n_sets <= 0.06


def test_of_groups_that_differ_the_intervals_of_the_other_metrics_cover_too():
    """Three classes whose scores all shift with the group; the truth is that of 20,000 groups."""
    rng = np.random.default_rng(0)

    def drawn(n_groups):
        units = np.repeat(np.arange(n_groups), 20)
        y = rng.integers(0, 3, len(units))
        scores = rng.normal(size=(len(units), 3))
        scores[np.arange(len(y)), y] += 1.5 + rng.normal(size=n_groups)[units]
        proba = np.exp(scores - scores.max(axis=1, keepdims=True))
        proba /= proba.sum(axis=1, keepdims=True)
        return y, proba, proba.argmax(axis=1), units

    truth = score_fully(*drawn(20_000)[:3])
    covered = dict.fromkeys(truth, 0)
    for number in range(300):
        y, proba, predicted, units = drawn(30)
        counts = draw_counts(600, units=units, n_resamples=400, seed=number)
        replicates = bootstrap(y, {"head": (proba, predicted)}, counts)["head"]
        found = intervals(score_fully(y, proba, predicted), replicates, y, predicted, units=units)
        for name, (low, high) in found.items():
            covered[name] += low <= truth[name] <= high
    shares = {name: n / 300 for name, n in covered.items()}
    assert all(0.92 <= share <= 0.985 for share in shares.values()), shares
