"""Covariance of the rows that each round trains on, its eigendecomposition, and least squares solved with these.

Rows that the same rounds hold out form a part. The Gram matrix of each part is taken once, in float64; what a round
trains on is the sum over the parts it does not hold out, so that K folds cost one pass, and K eigendecompositions:

    Z^T Z = V diag(energy) V^T

In the basis V the penalty |W|^2 keeps its form, so ridge and LDA are solved by division. With fewer rows than columns
the smaller Z Z^T is decomposed, and V spans the rows of Z, where every penalised solution lies (representer theorem).
One penalty alone needs no decomposition: `single_ridge` and `held_out_ridge` solve it by Cholesky factors.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows, to_numpy
from featurecache.classify.solvers.positive_definite import solve_positive

# Rows turned to float64 at a time: 1024 x 1280 is 10 MB.
BLOCK = 1024


@dataclass(frozen=True)
class Spectrum:
    """What a round trains on, on its own standardised columns; all float64.

    counts (C,), means (C, D): weight and mean of each class. energy (R,), basis (D, R): eigenvalues and orthonormal
    eigenvectors of the weighted scatter around the mean of all rows, R <= min(N, D).
    """

    counts: FloatArray
    means: FloatArray
    energy: FloatArray
    basis: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Mean (D,) of all rows."""
        return np.asarray(self.counts @ self.means / self.counts.sum())


def spectra(
    rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int, *, within: bool = False
) -> list[Spectrum]:
    """Return the spectrum of every round, for class codes (N,) and weights (R, N).

    within: around the mean of each row's class rather than that of all.
    """
    if (weights > 0).sum(axis=1).min() < rows.shape[1]:
        return [_spectrum_of_few(rows, codes, own, number, n_classes, within) for number, own in enumerate(weights)]
    found = []
    for counts, means, scatter in _scatters(rows, codes, weights, n_classes, within):
        energy, basis = np.linalg.eigh(scatter)
        found.append(Spectrum(counts, means, np.maximum(energy, 0.0), basis))
    return found


def _scatters(
    rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int, within: bool
) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Yield counts (C,) and means (C, D) of the classes of every round, and the scatter (D, D) around the mean."""
    for number, (counts, sums, gram) in enumerate(_round_sums(rows, codes, weights, n_classes)):
        shift, stretch = to_numpy(rows.shift[number]), to_numpy(rows.stretch[number])
        means = (sums / np.where(counts > 0, counts, 1.0)[:, None] - shift) / stretch
        mean, sums_own = counts @ means / counts.sum(), (sums - counts[:, None] * shift) / stretch
        around = _gram_own(gram, sums.sum(axis=0), counts.sum(), shift, stretch)
        scatter = around - (sums_own.T @ means if within else counts.sum() * np.outer(mean, mean))
        yield counts, means, scatter


def _gram_own(gram: FloatArray, total: FloatArray, count: float, shift: FloatArray, stretch: FloatArray) -> FloatArray:
    """Return sum w z z^T (D, D) for z = (r - shift) / stretch, from that for r and its sum (D,)."""
    crossed = np.outer(total, shift)
    moved = gram - crossed - crossed.T + count * np.outer(shift, shift)
    return np.asarray(moved / np.outer(stretch, stretch))


def _round_sums(
    rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Return counts (C,), sums (C, D) and Gram matrix (D, D) of every round, on the centred columns."""
    base, trained = weights.max(axis=0), weights > 0
    if not (weights == base * trained).all():  # each round has weights of its own: no part is shared
        return [_sums_and_gram(rows, codes, own, np.flatnonzero(own), n_classes) for own in weights]
    patterns, part = np.unique(trained, axis=1, return_inverse=True)
    zero = (np.zeros(n_classes), np.zeros((n_classes, rows.shape[1])), np.zeros((rows.shape[1], rows.shape[1])))
    totals = [tuple(each.copy() for each in zero) for _ in weights]
    for number, pattern in enumerate(patterns.T):
        if pattern.any():
            sums = _sums_and_gram(rows, codes, base, np.flatnonzero(part.reshape(-1) == number), n_classes)
            for own in np.flatnonzero(pattern):
                for total, one in zip(totals[own], sums, strict=True):
                    total += one
    return [(counts, sums, gram) for counts, sums, gram in totals]


