import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

import featurecache.classify.solvers.linear.active_rows
import featurecache.classify.solvers.linear.newton
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.solvers.linear.line_search import line_minimum
from featurecache.classify.solvers.linear.losses import SquaredHingeLoss
from featurecache.classify.solvers.linear.newton import solve_margins
from featurecache.classify.solvers.linear.objective import Objective
from featurecache.classify.solvers.linear.optimum import Room

STRENGTHS = [1e-4, 1e-2, 1.0, 100.0]


def problem(rounds=1, n=120, feature_dim=10, distance=1.0):
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 3
    X = rng.normal(size=(n, feature_dim)) + distance * np.eye(feature_dim)[codes]
    weights = rng.uniform(0.5, 2.0, size=n) * np.ones((rounds, 1))
    for number in range(rounds if rounds > 1 else 0):
        weights[number, number::rounds] = 0.0
    return X, codes, weights


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("distance", [1.0, 8.0])
@pytest.mark.parametrize("room", [Room(), Room(matrices_bytes=0)], ids=["matrices", "products"])
def test_no_slope_is_left_at_any_strength_in_any_round(kind, rounds, distance, room):
    X, codes, weights = problem(rounds, distance=distance)
    rows = Rows(kind(X), weights)
    objective = Objective(rows, codes, weights, SquaredHingeLoss(), 3)
    found = list(solve_margins(rows, codes, weights, 3, STRENGTHS, tol=1e-8, max_steps=100, room=room))
    assert sorted((o.setting, o.number) for o in found) == [(s, r) for s in range(4) for r in range(rounds)]
    for optimum in found:
        theta = rows.array(np.column_stack([optimum.weights, optimum.intercept])[:, None, :])
        parts = optimum.number * 3 + np.arange(3)
        value, gradient = objective(theta, np.full(3, STRENGTHS[optimum.setting]), parts)
        assert optimum.note == ""
        assert np.abs(np.asarray(gradient)).max() < 1e-5 * max(value.max(), 1.0)


def true_slope(Z, signs, strength, theta):
    """sqrt(g^T H^-1 g / F) of one class, from nothing but rows (N, D + 1) and their signs."""
    slack = np.maximum(1.0 - signs * (Z @ theta), 0.0)
    penalised = np.append(np.ones(len(theta) - 1), featurecache.classify.solvers.linear.active_rows.LEAST)
    gradient = -2.0 * strength * Z.T @ (signs * slack) + np.append(theta[:-1], 0.0)
    H = 2.0 * strength * Z[slack > 0].T @ Z[slack > 0] + np.diag(penalised)
    value = strength * (slack**2).sum() + 0.5 * (theta[:-1] ** 2).sum()
    return np.sqrt(gradient @ np.linalg.solve(H, gradient) / value)


@pytest.mark.parametrize("feature_dim", [20, 100])
def test_an_optimum_has_the_slope_that_was_asked_for_by_its_own_second_derivative(feature_dim):
    rng = np.random.default_rng(0)
    codes = np.arange(300) % 3
    X = rng.normal(size=(300, feature_dim)) + rng.normal(size=(3, feature_dim))[codes]
    rows, strengths = Rows(X, np.ones((1, 300))), np.geomspace(1e-5, 1e3, 33).tolist()
    Z = np.column_stack([rows.scalings[0].apply(X), np.ones(300)])
    for found in solve_margins(rows, codes, np.ones((1, 300)), 3, strengths, tol=2e-3, max_steps=100):
        for c, theta in enumerate(np.column_stack([found.weights, found.intercept])):
            slope = true_slope(Z, np.where(codes == c, 1.0, -1.0), strengths[found.setting], theta)
            # That of the solver has a jitter of a millionth on the diagonal, and no digits far below what was asked.
            assert slope <= max(1.05 * found.slope, 1e-6)
            assert found.slope <= 2e-3


def test_a_strength_on_the_way_to_the_one_asked_for_is_climbed_past_in_fewer_steps(monkeypatch):
    X, codes, weights = problem()
    steps, optima = [], []
    climb = featurecache.classify.solvers.linear.newton.NewtonBatch.climb

    def counted(batch, strength, **options):
        climb(batch, strength, **options)
        steps[-1] += int(batch.n_steps.sum())

    monkeypatch.setattr(featurecache.classify.solvers.linear.newton.NewtonBatch, "climb", counted)
    for passing in (0.0, featurecache.classify.solvers.linear.newton.PASSING):
        monkeypatch.setattr(featurecache.classify.solvers.linear.newton, "PASSING", passing)
        steps.append(0)
        (found,) = solve_margins(Rows(X, weights), codes, weights, 3, [10.0], tol=1e-8, max_steps=100)
        optima.append(np.column_stack([found.weights, found.intercept]))
    assert steps[1] < steps[0]
    assert optima[1] == pytest.approx(optima[0], abs=1e-6)


