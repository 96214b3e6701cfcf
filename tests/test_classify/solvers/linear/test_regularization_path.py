import numpy as np
import pytest

import featurecache.classify.solvers.linear.regularization_path
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.solvers.linear.lbfgs import descend
from featurecache.classify.solvers.linear.losses import SoftmaxLoss
from featurecache.classify.solvers.linear.objective import Objective
from featurecache.classify.solvers.linear.optimum import Room
from featurecache.classify.solvers.linear.preconditioning import SpectralCurvature
from featurecache.classify.solvers.linear.regularization_path import solve_path
from featurecache.classify.solvers.linear.rungs import rungs_above

STRENGTHS = [1e3, 1e-4, 0.1, 1.0, 0.3, 30.0]


def problem(n=120, feature_dim=10, separable=False, rounds=1):
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 3
    X = rng.normal(size=(n, feature_dim)) + (6.0 if separable else 1.0) * np.eye(feature_dim)[codes]
    weights = np.ones((rounds, n))
    for number in range(rounds if rounds > 1 else 0):
        weights[number, number::rounds] = 0.0
    return Objective(Rows(X, weights), codes, weights, SoftmaxLoss(), 3), codes


def theta_of(optimum):
    return np.column_stack([optimum.weights, optimum.intercept])


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("rounds", [1, 3])
def test_every_strength_in_every_round_comes_once_and_has_no_slope_left(separable, rounds):
    objective, _ = problem(separable=separable, rounds=rounds)
    found = list(solve_path(objective, STRENGTHS, tol=1e-5, max_passes=500))
    assert sorted((o.setting, o.number) for o in found) == [(s, r) for s in range(6) for r in range(rounds)]
    for optimum in found:
        strength, number = np.array([STRENGTHS[optimum.setting]]), np.array([optimum.number])
        value, gradient = objective(theta_of(optimum)[None], strength, number)
        assert optimum.note == ""
        # The objective is strongly convex but for the intercept: it is at most |g|^2 / 2 above its minimum.
        assert (gradient[:, :, :-1] ** 2).sum() / 2 < 1e-4 * value[0]


def test_a_path_ends_where_each_strength_alone_ends():
    objective, _ = problem()
    together = {o.setting: theta_of(o) for o in solve_path(objective, STRENGTHS, tol=1e-7, max_passes=500)}
    for setting, strength in enumerate(STRENGTHS):
        (alone,) = solve_path(objective, [strength], tol=1e-7, max_passes=500)
        assert together[setting] == pytest.approx(theta_of(alone), abs=1e-4)


def test_a_strength_on_the_way_to_the_one_asked_for_is_passed_through_roughly(monkeypatch):
    optima, n_passes = [], []
    for passing in (0.0, featurecache.classify.solvers.linear.regularization_path.PASSING):
        monkeypatch.setattr(featurecache.classify.solvers.linear.regularization_path, "PASSING", passing)
        objective, _ = problem(separable=True)
        (found,) = solve_path(objective, [1e3], tol=1e-7, max_passes=500)
        optima.append(theta_of(found))
        n_passes.append(objective.n_passes)
    assert n_passes[1] < n_passes[0]
    assert optima[1] == pytest.approx(optima[0], abs=1e-4)


