"""What the heads are measured on: the features of Fashion-MNIST, or random ones that look like them to a solver."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.classify.arrays.scaling import Scaling, fit_scaling

N_TEST = 10_000
FEATURE_DIM, N_CLASSES = 1280, 10
BACKBONE = "efficientnet_lite0"
# Eigenvalues of the covariance of Fashion-MNIST's scaled features by rank (efficientnet_lite0, 1280 columns, the last
# ten of which are nearly dead).
SPECTRUM = {1: 129.0, 2: 69.6, 5: 39.3, 10: 21.6, 20: 9.72, 50: 3.67, 100: 1.68, 200: 0.784, 400: 0.373, 800: 0.166,
            1100: 0.0827, 1200: 0.04, 1250: 0.0124, 1270: 0.00181}  # fmt: skip
# Distance of random class means along the leading directions, in deviations: about nine of ten rows come out right.
SEPARATION, SEPARATED = 1.0, 40


@dataclass(frozen=True)
class Data:
    """Train rows X (N, D) with codes y (N,), and rows for a test; float32.

    Our heads take X and scale it themselves; scikit-learn's take `scaled`, the same rows as ours see
    them.
    """

    name: str
    X: NDArray[np.float32]
    y: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]

    @cached_property
    def scaling(self) -> Scaling:
        """The standardisation that our linear heads fold into their weights."""
        return fit_scaling(self.X)

    @cached_property
    def scaled(self) -> NDArray[np.float32]:
        """The train rows (N, D) on the scale of our linear heads."""
        return np.asarray(self.scaling.apply(self.X))

    @cached_property
    def scaled_test(self) -> NDArray[np.float32]:
        """The rows for a test on the same scale."""
        return np.asarray(self.scaling.apply(self.X_test))

    def on_scaled(self, head: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the weights (C, D) and intercept (C,) for `scaled` of a head of ours, whose own are for X; float64."""
        coef, intercept = (np.asarray(each, dtype=np.float64) for each in (head.coef_, head.intercept_))
        return coef * self.scaling.scale, intercept + coef @ self.scaling.mean

    def size(self) -> str:
        """Rows x columns x classes, for a title."""
        return f"{len(self.X):,} x {self.X.shape[1]:,} x {len(np.unique(self.y))}"


def prepare(images: Path, cache_root: Path, n_rows: int) -> tuple[Data, str]:
    """Return rows to measure on, and a sentence where they are not the features of `images`: what would cache those."""
    found = load_features(images, cache_root)
    if found is not None:
        return first_rows(found, n_rows), ""
    make = "" if images.is_dir() else f"make data DATASET={images.name}, then "
    note = (
        f"The features of '{images}' are not in '{cache_root}': these are random ones with the spectrum of "
        f"Fashion-MNIST's. To measure on the real ones: {make}featurecache extract {images} --cache {cache_root}"
    )
    return make_features(n_rows), note


def load_features(images: Path, cache_root: Path) -> Data | None:
    """The features of some images, train and val before test, in a random order; None where they are not extracted."""
    from featurecache.base.errors import ExtractError, PipelineError
    from featurecache.evaluate.join import label_samples, look_up
    from featurecache.extract.cache.memo import Memo
    from featurecache.extract.images.read import read_images
    from featurecache.extract.job.request import FeatureRequest

    if not images.is_dir() or not cache_root.is_dir():
        return None
    try:
        with Memo(cache_root, read_only=True) as memo:
            labelled = label_samples(read_images(str(images)), memo, seed=0)
            request = FeatureRequest(BACKBONE)
            (found,) = look_up(labelled, (request,), cache_root=cache_root, memo=memo)
    except (PipelineError, ExtractError):
        return None
    seen, test = labelled.place("train", "val"), labelled.place("test")
    order = np.random.default_rng(0).permutation(seen.stop)
    X, y = found.X[seen][order], labelled.y[seen][order]
    return Data(images.name, X, y, found.X[test], labelled.y[test])


def make_features(n_rows: int, *, n_classes: int = N_CLASSES, n_test: int = N_TEST) -> Data:
    """Random Gaussian classes whose pooled covariance has the spectrum of real features."""
    rng = np.random.default_rng(0)
    ranks, energies = np.array(list(SPECTRUM)), np.array(list(SPECTRUM.values()))
    deviations = np.sqrt(np.exp(np.interp(np.log(np.arange(1, FEATURE_DIM + 1)), np.log(ranks), np.log(energies))))
    basis = np.linalg.qr(rng.normal(size=(FEATURE_DIM, FEATURE_DIM)))[0]
    means = np.zeros((n_classes, FEATURE_DIM))
    means[:, :SEPARATED] = SEPARATION * rng.normal(size=(n_classes, SEPARATED))
    y = rng.integers(0, n_classes, n_rows + n_test)
    X = np.empty((len(y), FEATURE_DIM), dtype=np.float32)
    for start in range(0, len(y), N_TEST):
        here = slice(start, start + N_TEST)
        rows = rng.normal(size=(len(y[here]), FEATURE_DIM)) + means[y[here]]
        X[here] = (rows * deviations) @ basis.T
    return Data("random features", X[:n_rows], y[:n_rows], X[n_rows:], y[n_rows:])


def first_rows(data: Data, n_rows: int) -> Data:
    """The same with the first train rows only."""
    return Data(data.name, data.X[:n_rows], data.y[:n_rows], data.X_test, data.y_test)
