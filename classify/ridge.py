"""Ridge regression on the class signs: every strength, and every row left out, from one eigendecomposition."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from classify.arrays import AnyArray, FloatArray, IntArray
from classify.contract import begin_fit, row_weights
from classify.linear import LinearHead
from classify.paths import Optimum
from classify.rows import Rows, to_numpy
from classify.spectrum import Spectrum, spectra

# Rows of the hat matrix at a time, in float64: 2048 x 1280 is 21 MB.
BLOCK = 2048


class RidgeHead(LinearHead):
    """Least squares from standardised features to +1 for the true class and -1 for the others.

        minimise  sum_i w_i |W z_i + b - t_i|^2  +  alpha |W|^2,    solved by    W^T = V (energy + alpha)^-1 V^T Z^T T

    with the spectrum of the centred rows (Hoerl and Kennard 1970; the problem of scikit-learn's RidgeClassifier). The
    scores approximate signs, not log odds: see `temperature` in `ScoredHead`. `leave_one_out` judges any number of
    strengths by all rows at once.
    """

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
                yield Optimum(setting, number, W, target - W @ spectrum.mean, 1, 0.0, "")


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
    head = RidgeHead(class_weight=class_weight)
    X, codes = begin_fit(head, X, y)
    own = row_weights(None, head.classes_, codes, sample_weight)
    weights = row_weights(class_weight, head.classes_, codes, sample_weight)
    rows, strengths = Rows(X, own[None]), np.asarray(alphas, dtype=np.float64)
    spectrum = spectra(rows, codes, weights[None], len(head.classes_))[0]
    moments, target = _moments(spectrum)
    predicted, right, error = np.zeros((len(strengths), len(codes)), dtype=int), 0.0, 0.0
    for start in range(0, len(codes), BLOCK):
        here = np.arange(start, min(start + BLOCK, len(codes)))
        turned = (to_numpy(rows.standardised(here, 0)).astype(np.float64) - spectrum.mean) @ spectrum.basis
        signs = np.where(codes[here, None] == np.arange(len(head.classes_)), 1.0, -1.0)
        scores = _left_out(turned, signs, weights[here], spectrum, moments, target, strengths)
        predicted[:, here] = scores.argmax(axis=2)
        right = right + (predicted[:, here] == codes[here]) @ own[here]
        error = error + ((scores - signs) ** 2).mean(axis=2) @ own[here]
    return LeaveOneOut(strengths, right / own.sum(), error / own.sum(), head.classes_[predicted])


def _left_out(
    turned: FloatArray,
    signs: FloatArray,
    weights: FloatArray,
    spectrum: Spectrum,
    moments: FloatArray,
    target: FloatArray,
    alphas: FloatArray,
) -> FloatArray:
    """Return the scores (G, B, C) of rows turned into the basis (B, R), each by the fit on all other rows."""
    divisors = np.stack([_divisor(spectrum, alpha) for alpha in alphas], axis=1)
    leverage = weights[:, None] * (1.0 / spectrum.counts.sum() + turned**2 @ (1.0 / divisors))
    rest = np.maximum(1.0 - leverage, np.finfo(np.float64).eps)
    solved = (moments[:, None, :] / divisors[:, :, None]).reshape(len(moments), -1)
    scores = (turned @ solved).reshape(len(turned), len(alphas), -1).transpose(1, 0, 2) + target
    return np.asarray(signs - (signs - scores) / rest.T[:, :, None])


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
