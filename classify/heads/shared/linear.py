"""Linear heads: coef_ (C, D) and intercept_ (C,) on raw features, whatever loss they minimise."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from array_api_compat import is_numpy_array

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows, scores_of, side_by_side
from featurecache.classify.arrays.scaling import Scaling
from featurecache.classify.heads.fitted.kinds import FittedLinear
from featurecache.classify.heads.shared.base import ScoredHead
from featurecache.classify.heads.shared.parameters import equal_settings
from featurecache.classify.heads.shared.trials import Trial, judge_scores
from featurecache.classify.heads.shared.validation import GridRows, begin_grid, row_weights
from featurecache.classify.solvers.linear.optimum import ROOM, Optimum

# The slope to which float64 features are fitted.
EXACT = 1e-9


class LinearHead(FittedLinear, ScoredHead):
    """Scores are X coef_^T + intercept_; a subclass solves all its settings in all rounds of a sweep together.

    `coef_` always has one row per class, for two classes as well; the standardisation is folded into it, so a fitted
    linear head carries no scaler. `n_iter_` counts passes or steps, `slope_` says how flat the objective was at the end
    by what the solver knows of its second derivative. `gap_` is proven: the objective is at most that part of its
    minimum above it, before the weights are rounded to the digits of the features; 0 where the optimum is computed.
    """

    # Whether it minimises a loss and a ridge penalty by descent, whose matrices are D by D.
    descends: ClassVar[bool] = False
    # The parameter whose settings are solved one after the other, the strongest penalty first; where there is one, the
    # stronger settings need not be taken from `try_grid`.
    climbs: ClassVar[str | None] = None
    # Settings of several class weights are solved one class weight after the other.
    common: ClassVar[tuple[str, ...]] = ()
    n_iter_: int
    slope_: float
    gap_: float
    class_weight: str | Mapping[Any, float] | None

    @classmethod
    def try_grid(
        cls,
        heads: Sequence[Self],
        X: FloatArray,
        y: AnyArray,
        rounds: Sequence[BoolArray],
        sample_weight: FloatArray | None = None,
    ) -> Iterator[tuple[int, int, Trial]]:
        """Solve the heads of all rounds together, and yield a trial of each: see `classify.heads.shared.trials`."""
        grid = begin_grid(heads, X, y, sample_weight)
        for settings in equal_settings([head.class_weight for head in heads]):
            some = [heads[setting] for setting in settings]
            for numbers, present in _rounds_by_classes(grid, rounds):
                trained = np.stack([~rounds[number] for number in numbers])
                for place, which, head in cls._solve_rounds(some, grid, present, trained):
                    number = numbers[which]
                    scores = scores_of(grid.X, np.flatnonzero(rounds[number]), head.coef_, head.intercept_)
                    yield settings[place], number, judge_scores(head, scores, grid.labels(rounds[number]))

    @classmethod
    def _solve_rounds(
        cls, heads: Sequence[Self], grid: GridRows, present: IntArray, trained: BoolArray
    ) -> Iterator[tuple[int, int, Self]]:
        """Fit heads of one class weight on the rows trained (R, N), of the classes present; yield head, round, head."""
        X, classes = grid.X, grid.classes[present]
        local = np.searchsorted(present, grid.codes).clip(max=len(present) - 1)
        own = grid.weights * trained
        weights = np.zeros_like(own)
        for number, here in enumerate(trained):
            weights[number, here] = row_weights(heads[0].class_weight, classes, local[here], own[number, here])
        is_wide = cls.descends and is_numpy_array(X) and X.shape[0] < min(X.shape[1], ROOM.most_columns)
        solve = _solve_in_span if is_wide else _solve_together
        for scaling, found in solve(partial(cls._optima, heads), X, own, local, weights, len(present)):
            head = heads[found.setting]
            head.classes_, head.n_iter_ = classes, max(found.n_passes, 1)
            head.slope_, head.gap_ = found.slope, found.gap
            yield found.setting, found.number, head._learn(scaling, found, X)

    def _solve(
        self, heads: Sequence[Self], X: FloatArray, codes: IntArray, sample_weight: FloatArray | None
    ) -> Iterator[Self]:
        present, trained = np.arange(len(self.classes_)), np.ones((1, len(codes)), dtype=bool)
        grid = GridRows(X, codes, self.classes_, row_weights(None, self.classes_, codes, sample_weight))
        for _, _, head in self._solve_rounds(heads, grid, present, trained):
            yield head

    @classmethod
    @abstractmethod
    def _optima(
        cls, heads: Sequence[Self], rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int
    ) -> Iterator[Optimum]:
        """Yield the optimum of every head in every round, for class codes (N,) and weights (R, N)."""

    def _learn(self, scaling: Scaling, found: Optimum, like: FloatArray) -> Self:
        """Keep an optimum on standardised columns as one on raw columns, float64 for X like that, else float32."""
        coef, folded = scaling.fold(found.weights, found.intercept)
        dtype = np.float64 if str(like.dtype).endswith("float64") else np.float32
        self.coef_, self.intercept_ = coef.astype(dtype), folded.astype(dtype)
        self.converged_, self.note_ = not found.note, found.note
        return self


def _solve_together(
    optima: Callable[..., Iterator[Optimum]],
    X: FloatArray,
    own: FloatArray,
    codes: IntArray,
    weights: FloatArray,
    n_classes: int,
) -> Iterator[tuple[Scaling, Optimum]]:
    """Yield the optima of all rounds in one batch, each with the scaling of its round."""
    order = side_by_side(X, own)
    if order is not None:
        X, own, codes, weights = X[order], own[:, order], codes[order], weights[:, order]
    rows = Rows(X, own)
    for found in optima(rows, codes, weights, n_classes):
        yield rows.scalings[found.number], found


def _solve_in_span(
    optima: Callable[..., Iterator[Optimum]],
    X: FloatArray,
    own: FloatArray,
    codes: IntArray,
    weights: FloatArray,
    n_classes: int,
) -> Iterator[tuple[Scaling, Optimum]]:
    """Do the same for fewer rows than columns: a penalised optimum lies in the span of the rows (representer theorem).

    Z (n, D), the standardised rows of a round, is R^T Q^T with orthonormal Q (D, n): the problem is solved for R^T,
    whose matrices are n by n, and its weights v stand for w = Q v, of the same length.
    """
    for number, used in enumerate(own > 0):
        (scaling,) = Rows(X, own[[number]]).scalings
        basis, small = np.linalg.qr(scaling.apply(X[used].astype(np.float64)).T)
        rows = Rows(small.T.astype(X.dtype), own[[number]][:, used], standard=True)
        for found in optima(rows, codes[used], weights[[number]][:, used], n_classes):
            yield scaling, replace(found, number=number, weights=found.weights @ basis.T)


def tightest(tols: Sequence[float | None], rows: Rows, usual: float) -> float:
    """Return the smallest `tol` of some heads; None stands for the usual one, for float64 rows for 1e-9."""
    unsaid = EXACT if rows.dtype == rows.xp.float64 else usual
    return min(unsaid if tol is None else tol for tol in tols)


def _rounds_by_classes(grid: GridRows, rounds: Sequence[BoolArray]) -> list[tuple[list[int], IntArray]]:
    """Return the rounds grouped by the class codes they train on. Raises ValueError where those are fewer than two."""
    groups: dict[bytes, list[int]] = {}
    found = [grid.present(held_out) for held_out in rounds]
    for number, there in enumerate(found):
        if there.sum() < 2:
            raise ValueError(f"Found {there.sum()} class to train on in a round: a head needs at least two classes.")
        groups.setdefault(there.tobytes(), []).append(number)
    return [(numbers, np.flatnonzero(found[numbers[0]])) for numbers in groups.values()]
