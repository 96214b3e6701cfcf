"""Ridge regression on the class signs: every strength, and every row left out, from one eigendecomposition."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import working_dtype
from featurecache.classify.arrays.blocks import Rows, to_numpy
from featurecache.classify.heads.linear import LinearHead
from featurecache.classify.heads.parameters import NOT_NEGATIVE, POSITIVE, Allowed, check_parameters
from featurecache.classify.heads.validation import begin_fit, row_weights
from featurecache.classify.solvers.covariance import Spectrum, spectra
from featurecache.classify.solvers.linear.regularization_path import Optimum

# Rows turned at a time: their scores for 45 strengths and ten classes are 4 MB.
BLOCK = 2048
# A row with less of 1 - h has its score taken in float64: in float32 it would have lost three of seven digits.
LEAST_REST = 1e-2


class RidgeHead(LinearHead):
    """Least squares from standardised features to +1 for the true class and -1 for the others.

        minimise  sum_i w_i |W z_i + b - t_i|^2  +  alpha |W|^2,    solved by    W^T = V (energy + alpha)^-1 V^T Z^T T

    with the spectrum of the centred rows (Hoerl and Kennard 1970; the problem of scikit-learn's RidgeClassifier). The
    scores approximate signs, not log odds: see `temperature` in `ScoredHead`. `leave_one_out` judges any number of
    strengths by all rows at once.
    """

    allowed: ClassVar[Allowed] = {"alpha": NOT_NEGATIVE, "temperature": POSITIVE}

    def __init__(
        self,
        alpha: float = 1000.0,
        *,
        class_weight: str | Mapping[Any, float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.alpha = alpha
        self.class_weight = class_weight
        self.temperature = temperature

    @classmethod
    def _optima(
        cls, heads: Sequence[Self], rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int
    ) -> Iterator[Optimum]:
        rounds = [(spectrum, *_moments(spectrum)) for spectrum in spectra(rows, codes, weights, n_classes)]
        for setting, head in enumerate(heads):
            for number, (spectrum, moments, target) in enumerate(rounds):
                W = (spectrum.basis @ (moments / _divisor(spectrum, head.alpha)[:, None])).T
                yield Optimum(setting, number, W, target - W @ spectrum.mean, 1, 0.0, 0.0, "")


@dataclass(frozen=True)
class LeaveOneOut:
    """What ridge says about every row when it is trained on all the others, for G strengths."""

    alphas: FloatArray
    accuracy: FloatArray
    """Share of rows predicted right, by weight, (G,)."""
    error: FloatArray
    """Mean squared error of the C scores against the signs, by weight, (G,)."""
    predicted: AnyArray
    """Labels (G, N)."""

    def best(self) -> float:
        """Return the most accurate strength; of equals the one with the smallest squared error."""
        return float(self.alphas[np.lexsort((self.error, -self.accuracy))[0]])


def leave_one_out(
    alphas: Sequence[float],
    X: FloatArray,
    y: AnyArray,
    *,
    class_weight: str | Mapping[Any, float] | None = None,
    sample_weight: FloatArray | None = None,
) -> LeaveOneOut:
    """Return the leave-one-out predictions of RidgeHead for every strength, exactly and without fitting N heads.

        t_i - (t_i - s_i) / (1 - h_i),    h_i = w_i (1 / sum w + sum_j u_ij^2 / (energy_j + alpha)),    U = (Z - m) V

    s_i being the score of the fit on all rows (Allen 1974; Golub, Heath and Wahba 1979). The standardisation and the
    class weights are those of all rows. X (N, D), y (N,), sample_weight (N,). Raises ValueError as `fit` does.
    """
    for alpha in alphas:
        check_parameters(RidgeHead(alpha))
    head = RidgeHead(class_weight=class_weight)
    X, codes = begin_fit(head, X, y)
    own = row_weights(None, head.classes_, codes, sample_weight)
    weights = row_weights(class_weight, head.classes_, codes, sample_weight)
    rows, strengths = Rows(X, own[None]), np.asarray(alphas, dtype=np.float64)
    spectrum = spectra(rows, codes, weights[None], len(head.classes_))[0]
    quick, exact = (_LeftOut(spectrum, strengths, dtype) for dtype in (working_dtype(X), np.float64))
    predicted, right, error = np.zeros((len(codes), len(strengths)), dtype=int), 0.0, 0.0
    for start in range(0, len(codes), BLOCK):
        here = np.arange(start, min(start + BLOCK, len(codes)))
        block = to_numpy(rows.standardised(here, 0))
        signs = np.where(codes[here, None] == np.arange(len(head.classes_)), 1.0, -1.0).astype(block.dtype)
        scores, rest = quick.scores(block, signs, weights[here])
        near = np.flatnonzero(rest < LEAST_REST)
        scores[near] = exact.scores(block[near].astype(np.float64), signs[near], weights[here[near]])[0]
        predicted[here] = scores.argmax(axis=2)
        right = right + own[here] @ (predicted[here] == codes[here, None])
        scores -= signs[:, None, :]
        error = error + own[here] @ np.einsum("bgc,bgc->bg", scores, scores)
    share = error / (own.sum() * len(head.classes_))
    return LeaveOneOut(strengths, right / own.sum(), share, head.classes_[predicted.T])


class _LeftOut:
    """The scores of rows, each by the fit on all other rows, for G strengths.

    The spectrum is float64. What is left, products of rows with it, is as good in float32 for float32 rows, but for
    those that decide on their own score: t - s and 1 - h are then both near zero.
    """

    def __init__(self, spectrum: Spectrum, alphas: FloatArray, dtype: Any) -> None:
        moments, target = _moments(spectrum)
        inverse = 1.0 / np.stack([_divisor(spectrum, alpha) for alpha in alphas], axis=1)
        solved = (moments[:, None, :] * inverse[:, :, None]).reshape(len(moments), -1)
        self.mean, self.basis, self.inverse, self.solved, self.target = (
            each.astype(dtype) for each in (spectrum.mean, spectrum.basis, inverse, solved, target)
        )
        self.share = 1.0 / float(spectrum.counts.sum())

    def scores(self, rows: FloatArray, signs: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return them (B, G, C) and the least 1 - h (B,) for standardised rows (B, D), signs (B, C), weights (B,)."""
        turned = (rows - self.mean) @ self.basis
        scores = (turned @ self.solved).reshape(len(rows), self.inverse.shape[1], len(self.target))
        np.square(turned, out=turned)
        leverage = weights[:, None] * (self.share + (turned @ self.inverse).astype(np.float64))
        rest = np.maximum(1.0 - leverage, np.finfo(scores.dtype).eps).astype(scores.dtype)
        # t - (t - s) / (1 - h), in place
        scores += self.target - signs[:, None, :]
        scores /= rest[:, :, None]
        scores += signs[:, None, :]
        return np.asarray(scores), np.asarray(rest.min(axis=1))


def _moments(spectrum: Spectrum) -> tuple[FloatArray, FloatArray]:
    """Return V^T (Z - m)^T (T - t) (R, C) and the mean t (C,) of the signs T."""
    share = spectrum.counts / spectrum.counts.sum()
    by_class = spectrum.counts[:, None] * (spectrum.means - spectrum.mean)
    return 2.0 * (spectrum.basis.T @ by_class.T), 2.0 * share - 1.0


def _divisor(spectrum: Spectrum, alpha: float) -> FloatArray:
    """Return energy + alpha (R,), infinite for directions without either, which then get no weight."""
    floor = len(spectrum.energy) * np.finfo(np.float64).eps * float(spectrum.energy.max(initial=0.0))
    divisor = spectrum.energy + alpha
    return np.where(divisor > floor, divisor, np.inf)
