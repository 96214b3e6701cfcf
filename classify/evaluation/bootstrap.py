"""The bootstrap of every metric over test images, with one resampling shared by all heads.

A resample draws N of the N test images with replacement (Efron 1979), which is a count w_i for each image. Where images
come in units (groups, copies) it draws U of the U units, whole, so a unit's count is that of all its images (Davison
and Hinkley 1997, section 3.8). Every metric is a smooth function of sums over images, so the B resamples of a head are
one matrix product

    T (K, B) = S (K, N) counts (N, B)

with S the K sums its metrics need: right answers, support and predictions by class, gaps by confidence bin, losses.
Since all heads see the same counts, the difference of two heads' replicates is the paired bootstrap of the difference.
One head after the other: its sums are C numbers for every image, 200 MB for 50,000 images of 1,000 classes.

The AUC is no such function. Its replicates are those of its projection (Hoeffding 1948): with V_i the share of the
other classes' samples that sample i of class c is ranked above, and U_j the share of class c's that rank above j,

    AUC_c(w) = mean_w V + mean_w U - AUC_c,    which leaves out terms of order 1 / n_c only (DeLong et al. 1988).
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from featurecache.classify.arrays.array_types import AnyArray, FloatArray, IntArray
from featurecache.classify.evaluation.clustered import are_own
from featurecache.classify.evaluation.metrics import (
    COUNT_METRICS,
    ECE_BINS,
    TOP,
    briers,
    confidence_bins,
    in_top,
    log_losses,
    twice_below,
)

# Enough for the 2.5 % points to be known to a tenth of the width; Efron and Tibshirani 1993, section 13.3, ask for
# 1,000.
N_RESAMPLES = 1000
# Resamples turned to float32 at a time: 10,000 images x 250 are 10 MB, 60,000 are 60 MB.
BLOCK = 250
# Numbers of a matrix that is used as it is, zeros and all: to import scipy.sparse takes longer than its product.
DENSE = 2**18

Replicates: TypeAlias = dict[str, FloatArray]


def draw_counts(
    n: int, *, units: IntArray | None = None, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> NDArray[np.uint8]:
    """Return how often each of n images is drawn in each resample, (n, B).

    units (n,), 0..U-1: images of a unit are drawn together, U units a resample. Without units, or where every image is
    its own, every column sums to n.
    """
    rng = np.random.default_rng(seed)
    if units is None or are_own(units):
        return _draw(n, n_resamples, rng)
    found, unit = np.unique(units, return_inverse=True)
    return np.ascontiguousarray(_draw(len(found), n_resamples, rng)[unit.ravel()])


def _draw(n: int, n_resamples: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    drawn = [np.bincount(rng.integers(0, n, n), minlength=n).astype(np.uint8) for _ in range(n_resamples)]
    return np.ascontiguousarray(np.stack(drawn, axis=1))


def bootstrap(
    y_true: IntArray, heads: Mapping[str, tuple[FloatArray, IntArray]], counts: NDArray[np.uint8]
) -> dict[str, Replicates]:
    """Return {head: {metric: its value in each resample, (B,)}} for codes y_true (N,) and counts (N, B).

    heads: {name: (proba (N, C), y_pred (N,))}. The metrics are those of `metrics.score_fully`, under its names, and
    ece_if_calibrated: the error that chance alone makes. Raises ValueError where the lengths disagree.
    """
    for name, (proba, y_pred) in heads.items():
        if not len(y_true) == len(proba) == len(y_pred) == len(counts):
            raise ValueError(f"{name} has {len(proba)} rows, y_true {len(y_true)}, counts {len(counts)}: give equals.")
    return {name: _replicates(_Sums(y_true, *predicted), counts) for name, predicted in heads.items()}


def _replicates(sums: "_Sums", counts: NDArray[np.uint8]) -> Replicates:
    """Return every metric of one head in each resample, (B,) each."""
    starts = range(0, counts.shape[1], BLOCK)
    blocks = [sums.metrics(counts[:, start : start + BLOCK].astype(np.float32)) for start in starts]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


class _Sums:
    """The sums from which one head's metrics follow; `metrics(w)` weighs the images by w (N, B)."""

    def __init__(self, y_true: IntArray, proba: FloatArray, y_pred: IntArray) -> None:
        n, n_classes = proba.shape
        self.n, self.n_classes = n, n_classes
        right = (y_true == y_pred).astype(np.float32)
        confidence = proba[np.arange(n), y_pred]
        bins = confidence_bins(confidence)
        # Support, right answers and predictions by class, and gaps by confidence bin: one product for all of them.
        self.ends = np.cumsum([n_classes, n_classes, n_classes])
        groups = np.concatenate([y_true, y_true + self.ends[0], y_pred + self.ends[1], bins + self.ends[2]])
        ones = np.ones(n, dtype=np.float32)
        values = np.concatenate([ones, right, ones, right - confidence])
        self.sums = _grouped(groups, values, n=n, n_groups=int(self.ends[2]) + ECE_BINS)
        self.gap = self.sums[self.ends[2] :] @ ones
        means = {"log_loss": log_losses(y_true, proba), "brier": briers(y_true, proba)}
        if n_classes > TOP:
            means["top5_accuracy"] = in_top(y_true, proba)
        self.mean_names = list(means)
        self.terms = np.stack(list(means.values())).astype(np.float32)
        self.ranking = _Ranking(y_true, proba) if len(np.unique(y_true)) > 1 else None

    def metrics(self, w: FloatArray) -> Replicates:
        """Return every metric, (B,) each."""
        support, hits, named, gaps = np.split(self.sums @ w, self.ends)
        n = w.sum(axis=0)
        expected = self.gap[:, None] * (n / self.n)
        found = {
            **{name: value(hits, support, named) for name, value in COUNT_METRICS.items()},
            "ece": np.abs(gaps).sum(axis=0) / n,
            "ece_if_calibrated": np.abs(gaps - expected).sum(axis=0) / n,
            **dict(zip(self.mean_names, self.terms @ w / n, strict=True)),
        }
        if self.ranking is not None:
            found["auc"] = self.ranking.auc(w, support, n)
        return {name: values.astype(np.float64) for name, values in found.items()}