@pytest.mark.parametrize("room", [Room(blocks_bytes=0), Room(blocks_bytes=0, most_columns=5, rank=4)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_without_room_for_blocks_or_for_the_spectrum_the_path_leads_to_the_same_place(room, rounds):
    objective, _ = problem(rounds=rounds)
    expected = {(o.setting, o.number): theta_of(o) for o in solve_path(objective, STRENGTHS, tol=1e-7, max_passes=500)}
    for found in solve_path(objective, STRENGTHS, tol=1e-7, max_passes=500, room=room):
        assert found.weights == pytest.approx(expected[found.setting, found.number][:, :-1], rel=1e-3, abs=1e-4)


def features(n, feature_dim, n_classes):
    """Pooled features in small: sparse, not negative, their variances falling like k^-1.25; a tenth of labels wrong."""
    rng = np.random.default_rng(0)
    codes = np.arange(n) % n_classes
    spread = np.arange(1.0, feature_dim + 1) ** (-1.25 / 2)
    hidden = (rng.normal(size=(n, feature_dim)) + 0.5 * rng.normal(size=(n_classes, feature_dim))[codes]) * spread
    mixed = hidden @ rng.normal(size=(feature_dim, feature_dim)) / np.sqrt(feature_dim)
    X = np.maximum(mixed - rng.uniform(0.0, 0.1, size=feature_dim), 0.0) * rng.lognormal(size=feature_dim)
    wrong = rng.uniform(size=n) < 0.1
    return X.astype(np.float32), np.where(wrong, rng.permutation(codes), codes)


# In small what has no room at 192 MiB: 40 classes of 1280 columns, 10 of 2304, and 10 of 8192.
SHAPES = pytest.mark.parametrize(
    ("n", "feature_dim", "n_classes", "room"),
    [
        (600, 64, 40, Room(blocks_bytes=0)),
        (500, 128, 10, Room(blocks_bytes=0)),
        (500, 400, 10, Room(blocks_bytes=0, most_columns=300, rank=64)),
    ],
)


@SHAPES
def test_the_gap_is_proven_at_every_strength_and_no_minimum_is_below_it(n, feature_dim, n_classes, room):
    X, codes = features(n, feature_dim, n_classes)
    weights, strengths, loss = np.ones((1, n)), np.geomspace(1e-4, 1e3, 8).tolist(), SoftmaxLoss()
    objective = Objective(Rows(X, weights), codes, weights, loss, n_classes)
    found = list(solve_path(objective, strengths, tol=4e-3, max_passes=500, room=room))
    exact = Objective(Rows(X.astype(np.float64), weights), codes, weights, loss, n_classes)
    truths = {o.setting: o for o in solve_path(exact, strengths, tol=4e-6, max_passes=2000)}
    assert sorted(o.setting for o in found) == list(range(8))
    for optimum in found:
        truth, C, first = truths[optimum.setting], np.array([strengths[optimum.setting]]), np.zeros(1, int)
        value, least = (float(exact(theta_of(o)[None], C, first)[0][0]) for o in (optimum, truth))
        assert optimum.note == ""
        assert optimum.n_passes < 200
        assert truth.gap < 1e-9
        assert value / least - 1.0 <= optimum.gap <= 1e-4


def test_batches_cut_by_the_memory_budget_change_nothing(monkeypatch):
    objective, _ = problem()
    expected = [theta_of(o) for o in solve_path(objective, STRENGTHS, tol=1e-7, max_passes=500)]
    monkeypatch.setattr(featurecache.classify.solvers.linear.regularization_path, "BATCH_BYTES", 1)
    found = [theta_of(o) for o in solve_path(objective, STRENGTHS, tol=1e-7, max_passes=500)]
    assert np.stack(found) == pytest.approx(np.stack(expected), abs=1e-4)


def test_too_few_passes_are_said():
    objective, _ = problem()
    (found,) = solve_path(objective, [1e-4], tol=1e-9, max_passes=2)
    assert found.gap > 1e-14
    assert found.note == (
        f"C=0.0001: not converged after 2 passes: relative gap to the minimum at most {found.gap:.1e}, allowed 1e-14."
    )


def test_a_member_whose_arithmetic_is_at_its_end_leaves_unconverged():
    objective, _ = problem()
    start = np.zeros((1, 3, 11))
    found = descend(
        objective, start, np.ones(1), np.zeros(1, int), SpectralCurvature(objective), tol=0.0, max_passes=5000
    )
    assert not found.converged[0]
    assert found.n_passes[0] < 500
    assert found.slope[0] < 1e-5


@pytest.mark.parametrize(("part", "enough"), [(0.5, True), (0.2, False)])
def test_the_end_of_the_arithmetic_is_an_optimum_only_near_the_slope_that_was_asked_for(part, enough):
    objective, _ = problem()
    curvature, start = SpectralCurvature(objective), np.zeros((1, 3, 11))

    def ended(tol):
        return descend(objective, start, np.ones(1), np.zeros(1, int), curvature, tol=tol, max_passes=5000)

    last = float(ended(0.0).slope[0])
    assert ended(part * last).converged[0] == enough


def test_rungs_are_wanted_strengths_at_most_a_decade_apart():
    assert rungs_above(1.0, []) == [1.0]
    assert rungs_above(1.0, [2.0, 5.0, 10.0, 50.0]) == [1.0, 10.0, 50.0]
    assert rungs_above(1.0, [500.0]) == pytest.approx([1.0, 500 ** (1 / 3), 500 ** (2 / 3), 500.0])
    assert rungs_above(1.0, [2.0, 200.0]) == pytest.approx([1.0, 2.0, 20.0, 200.0])
    assert rungs_above(1.0, [500.0])[-1] == 500.0


def test_rungs_stand_closer_above_one_on_whose_way_curvature_was_measured_anew(monkeypatch):
    """What lies between is a rung of its own then, and starts from nearer."""
    objective, _ = problem()
    reached, stepped = [], featurecache.classify.solvers.linear.regularization_path._Climb.step

    def step(climb, above, between):
        reached.append((climb.blocked, above))
        return stepped(climb, above, between)

    monkeypatch.setattr(featurecache.classify.solvers.linear.regularization_path._Climb, "step", step)
    strengths = np.geomspace(1e-1, 1e4, 11).tolist()
    list(solve_path(objective, strengths, tol=1e-7, max_passes=500))
    far = [above for blocked, above in reached if blocked]
    reached.clear()
    monkeypatch.setattr(featurecache.classify.solvers.linear.regularization_path, "REFRESH", 2)
    list(solve_path(objective, strengths, tol=1e-7, max_passes=500))
    near = [above for blocked, above in reached if blocked]
    assert np.log10(np.divide(far[1:], far[:-1])) == pytest.approx(1.0)
    assert np.log10(np.divide(near[2:], near[1:-1])) == pytest.approx(0.5)
