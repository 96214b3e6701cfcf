"""Neighbours and networks against scikit-learn, on the same features, in the same run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.bench.output import alternating, timed

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Twenty values of k, up to the largest that the few-shot literature uses.
NEIGHBOURS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200)
RATES, DECAYS = (3e-4, 1e-3, 3e-3), (0.0, 1e-3, 1e-2, 1e-1)
# scikit-learn's default batch, and enough epochs to compare accuracies by.
BATCH, EPOCHS = 200, 3


@dataclass(frozen=True)
class Compared:
    """Seconds of ours and of scikit-learn's for the same work, and how both did."""

    settings: int
    ours: float
    theirs: float
    accuracy: float | None
    """Ours minus scikit-learn's, the mean over the settings; None where there is nothing to be right about."""
    note: str


def compare_knn(X: NDArray[np.floating[Any]], y: NDArray[np.integer[Any]], n_queries: int) -> Compared:
    """Vote for 20 values of k on the last `n_queries` of X (N, D), against one query of scikit-learn's."""
    from sklearn.neighbors import NearestNeighbors

    from featurecache.classify.heads.knn import KNNHead
    from featurecache.classify.selection.holdouts import val_round
    from featurecache.classify.solvers.neighbours import find_neighbours

    n_train, k = len(X) - n_queries, max(NEIGHBOURS)
    heads = [KNNHead(k=each) for each in NEIGHBOURS]
    theirs = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(X[:n_train])
    found: list[Any] = []
    ours, seconds = alternating(
        lambda: list(KNNHead.try_grid(heads, X, y, val_round(n_train, len(X)))),
        lambda: found.append(theirs.kneighbors(X[n_train:], return_distance=False)),
    )
    rows = find_neighbours(X[n_train:], X[:n_train], k, "cosine", X[:n_train].mean(axis=0, dtype=np.float64)).rows
    same = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(rows, found[0], strict=True)])
    return Compared(len(NEIGHBOURS), ours, seconds, None, f"against one query; {same:.3%} of the neighbours shared")


def compare_mlp(X: NDArray[np.floating[Any]], y: NDArray[np.integer[Any]], n_test: int) -> Compared:
    """Train 12 networks of 1024 for the same epochs on all but the last `n_test` of X (N, D), codes y (N,)."""
    from sklearn.neural_network import MLPClassifier

    from featurecache.classify.arrays.minibatches import Batches
    from featurecache.classify.heads.mlp import MLPHead, Training

    settings = [(rate, decay) for rate in RATES for decay in DECAYS]
    held_out = np.arange(len(X)) >= len(X) - n_test
    heads = [
        MLPHead(
            dropout=0.0,
            learning_rate=rate,
            weight_decay=decay,
            label_smoothing=0.0,
            batch_size=BATCH,
            random_state=0,
        )
        for rate, decay in settings
    ]
    for head in heads:
        head.classes_ = np.arange(int(y.max()) + 1)

    def train(n_epochs: int) -> Training:
        training = Training(heads, X, y, np.ones(len(y)), held_out)
        for _ in range(n_epochs):
            training.networks.train(training.trained.shuffled(BATCH, 1, training.order))
        return training

    _warm_up(heads[0], X[:BATCH], y[:BATCH])
    trained: list[Training] = []
    ours = timed(lambda: trained.append(train(EPOCHS)))
    Z = trained[0].scaling.apply(X)
    theirs = [
        MLPClassifier((1024,), alpha=decay, learning_rate_init=rate, batch_size=BATCH, max_iter=EPOCHS, random_state=0)
        for rate, decay in settings
    ]
    seconds = timed(lambda: [each.fit(Z[~held_out], y[~held_out]) for each in theirs])
    test = Batches(X, np.flatnonzero(held_out), y, np.ones(len(y)), trained[0].scaling)
    own = [
        np.mean(scores.argmax(axis=1) == y[held_out])
        for scores in trained[0].networks.scores(test.blocks(), len(test.rows), range(len(heads)))
    ]
    other = [each.score(Z[held_out], y[held_out]) for each in theirs]
    note = f"{EPOCHS} epochs; the best of them {max(own):.2%} against {max(other):.2%}"
    return Compared(len(heads), ours, seconds, float(np.mean(own) - np.mean(other)), note)


def _warm_up(head: Any, X: NDArray[np.floating[Any]], y: NDArray[np.integer[Any]]) -> None:
    """Let torch import what its optimisers need: a second or two, once in a process."""
    from sklearn.base import clone

    clone(head).set_params(epochs=1, hidden=8).fit(X, y)