def _grouped(group: IntArray, values: FloatArray, *, n: int, n_groups: int) -> AnyArray:
    """Return the (n_groups, n) matrix that sums values of n images over each group, sparse unless it is small.

    group, values (K n,): K groups and values of each image, those of all images one after the other; no group twice for
    one image. A sparse one takes the images in their order.
    """
    if n * n_groups <= DENSE:
        small = np.zeros((n_groups, n), dtype=np.float32)
        small[group, np.arange(len(group)) % n] = values
        return small
    from scipy.sparse import csr_array

    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=n_groups))])
    matrix: AnyArray = csr_array((values[order].astype(np.float32), order % n, starts), (n_groups, n))
    return matrix


class _Ranking:
    """The projection of the one-versus-rest AUC: V and U of the docstring of this file, for every class."""

    def __init__(self, y_true: IntArray, proba: FloatArray) -> None:
        self.classes = np.unique(y_true)
        n = len(y_true)
        self.below = np.zeros((len(self.classes), n), dtype=np.float32)
        own = np.zeros(n)
        self.whole = np.zeros(len(self.classes))
        for row, c in enumerate(self.classes):
            inside, scores = y_true == c, proba[:, c]
            own[inside] = _share_below(scores[inside], scores[~inside])
            self.below[row, ~inside] = 1 - _share_below(scores[~inside], scores[inside])
            self.whole[row] = own[inside].mean()
        self.own = _grouped(y_true, own, n=n, n_groups=proba.shape[1])[self.classes]

    def auc(self, w: FloatArray, support: FloatArray, n: FloatArray) -> FloatArray:
        """Return the mean AUC of each resample of n (B,) images; a class that one lacks counts as in the whole."""
        inside = support[self.classes]
        there = (inside > 0) & (inside < n)
        v = np.divide(self.own @ w, inside, out=np.zeros_like(inside), where=there)
        u = np.divide(self.below @ w, n - inside, out=np.zeros_like(inside), where=there)
        whole = self.whole[:, None]
        return np.asarray(np.where(there, np.minimum(v + u - whole, 1.0), whole).mean(axis=0))


def _share_below(scores: FloatArray, others: FloatArray) -> FloatArray:
    """Return for each of scores (n,) the share of others (m,) that are smaller; equals count half."""
    return twice_below(scores, others) / (2 * len(others))
