"""The learning curve: a power law through accuracies at fewer labels, its forecast and the interval of that.

The error of a classifier falls as a power of the number of labels down to a floor that more labels do not lower (Cortes
et al. 1993, "Learning Curves: Asymptotic Values and Rate of Convergence"; Hestness et al. 2017, "Deep Learning Scaling
is Predictable, Empirically"):

    accuracy(n) = a - b n^-c,    0 <= a <= 1,  b >= 0,  c > 0
"""

from dataclasses import dataclass

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray
from featurecache.classify.evaluation.metrics import share_interval

# Exponents tried: Hestness et al. find 0.07 to 0.35 for deep networks, theory 0.5 to 1 for a head on fixed features.
EXPONENTS = np.linspace(0.05, 1.5, 291)
N_RESAMPLES = 1000
# The law has three numbers.
LEAST_POINTS = 4
LEVEL = 0.95


@dataclass(frozen=True)
class PowerLaw:
    """accuracy(n) = a - b n^-c for each of B fits, (B,) each."""

    a: FloatArray
    b: FloatArray
    c: FloatArray

    def at(self, n: float) -> FloatArray:
        """Return the accuracies at n labels, (B,)."""
        return np.asarray(self.a - self.b * n**-self.c)


@dataclass(frozen=True)
class Forecast:
    """The accuracy to expect at more labels than there are."""

    n: int
    accuracy: float
    low: float
    high: float
    gain: float
    """Its difference to the accuracy at the most labels there are."""


def fit_power_law(n: FloatArray, accuracy: FloatArray, weight: FloatArray) -> PowerLaw:
    """Fit accuracy (B, K) at n (K,) labels by weighted least squares, B fits at once, weight (K,).

    For a given c the law is linear in a and b, which have a closed form with 0 <= a <= 1 and b >= 0; c is the best of
    `EXPONENTS`. All are fitted from the moments of x = n^-c and the accuracies, (B, 291) at once.
    """
    w = weight / weight.sum()
    x = n ** -EXPONENTS[:, None]
    mean_x, mean = x @ w, accuracy @ w
    x, y = x - mean_x[:, None], accuracy - mean[:, None]
    spread_x, spread, both = (x**2) @ w, (y**2) @ w, y @ (w * x).T
    b = np.maximum(-both / spread_x, 0.0)
    a = mean[:, None] + b * mean_x
    above = a > 1.0
    if above.any():
        steepest = ((1.0 - mean[:, None]) * mean_x - both) / (spread_x + mean_x**2)
        b, a = np.where(above, np.maximum(steepest, 0.0), b), np.where(above, 1.0, a)
    off = mean[:, None] + b * mean_x - a
    errors = spread[:, None] + b * (2.0 * both + b * spread_x) + off**2
    best = errors.argmin(axis=1)
    rows = np.arange(len(accuracy))
    return PowerLaw(a[rows, best], b[rows, best], EXPONENTS[best])


def forecast(n: FloatArray, accuracy: FloatArray, *, n_more: int, seed: int = 0) -> Forecast | None:
    """Return the forecast at n_more labels, from accuracy (R, K) of R repeats at n (K,) labels, ascending.

    Accuracies vary between repeats as 1 / n, so n is the weight of a point. The interval is the central 95 % of fits to
    resampled repeats (whole repeats: their samples are nested), each mean moved by as much as the law itself misses the
    points. The estimate is the gain that the law sees from the last n to n_more, on top of the last accuracy. None for
    fewer than four points, which the law would go through wherever they are.
    """
    if len(n) < LEAST_POINTS:
        return None
    last, mean = accuracy[:, -1].mean(), accuracy.mean(axis=0)
    law = fit_power_law(n, mean[None], n)
    missed = mean - np.array([law.at(each)[0] for each in n])
    spread = np.sqrt((n / n.sum()) @ missed**2 * len(n) / (len(n) - LEAST_POINTS + 1))
    rng = np.random.default_rng(seed)
    resampled = accuracy[rng.integers(0, len(accuracy), (N_RESAMPLES, len(accuracy)))].mean(axis=1)
    moved = fit_power_law(n, resampled + spread * rng.normal(size=resampled.shape), n)
    low, high = np.quantile(moved.at(n_more), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    gain = float(law.at(n_more)[0] - law.at(float(n[-1]))[0])
    expected = min(1.0, float(last) + gain)
    return Forecast(n_more, expected, min(float(low), expected), min(1.0, max(float(high), expected)), gain)


def mean_interval(accuracy: FloatArray, n_test: float) -> tuple[float, float]:
    """Return the 95 % interval of the mean of accuracies (R,) from R draws of the labels, on one test set of n_test.

    n_test need not be whole: of images in groups it is their effective number (`classify.evaluation.clustered`).

    Two things are uncertain: which labels were drawn, and which images are in the test set. Wilson's interval [l, u] of
    the mean m says the second alone, and all of it for a single draw; Student's t over the draws, of deviation s, says
    the first. Their variances are recovered from the intervals and added (Zou and Donner 2008, "Construction of
    Confidence Limits about Effect Measures"):

        m - sqrt((m - l)^2 + h^2)  to  m + sqrt((u - m)^2 + h^2),    h = t_{R-1} s / sqrt(R)
    """
    from scipy.stats import t

    mean, n_draws = float(np.mean(accuracy)), len(accuracy)
    low, high = share_interval(mean, n_test)
    if n_draws == 1:
        return low, high
    half = float(t.ppf((1 + LEVEL) / 2, n_draws - 1) * np.std(accuracy, ddof=1) / np.sqrt(n_draws))
    return max(0.0, mean - float(np.hypot(mean - low, half))), min(1.0, mean + float(np.hypot(high - mean, half)))
