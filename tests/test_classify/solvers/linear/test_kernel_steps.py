"""Steps by kernels of the active rows: the optima of steps by matrices, in every round, at every strength."""

import numpy as np
import pytest

from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.solvers.linear import kernel_steps, newton
from featurecache.classify.solvers.linear.kernel_steps import KernelSteps, kernel_fits
from featurecache.classify.solvers.linear.losses import SquaredHingeLoss
from featurecache.classify.solvers.linear.newton import solve_margins
from featurecache.classify.solvers.linear.objective import Objective
from featurecache.classify.solvers.linear.optimum import ROOM, Room

STRENGTHS = [1e-5, 1e-3, 1e-1, 1.0, 100.0]
TOL = 2e-3


def problem(rounds=1, n=140, feature_dim=80, distance=1.0):
    """Rows whose columns have deviations from 1 to 0.03, as features have; twenty of them are there twice."""
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 4
    X = rng.normal(size=(n, feature_dim)) * np.geomspace(1.0, 0.03, feature_dim)
    X = X @ np.linalg.qr(rng.normal(size=(feature_dim, feature_dim)))[0]
    X += distance * np.eye(feature_dim)[codes]
    X[-20:], codes[-20:] = X[:20], codes[:20]
    weights = rng.uniform(0.5, 2.0, size=n) * np.ones((rounds, 1))
    for number in range(rounds if rounds > 1 else 0):
        weights[number, number::rounds] = 0.0
    return X.astype(np.float32), codes, weights


def solved(X, codes, weights, **how):
    rows = Rows(X, weights)
    found = solve_margins(rows, codes, weights, 4, STRENGTHS, **{"tol": TOL, "max_steps": 100} | how)
    return rows, {(each.setting, each.number): each for each in found}


def objective_of(rows, codes, weights, found) -> float:
    Z = rows.scalings[found.number].apply(rows.X.astype(np.float64))
    signs = np.where(codes[:, None] == np.arange(4), 1.0, -1.0)
    slack = np.maximum(1.0 - signs * (Z @ found.weights.T + found.intercept), 0.0)
    loss = (weights[found.number][:, None] * slack**2).sum()
    return float(STRENGTHS[found.setting] * loss + 0.5 * (found.weights**2).sum())


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("distance", [0.5, 3.0])
@pytest.mark.parametrize("learned", [0.0, kernel_steps.LEARNED, 1e9], ids=["kernels", "both", "products"])
def test_optima_are_those_of_matrices_and_proven(rounds, distance, learned, monkeypatch):
    X, codes, weights = problem(rounds, distance=distance)
    _, exact = solved(X.astype(np.float64), codes, weights, tol=1e-8)
    monkeypatch.setattr(kernel_steps, "LEARNED", learned)
    monkeypatch.setattr(kernel_steps, "SMALL", 0.0)
    rows, found = solved(X, codes, weights)
    assert sorted(found) == sorted(exact)
    for key, each in found.items():
        least, value = (objective_of(rows, codes, weights, one) for one in (exact[key], each))
        assert each.note == ""
        assert each.slope <= TOL
        assert value <= least * (1.0 + newton.proven_by(TOL))
        assert value <= least * (1.0 + each.gap) * (1.0 + 1e-9)


def test_batches_of_a_few_classes_change_nothing(monkeypatch):
    X, codes, weights = problem(2)
    _, expected = solved(X, codes, weights)
    monkeypatch.setattr(newton, "SCORES_BYTES", 3 * 2 * len(X) * 4)
    sizes = []
    make = newton.NewtonBatch.__init__

    def counted(batch, *given):
        make(batch, *given)
        sizes.append(len(batch.members))
        assert isinstance(batch.second, KernelSteps)

    monkeypatch.setattr(newton.NewtonBatch, "__init__", counted)
    _, found = solved(X, codes, weights)
    assert sizes == [3, 1, 3, 1]  # none has members of both rounds
    for key, each in found.items():
        assert each.weights == pytest.approx(expected[key].weights, abs=2e-2 * np.abs(expected[key].weights).max())


def test_a_class_without_rows_in_a_round_is_solved_too():
    X, codes, weights = problem()
    weights[0, codes == 3] = 0.0
    _, found = solved(X, codes, weights)
    for each in found.values():
        assert each.note == ""
        assert np.abs(each.weights[3]).max() < 1e-3


def test_a_matrix_that_rounding_has_left_indefinite_is_none():
    matrix, ridge, right = -np.eye(3, dtype=np.float32), np.zeros(3, np.float32), np.ones((3, 2), np.float32)
    assert kernel_steps._solve(matrix, ridge, right) is None
    solved_ = kernel_steps._solve(np.ones((3, 3), np.float32), np.full(3, 0.5, np.float32), right)
    assert solved_ == pytest.approx(np.full((3, 2), 1 / 3.5), rel=1e-5)


@pytest.mark.parametrize(
    ("n_rows", "kind", "room", "expected"),
    [
        (200, np.float32, ROOM, True),
        (201, np.float32, ROOM, False),
        (200, np.float64, ROOM, False),
        (200, np.float16, ROOM, True),
        (200, np.float32, Room(matrices_bytes=2 * (12 * 200**2 + 8 * 200 * 80) - 1), False),
    ],
)
def test_kernels_are_for_few_rows_in_single_precision(n_rows, kind, room, expected):
    X, weights = np.random.default_rng(0).normal(size=(n_rows, 80)).astype(kind), np.ones((1, n_rows))
    objective = Objective(Rows(X, weights), np.arange(n_rows) % 2, weights, SquaredHingeLoss(), 2)
    assert kernel_fits(objective, room) is expected


def test_rows_without_a_weight_do_not_count_and_change_no_optimum():
    X, codes, weights = problem()
    beyond = np.concatenate([np.full((70, 80), 3.0, np.float32), X]), np.r_[np.zeros(70, int), codes]
    held_out = np.concatenate([np.zeros((1, 70)), weights], axis=1)
    objective = Objective(Rows(beyond[0], held_out), beyond[1], held_out, SquaredHingeLoss(), 4)
    assert kernel_fits(objective, ROOM)
    (_, expected), (_, found) = solved(X, codes, weights), solved(*beyond, held_out)
    for key, each in found.items():
        assert each.note == ""
        assert each.weights == pytest.approx(expected[key].weights, abs=1e-3 * np.abs(expected[key].weights).max())
