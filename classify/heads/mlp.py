"""A network with one hidden layer, all settings of its grid trained together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import working_dtype
from featurecache.classify.arrays.memmap import array_stored_like, mapped
from featurecache.classify.arrays.minibatches import Batches
from featurecache.classify.arrays.scaling import Scaling
from featurecache.classify.evaluation.criteria import ACCURACY
from featurecache.classify.evaluation.metrics import of_predictions
from featurecache.classify.heads.fitted.kinds import FittedNetwork
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.parameters import Allowed
from featurecache.classify.heads.shared.trials import Trial, judge_scores
from featurecache.classify.heads.shared.validation import (
    begin_fit,
    begin_grid,
    begin_predict,
    row_weights,
    trained_classes,
)
from featurecache.classify.solvers.batched_networks import Networks, Recipe, threads_for
from featurecache.classify.solvers.class_moments import class_moments
from featurecache.classify.solvers.successive_halving import (
    Candidate,
    Judge,
    Rank,
    by_accuracy,
    halve,
    halving_note,
    log_loss,
    train_for,
)

# A batch is at most this part of the rows, down to the smallest that keeps the cores busy.
BATCHES = 100
SMALLEST_BATCH = 32
# Scores of the networks that are evaluated on the held-out rows together, in bytes.
TOGETHER_BYTES = 16 * 2**20
# An epoch of a small set is several passes over it, until it has this many steps.
STEPS = 30


class MLPHead(ClassifierMixin, FittedNetwork, BaseEstimator):  # type: ignore[misc]
    """Dense(hidden, relu), dropout, softmax; cross-entropy; AdamW on features scaled as one.

    Trained by `classify.solvers.batched_networks`.

    One scale for all columns, for a network learns the proportions of the columns itself: with that of the linear heads
    (`classify.arrays.scaling`) the best val accuracy of a sweep was 0 to 1.1 points lower on mnist5k and digits,
    features, stages and pixels, with every column's own deviation 0.8 to 4.9.

    Labels are smoothed: label_smoothing is shared out among all classes. On 48,000 images of Fashion-MNIST and 8 epochs
    that brought the best val accuracy of the grid from 92.07 to 92.42 %, that of the same network on test from 91.27 to
    91.75 (torch 2.14).

    What is learned is a running mean of the weights, so there is no schedule and every epoch is an end. An epoch is one
    pass over the rows, or as many as make 30 steps; a batch has `batch_size` rows, less where that would be more than
    a hundredth of them, but at least 32. Everything random comes from generators seeded by `random_state`; one seed
    gives one network on processors of one kind and as many threads: some round the factors of large products
    (`classify.solvers.mixed_precision`), and sums in another order can tip which epoch or setting is the best.

    A sweep trains all settings side by side, in two ways cheaper than one by one: by successive halving, where of
    twelve settings six go on after 1 epoch, three after 2 and two after 4, and by stopping each after `patience`
    epochs without a better accuracy on val, or other metric that settings are chosen by, then log loss
    (`classify.solvers.successive_halving`). The best epoch becomes `epochs` of the refit, and val gives the temperature
    of softmax(scores / temperature). With folds the first one decides on epochs, and the others follow it: each setting
    is trained for its best number of epochs there, or for one if halving stopped it.

    Learned: hidden_coef_ (H, D) and hidden_intercept_ (H,) on raw features, coef_ (C, H) and intercept_ (C,).
    Prediction needs numpy only.
    """

    allowed: ClassVar[Allowed] = ALLOWED["mlp"]
    learned: ClassVar[Learned] = LEARNED["mlp"]
    stops_early: ClassVar[bool] = True
    common: ClassVar[tuple[str, ...]] = ("class_weight", "batch_size", "patience", "device", "random_state")

    def __init__(
        self,
        hidden: int = 1024,
        *,
        learning_rate: float = 1e-3,
        dropout: float = 0.5,
        weight_decay: float = 0.01,
        label_smoothing: float = 0.1,
        batch_size: int = 256,
        epochs: int = 10,
        patience: int = 2,
        class_weight: str | Mapping[Any, float] | None = None,
        temperature: float = 1.0,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.class_weight = class_weight
        self.temperature = temperature
        self.device = device
        self.random_state = random_state

    def fit(self, X: FloatArray, y: AnyArray, sample_weight: FloatArray | None = None) -> Self:
        """Learn from X (N, D), labels y (N,) and weights (N,), 1 where none are given."""
        X, codes = begin_fit(self, X, y)
        weights = row_weights(self.class_weight, self.classes_, codes, sample_weight)
        training = Training([self], X, codes, weights, held_out=np.zeros(len(codes), dtype=bool))
        for _ in range(self.epochs):
            training.epoch()
        hidden, hidden_bias, output, bias = training.networks.learned(0)
        coef, intercept = training.scaling.fold(hidden, hidden_bias)
        self.hidden_coef_, self.hidden_intercept_ = coef.astype(output.dtype), intercept.astype(output.dtype)
        self.coef_, self.intercept_ = output.copy(), bias.copy()  # a view would keep all that training held
        self.converged_ = bool(np.isfinite(self.coef_).all() and np.isfinite(self.hidden_coef_).all())
        self.note_ = "" if self.converged_ else f"learning_rate={self.learning_rate:g}: training diverged."
        return self

    def _checked(self, X: Any) -> FloatArray:
        return begin_predict(self, X)

    @classmethod
    def try_grid(
        cls,
        heads: Sequence[Self],
        X: FloatArray,
        y: AnyArray,
        rounds: Sequence[BoolArray],
        sample_weight: FloatArray | None = None,
        metric: str = ACCURACY,
    ) -> Iterator[tuple[int, int, Trial]]:
        """Train all heads together in each round, by successive halving, stopped early on the held-out rows.

        metric: what the best epoch, and who goes on, is chosen by, at temperature 1.
        """
        grid = begin_grid(heads, X, y, sample_weight)
        first: list[Candidate] = []
        for number, held_out in enumerate(rounds):
            weights = grid.trained_weights(heads[0].class_weight, held_out)
            trained = trained_classes(grid.codes, weights, len(grid.classes))
            judge = partial(judge_scores, heads[0], labels=grid.labels(held_out), trained=trained)
            ended: list[Candidate] = []
            for candidate in Training(heads, grid.X, grid.codes, weights, held_out).run(first, judge, metric):
                ended.append(candidate)
                note = "" if first or len(ended) < len(heads) else halving_note(ended)
                yield candidate.setting, number, _trial(heads[candidate.setting], candidate, note)
            first = first or sorted(ended, key=lambda candidate: candidate.setting)


class Training:
    """The networks of several heads on the rows of X (N, D) that are not held out, bool (N,).

    codes (N,): class codes; weights (N,): rows without one are left out. What the networks hold is in a file where X is
    in one.
    """

    def __init__(
        self, heads: Sequence[MLPHead], X: FloatArray, codes: IntArray, weights: FloatArray, held_out: BoolArray
    ) -> None:
        self.heads = heads
        first, n_classes = heads[0], len(heads[0].classes_)
        device = str(X.device) if isinstance(X, torch.Tensor) else first.device
        moments = class_moments(X, codes, n_classes, weights, [held_out])[0]
        self.scaling = Scaling.common(moments.mean(), np.sqrt(moments.total()))
        trained, evaluated = np.flatnonzero(~held_out & (weights > 0)), np.flatnonzero(held_out)
        self.trained, self.evaluated = (
            Batches(X, rows, codes, weights, self.scaling, device) for rows in (trained, evaluated)
        )
        self.size = min(first.batch_size, max(SMALLEST_BATCH, len(trained) // BATCHES))
        seed = int(check_random_state(first.random_state).randint(2**31 - 1))
        self.order = np.random.default_rng(seed)
        self.networks = Networks(
            [
                Recipe(head.hidden, head.learning_rate, head.dropout, head.weight_decay, head.label_smoothing)
                for head in heads
            ],
            X.shape[1],
            n_classes,
            seed=seed,
            dtype=torch.float64 if working_dtype(X) == np.float64 else torch.float32,
            device=device,
            empty=partial(_stored_like, X) if device == "cpu" and mapped(X) is not None else None,
        )

    def epoch(self) -> None:
        """Train the remaining networks for one epoch."""
        n_columns, width = self.trained.X.shape[1], sum(recipe.hidden for recipe in self.networks.recipes)
        with threads_for(self.size * n_columns * width):
            self.networks.train(self.trained.shuffled(self.size, STEPS, self.order))

    def look(self, places: Sequence[int]) -> Iterator[FloatArray]:
        """Yield the scores (M, C) of some of the remaining networks on the held-out rows, few at a time."""
        n_rows = len(self.evaluated.rows)
        some = max(1, TOGETHER_BYTES // (self.evaluated.weights.itemsize * n_rows * len(self.heads[0].classes_)))
        for first in range(0, len(places), some):
            yield from self.networks.scores(self.evaluated.blocks(), n_rows, places[first : first + some])

    def run(self, others: Sequence[Candidate], judge: Judge, metric: str) -> Iterator[Candidate]:
        """Train by successive halving, or, after another round, for each candidate's best number of epochs there.

        Candidates that halving stopped there are trained for one epoch, which shows how far behind they are.
        """
        codes, rank = self.evaluated.codes[self.evaluated.rows], _rank_by(metric)
        if others:
            epochs = [1 if other.stopped else other.epoch for other in others]
            return train_for(self.networks, self.epoch, self.look, judge, codes, epochs=epochs, rank=rank)
        epochs, patience = [head.epochs for head in self.heads], self.heads[0].patience
        return halve(self.networks, self.epoch, self.look, judge, codes, epochs=epochs, patience=patience, rank=rank)


def _rank_by(metric: str) -> Rank:
    """Return what ranks epochs and settings by a metric, then by log loss; by log loss, then by accuracy."""
    if metric == ACCURACY:
        return by_accuracy
    return _by_log_loss if metric == "log_loss" else partial(_by_counts, metric)


def _by_counts(metric: str, scores: FloatArray, codes: IntArray) -> tuple[float, float]:
    return of_predictions(metric, codes, scores.argmax(axis=1)), -log_loss(scores, codes)


def _by_log_loss(scores: FloatArray, codes: IntArray) -> tuple[float, float]:
    accuracy, loss = by_accuracy(scores, codes)
    return loss, accuracy


def _stored_like(X: FloatArray, n_rows: int, n_columns: int) -> torch.Tensor:
    return torch.from_numpy(array_stored_like(X, (n_rows, n_columns), working_dtype(X)))


def _trial(head: MLPHead, candidate: Candidate, note: str) -> Trial:
    judged: Trial = candidate.judged
    converged = bool(np.isfinite(candidate.rank[1]))
    diverged = f"learning_rate={head.learning_rate:g}, dropout={head.dropout:g}: training diverged."
    decided = {"epochs": candidate.epoch, **judged.decided}
    return replace(judged, decided=decided, converged=converged, note=note if converged else diverged)