def test_batches_of_one_class_change_nothing():
    X, codes, weights = problem()
    expected = [
        o.weights for o in solve_margins(Rows(X, weights), codes, weights, 3, STRENGTHS, tol=1e-8, max_steps=100)
    ]
    alone = Room(matrices_bytes=2 * 11**2 * 8)
    found = [
        o.weights
        for o in solve_margins(Rows(X, weights), codes, weights, 3, STRENGTHS, tol=1e-8, max_steps=100, room=alone)
    ]
    assert np.stack(found) == pytest.approx(np.stack(expected), abs=1e-6)


@pytest.mark.parametrize(("at_once", "climbs"), [(9, [1, 1, 1]), (4, [1, 2, 3]), (1, [3, 6, 9])])
def test_a_strength_is_told_of_as_soon_as_the_last_class_of_a_round_is_through(monkeypatch, at_once, climbs):
    done = []
    climb = featurecache.classify.solvers.linear.newton.NewtonBatch.climb
    monkeypatch.setattr(
        featurecache.classify.solvers.linear.newton.NewtonBatch,
        "climb",
        lambda *each, **how: (climb(*each, **how), done.append(1)),
    )
    X, codes, weights = problem(rounds=3)
    room = Room(matrices_bytes=at_once * 2 * 11**2 * 8)
    strengths = [1e-3]
    found = [
        (len(done), o.number)
        for o in solve_margins(Rows(X, weights), codes, weights, 3, strengths, tol=1e-8, max_steps=100, room=room)
    ]
    per_climb = len(done) // -(-9 // at_once)
    assert found == [(n * per_climb, number) for number, n in enumerate(climbs)]


def test_no_strength_waits_for_a_stronger_one(monkeypatch):
    done = []
    climb = featurecache.classify.solvers.linear.newton.NewtonBatch.climb
    monkeypatch.setattr(
        featurecache.classify.solvers.linear.newton.NewtonBatch,
        "climb",
        lambda *each, **how: (climb(*each, **how), done.append(each)),
    )
    X, codes, weights = problem()
    found = solve_margins(Rows(X, weights), codes, weights, 3, STRENGTHS[::-1], tol=1e-8, max_steps=100)
    assert [(STRENGTHS[::-1][o.setting], done[-1][1]) for o in found] == [(C, C) for C in STRENGTHS]


def test_too_few_steps_are_said():
    X, codes, weights = problem()
    found = list(solve_margins(Rows(X, weights), codes, weights, 3, [1e-2], tol=1e-12, max_steps=1))
    assert found[-1].note.startswith("C=0.01: not converged after 1 steps: relative gap to the minimum at most ")
    assert found[-1].note.endswith(f"at most {found[-1].gap:.1e}, allowed 1e-14.")


def test_the_line_search_finds_the_minimum_of_a_piecewise_quadratic():
    rng = np.random.default_rng(3)
    slack, weights = rng.normal(size=(50, 4)), rng.uniform(0, 2, size=(50, 4))
    change, linear, square = rng.normal(size=(50, 4)), rng.normal(size=4), rng.uniform(0.1, 1, size=4)
    linear -= 2 * (weights * change * np.maximum(slack, 0)).sum(axis=0) + 1.0  # downhill at the start
    found = line_minimum(slack, change, weights, linear, square)
    for i in range(4):

        def along(a, i=i):
            rest = np.maximum(slack[:, i] + a * change[:, i], 0)
            return weights[:, i] @ rest**2 + a * linear[i] + 0.5 * a * a * square[i]

        best = minimize_scalar(along, bounds=(0, 100), method="bounded", options={"xatol": 1e-8}).x
        assert found[i] == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("room", [Room(), Room(matrices_bytes=0), Room(matrices_bytes=0, most_columns=50, rank=20)])
def test_no_minimum_is_below_what_is_proven_of_a_strength(dtype, room):
    rng = np.random.default_rng(0)
    codes, strengths = np.arange(400) % 4, np.geomspace(1e-5, 1e3, 9).tolist()
    X = (rng.normal(size=(400, 60)) + 0.5 * rng.normal(size=(4, 60))[codes]).astype(dtype)
    X *= np.geomspace(100.0, 0.01, 60).astype(dtype)
    weights, parts = np.ones((1, 400)), np.arange(4)
    exact = Objective(Rows(X.astype(np.float64), weights), codes, weights, SquaredHingeLoss(), 4)
    truths = {o.setting: o for o in solve_margins(exact.rows, codes, weights, 4, strengths, tol=1e-6, max_steps=200)}
    for found in solve_margins(Rows(X, weights), codes, weights, 4, strengths, tol=2e-3, max_steps=200, room=room):
        thetas = [np.column_stack([o.weights, o.intercept])[:, None, :] for o in (found, truths[found.setting])]
        value, least = (exact(theta, np.full(4, strengths[found.setting]), parts)[0].sum() for theta in thetas)
        assert found.note == ""
        assert truths[found.setting].gap < 1e-11
        assert value / least - 1.0 <= found.gap + 1e-8  # mean and scale of the columns have the digits of float32
        assert found.gap <= 2.5e-5
