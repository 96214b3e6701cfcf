"""Counts, means and covariance of what each round trains on, and its eigendecomposition, which serves every strength.

Rows that the same rounds hold out form a part. The Gram matrix of each part is taken once, in float64; what a round
trains on is the sum over the parts it does not hold out, so that K folds cost one pass, and K eigendecompositions:

    Z^T Z = V diag(energy) V^T

In the basis V the penalty |W|^2 keeps its form, so ridge and LDA are solved by division. With fewer rows than columns
the smaller Z Z^T is decomposed, and V spans the rows of Z, where every penalised solution lies (representer theorem).
"""

from dataclasses import dataclass

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows, to_numpy

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
        return [_from_rows(rows, codes, own, number, n_classes, within) for number, own in enumerate(weights)]
    found = []
    for number, (counts, sums, gram) in enumerate(_moments(rows, codes, weights, n_classes)):
        shift, stretch = to_numpy(rows.shift[number]), to_numpy(rows.stretch[number])
        means = (sums / np.where(counts > 0, counts, 1.0)[:, None] - shift) / stretch
        mean, sums_own = counts @ means / counts.sum(), (sums - counts[:, None] * shift) / stretch
        around = _gram_own(gram, sums.sum(axis=0), counts.sum(), shift, stretch)
        scatter = around - (sums_own.T @ means if within else counts.sum() * np.outer(mean, mean))
        energy, basis = np.linalg.eigh(scatter)
        found.append(Spectrum(counts, means, np.maximum(energy, 0.0), basis))
    return found


def _gram_own(gram: FloatArray, total: FloatArray, count: float, shift: FloatArray, stretch: FloatArray) -> FloatArray:
    """Return sum w z z^T (D, D) for z = (r - shift) / stretch, from that for r and its sum (D,)."""
    crossed = np.outer(total, shift)
    moved = gram - crossed - crossed.T + count * np.outer(shift, shift)
    return np.asarray(moved / np.outer(stretch, stretch))


def _moments(
    rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Return counts (C,), sums (C, D) and Gram matrix (D, D) of every round, on the centred columns."""
    base, trained = weights.max(axis=0), weights > 0
    if not (weights == base * trained).all():  # each round has weights of its own: no part is shared
        return [_sums(rows, codes, own, np.flatnonzero(own), n_classes) for own in weights]
    patterns, part = np.unique(trained, axis=1, return_inverse=True)
    zero = (np.zeros(n_classes), np.zeros((n_classes, rows.shape[1])), np.zeros((rows.shape[1], rows.shape[1])))
    totals = [tuple(each.copy() for each in zero) for _ in weights]
    for number, pattern in enumerate(patterns.T):
        if pattern.any():
            sums = _sums(rows, codes, base, np.flatnonzero(part.reshape(-1) == number), n_classes)
            for own in np.flatnonzero(pattern):
                for total, one in zip(totals[own], sums, strict=True):
                    total += one
    return [(counts, sums, gram) for counts, sums, gram in totals]


def _sums(
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


def _from_rows(rows: Rows, codes: IntArray, weights: FloatArray, number: int, n_classes: int, within: bool) -> Spectrum:
    """Return the spectrum of a round with fewer rows than columns."""
    places = np.flatnonzero(weights)
    own = to_numpy(rows.standardised(places, number)).astype(np.float64)
    counts = count_classes(codes[places], weights[places], n_classes)
    member = np.zeros((n_classes, len(places)))
    member[codes[places], np.arange(len(places))] = weights[places]
    means = member @ own / np.where(counts > 0, counts, 1.0)[:, None]
    own -= means[codes[places]] if within else counts @ means / counts.sum()
    own *= np.sqrt(weights[places])[:, None]
    energy, left = np.linalg.eigh(own @ own.T)
    kept = energy > len(places) * np.finfo(np.float64).eps * max(float(energy[-1]), np.finfo(np.float64).tiny)
    return Spectrum(counts, means, energy[kept], own.T @ left[:, kept] / np.sqrt(energy[kept]))