def _sums_and_gram(
    rows: Rows, codes: IntArray, weights: FloatArray, places: IntArray, n_classes: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return counts (C,), sums (C, D) and Gram matrix (D, D) of the rows at some places under weights (N,)."""
    xp, width, roots = rows.xp, rows.shape[1], np.sqrt(weights)
    gram = xp.zeros((width, width), dtype=xp.float64, device=rows.device)
    sums = xp.zeros((n_classes, width), dtype=xp.float64, device=rows.device)
    for start in range(0, len(places), BLOCK):
        here = places[start : start + BLOCK]
        block = xp.astype(rows.take(here), xp.float64)
        if (roots[here] != 1.0).any():
            block *= rows.array(roots[here], xp.float64)[:, None]
        gram += block.T @ block
        member = np.zeros((n_classes, len(here)))
        member[codes[here], np.arange(len(here))] = roots[here]
        sums += rows.array(member, xp.float64) @ block
    return count_classes(codes[places], weights[places], n_classes), to_numpy(sums), to_numpy(gram)


def count_classes(codes: IntArray, weights: FloatArray, n_classes: int) -> FloatArray:
    """Return the weight (C,) of the rows of each class."""
    return np.bincount(codes, weights, minlength=n_classes).astype(np.float64)


def _spectrum_of_few(
    rows: Rows, codes: IntArray, weights: FloatArray, number: int, n_classes: int, within: bool
) -> Spectrum:
    """Return the spectrum of a round with fewer rows than columns."""
    places = np.flatnonzero(weights)
    own = to_numpy(rows.standardised(places, number)).astype(np.float64)
    counts = count_classes(codes[places], weights[places], n_classes)
    member = np.zeros((n_classes, len(places)))
    member[codes[places], np.arange(len(places))] = weights[places]
    means = member @ own / np.where(counts > 0, counts, 1.0)[:, None]
    own -= means[codes[places]] if within else counts @ means / counts.sum()
    own *= np.sqrt(weights[places])[:, None]
    left, energy = _eigenvectors(own @ own.T, len(places))
    return Spectrum(counts, means, energy, own.T @ left / np.sqrt(energy))


def decompose_rows(Z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return U (N, R) and s^2 (R,) of Z (N, D) = U diag(s) V^T, R its rank, from the smaller of Z Z^T and Z^T Z."""
    if len(Z) <= Z.shape[1]:
        return _eigenvectors(Z @ Z.T, Z.shape[1])
    right, energy = _eigenvectors(Z.T @ Z, len(Z))
    return Z @ (right / np.sqrt(energy)), energy


def _eigenvectors(gram: FloatArray, size: int) -> tuple[FloatArray, FloatArray]:
    """Return eigenvectors (M, R) and eigenvalues (R,) of a Gram matrix (M, M), those above rounding of `size` terms."""
    energy, vectors = np.linalg.eigh(gram)
    kept = energy > size * np.finfo(np.float64).eps * max(float(energy[-1]), np.finfo(np.float64).tiny)
    return vectors[:, kept], energy[kept]


def single_ridge(
    rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int, alpha: float
) -> list[tuple[FloatArray, FloatArray]]:
    """Return what `SignRegression` solves in every round for one strength, W (C, D) and b (C,)."""
    found = []
    if (weights > 0).sum(axis=1).min() >= rows.shape[1]:
        for counts, means, scatter in _scatters(rows, codes, weights, n_classes, within=False):
            mean, target = counts @ means / counts.sum(), 2.0 * counts / counts.sum() - 1.0
            floor = len(scatter) * np.finfo(np.float64).eps * float(np.trace(scatter))  # no less than that of spectra
            if alpha <= floor:
                break
            np.einsum("ii->i", scatter)[...] += alpha
            with suppress(np.linalg.LinAlgError):
                W = solve_positive(scatter, 2.0 * (counts[:, None] * (means - mean)).T).T
                found.append((W, target - W @ mean))
    if len(found) == len(weights):
        return found
    return [SignRegression(each).solve(alpha) for each in spectra(rows, codes, weights, n_classes)]


class SignRegression:
    """Least squares from the standardised rows of a round to +1 for the true class and -1 for the others.

    minimise  sum_i w_i |W z_i + b - t_i|^2  +  alpha |W|^2,        W^T = V (energy + alpha)^-1 V^T (Z - m)^T (T - t)
    """

    def __init__(self, spectrum: Spectrum) -> None:
        self.spectrum = spectrum
        by_class = spectrum.counts[:, None] * (spectrum.means - spectrum.mean)
        self.moments = 2.0 * (spectrum.basis.T @ by_class.T)
        self.target = 2.0 * spectrum.counts / spectrum.counts.sum() - 1.0

    def solve(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """Return weights W (C, D) and intercept b (C,); directions with neither energy nor penalty get no weight."""
        energy = self.spectrum.energy
        floor = len(energy) * np.finfo(np.float64).eps * float(energy.max(initial=0.0))
        divisor = np.where(energy + alpha > floor, energy + alpha, np.inf)
        W = (self.spectrum.basis @ (self.moments / divisor[:, None])).T
        return W, self.target - W @ self.spectrum.mean


def class_signs(codes: IntArray, n_classes: int, dtype: Any = np.float64) -> FloatArray:
    """Return signs (N, C) of class codes (N,): +1 for the class of the row, -1 for the others."""
    return np.where(codes[:, None] == np.arange(n_classes), 1.0, -1.0).astype(dtype, copy=False)


def held_out_ridge(Z: FloatArray, signs: FloatArray, fold: IntArray, alpha: float) -> FloatArray:
    """Return scores (N, C), float64, of rows Z (N, D) by a ridge regression to signs (N, C) on the other folds.

    fold (N,): the fold of each row. min(N, D) decides the size of what is solved, one factor for every fold.
    """
    return (_held_out_by_columns if len(Z) > Z.shape[1] else _held_out_by_rows)(Z, signs, fold, alpha)


def _held_out_by_columns(Z: FloatArray, signs: FloatArray, fold: IntArray, alpha: float) -> FloatArray:
    """Solve W = (Z^T Z - Z_k^T Z_k + alpha)^-1 (Z^T T - Z_k^T T_k) for every fold k, a column of ones for the mean."""
    Z = np.column_stack([Z, np.ones(len(Z), Z.dtype)])
    penalty = alpha * np.eye(Z.shape[1])
    penalty[-1, -1] = 0.0
    parts = {k: Z[fold == k] for k in np.unique(fold)}
    grams = {k: (part.T @ part).astype(np.float64) for k, part in parts.items()}
    moments = {k: (part.T @ signs[fold == k]).astype(np.float64) for k, part in parts.items()}
    gram, moment = sum(grams.values()), sum(moments.values())
    scores = np.empty(signs.shape)
    for k, part in parts.items():
        weights = solve_positive(gram - grams[k] + penalty, moment - moments[k])
        scores[fold == k] = part @ weights.astype(Z.dtype)
    return scores


def _held_out_by_rows(Z: FloatArray, signs: FloatArray, fold: IntArray, alpha: float) -> FloatArray:
    """Solve the same by the kernel Z Z^T (N, N), the smaller matrix where there are fewer rows than columns."""
    wide = Z.astype(np.float64)
    scores = np.empty(signs.shape)
    for k in np.unique(fold):
        train, held_out = fold != k, fold == k
        centre, mean = wide[train].mean(axis=0), signs[train].mean(axis=0)
        centred = wide[train] - centre
        kernel = centred @ centred.T + alpha * np.eye(len(centred))
        solved = solve_positive(kernel, signs[train] - mean)
        scores[held_out] = (wide[held_out] - centre) @ (centred.T @ solved) + mean
    return scores
