import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import ttest_1samp
from statsmodels.stats.proportion import proportion_confint

from featurecache.classify.evaluation.learning_curve import EXPONENTS, fit_power_law, forecast, mean_interval

N = np.array([10.0, 20, 40, 80, 160, 320])


def repeats(rng, n, *, a, b, c, noise=0.2, n_repeats=5):
    """Accuracies (R, K) around a - b n^-c, which vary as 1 / sqrt(n)."""
    return a - b * n**-c + rng.normal(size=(n_repeats, len(n))) * noise / np.sqrt(n)


def test_a_power_law_without_noise_is_found_again():
    c = EXPONENTS[100]
    law = fit_power_law(N, (0.95 - 1.4 * N**-c)[None], N)
    assert (law.a[0], law.b[0], law.c[0]) == pytest.approx((0.95, 1.4, c))
    assert law.at(640.0)[0] == pytest.approx(0.95 - 1.4 * 640**-c)


def test_with_noise_the_fit_is_that_of_scipy():
    rng = np.random.default_rng(0)
    accuracy = repeats(rng, N, a=0.9, b=1.2, c=0.5, noise=0.02).mean(axis=0)
    expected, _ = curve_fit(
        lambda n, a, b, c: a - b * n**-c, N, accuracy, p0=(0.9, 1.0, 0.5), sigma=1 / np.sqrt(N), maxfev=10_000
    )
    law = fit_power_law(N, accuracy[None], N)
    assert law.at(640.0)[0] == pytest.approx(expected[0] - expected[1] * 640 ** -expected[2], abs=2e-4)


def test_no_law_goes_above_one_or_falls():
    rising = fit_power_law(N, np.linspace(0.5, 0.999, 6)[None], N)
    assert rising.at(1e9)[0] <= 1.0
    falling = fit_power_law(N, np.linspace(0.9, 0.8, 6)[None], N)
    assert falling.at(640.0)[0] == pytest.approx(falling.at(10.0)[0])
    assert falling.b[0] == 0.0


def test_what_doubling_brings_is_foreseen_with_its_uncertainty_on_made_curves():
    rng = np.random.default_rng(1)
    covered, missed = 0, []
    for _ in range(200):
        law = {"a": rng.uniform(0.8, 1.0), "b": rng.uniform(0.5, 1.5), "c": rng.uniform(0.3, 0.8)}
        truth = law["a"] - law["b"] * 640 ** -law["c"]
        found = forecast(N, repeats(rng, N, **law), n_more=640)
        covered += found.low <= truth <= found.high
        missed.append(found.accuracy - truth)
    assert covered >= 0.88 * 200
    assert np.sqrt(np.mean(np.square(missed))) < 0.015


def test_half_of_the_digits_foretell_what_all_of_them_bring():
    from sklearn.datasets import load_digits

    from featurecache.classify.heads.table import head_grid
    from featurecache.classify.selection.few_shot import draw_shots, try_shots

    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    drawn = draw_shots(y[:1200], [2, 4, 8, 16, 32, 64], 5)
    for name in ("ridge", "knn"):
        few = head_grid(name)[::6]  # the curve is the same, within its noise
        accuracy = try_shots(name, X[:1200], y[:1200], X[1200:], y[1200:], drawn, grid=few).mean(axis=-1)
        found = forecast(np.array([20.0, 40, 80, 160, 320]), accuracy[:, :-1], n_more=640)
        assert found.low <= accuracy[:, -1].mean() <= found.high
        assert found.accuracy == pytest.approx(accuracy[:, -1].mean(), abs=0.02)
        assert found.gain > 0


def test_three_points_foretell_nothing():
    assert forecast(N[:3], np.full((5, 3), 0.8), n_more=80) is None


def test_the_interval_of_a_mean_over_draws_is_students_where_the_test_set_leaves_no_doubt():
    accuracy = np.array([0.7, 0.72, 0.69, 0.75, 0.71])
    expected = ttest_1samp(accuracy, 0).confidence_interval(0.95)
    assert mean_interval(accuracy, 10**9) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("accuracy", [[0.7], [0.7] * 5])
def test_draws_that_do_not_differ_leave_the_doubt_of_the_test_set(accuracy):
    assert mean_interval(np.array(accuracy), 100) == pytest.approx(proportion_confint(70, 100, method="wilson"))


def test_no_mistake_on_a_small_test_set_is_no_certainty():
    low, high = mean_interval(np.ones(5), 14)
    assert (low, high) == pytest.approx(proportion_confint(14, 14, method="wilson"))
    assert low < 0.8


def test_the_interval_of_a_mean_over_draws_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, n_test, covered = 0.8, 60, 0
    for _ in range(2000):
        # Each draw of the labels makes a head of another quality; all are tested on the same images, some of them hard.
        quality = truth + rng.normal(scale=0.03, size=5)
        hard = rng.uniform(size=n_test)
        low, high = mean_interval((hard < quality[:, None]).mean(axis=1), n_test)
        covered += low <= truth <= high
    assert 0.93 < covered / 2000 < 0.995
