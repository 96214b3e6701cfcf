from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import featurecache.classify.solvers.linear.certificate
import featurecache.classify.solvers.linear.lbfgs
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.solvers.linear.certificate import ExactObjective
from featurecache.classify.solvers.linear.lbfgs import descend
from featurecache.classify.solvers.linear.losses import SoftmaxLoss, SquaredHingeLoss
from featurecache.classify.solvers.linear.objective import Objective, gap_by_gradient
from featurecache.classify.solvers.linear.preconditioning import SpectralCurvature

LOSSES = pytest.mark.parametrize("loss", [SoftmaxLoss(), SquaredHingeLoss()], ids=["softmax", "hinge"])


def problem(loss, kind=np.asarray, n=60, feature_dim=4, dtype=np.float64):
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 3
    X = (rng.normal(size=(n, feature_dim)) + np.eye(feature_dim)[codes] + 3.0).astype(dtype)
    weights = rng.uniform(0.5, 2.0, size=(2, n))
    weights[0, 40:], weights[1, :15] = 0.0, 0.0
    objective = Objective(Rows(kind(X), weights), codes, weights, loss, 3)
    parts = np.arange(objective.n_parts)
    theta = np.random.default_rng(1).normal(size=(len(parts), objective.width, feature_dim + 1))
    return objective, X, codes, weights, theta, np.geomspace(0.1, 30.0, len(parts)), parts


def by_hand(objective, X, codes, weights, strength, part):
    """F(W, b) of one member, from nothing but rows, labels and weights."""
    number, c = divmod(int(part), objective.n_parts // objective.n_rounds)
    own, Z = weights[number], objective.rows.scalings[number].apply(X)

    def value(W, b):
        scores = Z @ W.T + b
        if objective.loss.joint:
            largest = scores.max(axis=1)
            losses = largest + np.log(np.exp(scores - largest[:, None]).sum(axis=1)) - scores[np.arange(len(X)), codes]
        else:
            losses = np.maximum(1.0 - np.where(codes == c, 1.0, -1.0) * scores[:, 0], 0.0) ** 2
        return strength * own @ losses + 0.5 * (W**2).sum()

    return value


def least(value, shape):
    """The minimum of F(W, b) for W (K, D) by scipy, to about twelve digits."""
    start, options = np.zeros(shape[0] * (shape[1] + 1)), {"maxiter": 5000, "gtol": 1e-9, "ftol": 1e-15}

    def flat(theta):
        return value(theta[: shape[0] * shape[1]].reshape(shape), theta[shape[0] * shape[1] :])

    return minimize(flat, start, method="L-BFGS-B", options={**options, "maxfun": 10**6}).fun


@LOSSES
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("far", [0.0, 40.0])
def test_the_value_is_the_least_over_the_intercepts_wherever_they_start(loss, kind, far):
    objective, X, codes, weights, theta, strengths, parts = problem(loss, kind)
    theta[:, :, -1] += far * np.arange(1, objective.width + 1)
    moved = kind(theta.copy())
    value, _ = ExactObjective(objective)(moved, strengths, parts)
    for member, part in enumerate(parts):
        W, F = theta[member, :, :-1], by_hand(objective, X, codes, weights, strengths[member], part)
        best = minimize(lambda b, W=W, F=F: F(W, b), np.zeros(objective.width), method="BFGS", tol=1e-9).fun
        assert value[member] == pytest.approx(best, rel=1e-9)
        assert F(W, np.asarray(moved[member, :, -1])) == pytest.approx(best, rel=1e-9)


@LOSSES
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_gradient_is_that_of_the_value(loss, kind):
    objective, *_, theta, strengths, parts = problem(loss, kind)
    exact = ExactObjective(objective)
    _, gradient = exact(kind(theta.copy()), strengths, parts)
    assert (np.asarray(gradient)[:, :, -1] == 0).all()
    for feature in range(4):
        step = np.zeros_like(theta)
        step[:, 0, feature] = 1e-5
        (higher, _), (lower, _) = (exact(kind(theta + sign * step), strengths, parts) for sign in (1, -1))
        assert np.asarray(gradient)[:, 0, feature] == pytest.approx((higher - lower) / 2e-5, rel=1e-5, abs=1e-5)


@LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_minimum_is_below_what_is_proven(loss, dtype):
    objective, X, codes, weights, theta, strengths, parts = problem(loss, dtype=dtype)
    exact = ExactObjective(objective)
    truth = np.array(
        [
            least(by_hand(objective, X.astype(np.float64), codes, weights, C, part), (objective.width, 4))
            for C, part in zip(strengths, parts, strict=True)
        ]
    )
    for size in (1.0, 0.3, 0.1):
        value, gradient = exact(size * theta, strengths, parts)
        proven = exact.gap(value, gradient)
        assert (value - truth <= proven * truth * (1 + 1e-9)).all()
        assert (value > truth).all()


def test_members_looked_at_one_by_one_are_as_together(monkeypatch):
    objective, *_, theta, strengths, parts = problem(SquaredHingeLoss())
    exact = ExactObjective(objective)
    together, gradient = exact(theta.copy(), strengths, parts)
    monkeypatch.setattr(featurecache.classify.solvers.linear.certificate, "SCORES_BYTES", 1)
    alone, each = exact(theta.copy(), strengths, parts)
    assert alone == pytest.approx(together, rel=1e-12)
    assert each == pytest.approx(gradient, rel=1e-9, abs=1e-9)


def test_intercepts_that_are_not_at_their_minimum_prove_nothing(monkeypatch):
    objective, *_, theta, strengths, parts = problem(SoftmaxLoss())
    monkeypatch.setattr(featurecache.classify.solvers.linear.certificate, "INTERCEPT_STEPS", 1)
    theta[:, :, -1] += 40.0 * np.arange(3)
    exact = ExactObjective(objective)
    assert np.isinf(exact.gap(*exact(theta, strengths, parts))).all()


def test_a_gap_is_a_part_of_the_minimum():
    gradient = np.zeros((4, 1, 3))
    gradient[0, 0], gradient[1, 0, 0], gradient[2, 0, 0] = [1.0, 1.0, 9.0], 2.0, 3.0
    assert gap_by_gradient(np.array([5.0, 4.0, 2.0, 0.0]), gradient, np) == pytest.approx([0.25, 1.0, np.inf, 0.0])


def test_rows_of_one_label_have_intercepts_without_a_minimum_and_a_gap_all_the_same():
    objective, *_, theta, strengths, parts = problem(SoftmaxLoss())
    objective.codes[...] = 1
    exact = ExactObjective(objective)
    value, gradient = exact(np.zeros_like(theta), strengths, parts)
    assert (value < 1e-15 * strengths).all()
    assert (exact.gap(value, gradient) < 1e-9).all()


class Wild:
    """A preconditioner far too bold: the descent it gives overshoots, and its gradients grow at times."""

    def solve(self, gradient, strengths, parts):
        return 100.0 * gradient


@LOSSES
def test_what_a_point_has_proven_holds_for_those_after_it(loss, monkeypatch):
    """What is proven never falls behind: the gap shrinks with every pass, though gradients grow, and stays true."""
    objective, X, codes, weights, theta, strengths, parts = problem(loss)
    monkeypatch.setattr(featurecache.classify.solvers.linear.lbfgs, "LOOKED", 100)
    exact, worse = ExactObjective(objective), 0
    truths = [
        least(by_hand(objective, X, codes, weights, strengths[i], part), theta[i, :, :-1].shape)
        for i, part in enumerate(parts)
    ]
    before = np.full(len(parts), np.inf)
    for n_passes in range(1, 31, 2):
        found = descend(exact, theta, strengths, parts, Wild(), tol=np.inf, gap=0.0, most=100, max_passes=n_passes)
        assert (found.gap <= before).all()
        assert (found.objective / truths - 1.0 <= found.gap + 1e-11).all()
        value, gradient = exact(found.theta.copy(), strengths, parts)
        worse += (exact.gap(value, gradient) > 1.01 * found.gap).sum()
        before = found.gap
    assert worse > 0


class Timid:
    """A preconditioner that sees next to nothing of the curvature: every step is tiny."""

    def solve(self, gradient, strengths, parts):
        return 1e-6 * gradient


@LOSSES
def test_a_proof_that_would_take_too_long_is_not_gone_on_with(loss, monkeypatch):
    """At the speed of the first steps it would take more passes than there may be; or the gap is too large already."""
    objective, *_, theta, strengths, parts = problem(loss)
    monkeypatch.setattr(featurecache.classify.solvers.linear.lbfgs, "MEMORY", 1)
    ends = partial(descend, ExactObjective(objective), theta, strengths, parts, Timid(), tol=np.inf, max_passes=90)
    assert (ends(gap=1e-9, most=90).n_passes <= 90 / 2).all()
    assert (ends(gap=1e-9, most=90, far=1e-8).n_passes == 1).all()
    assert not ends(gap=1e-9, most=90).converged.any()


def test_a_proof_whose_first_point_proves_nothing_goes_on(monkeypatch):
    """From intercepts that are not settled nothing is proven; that says nothing of the speed."""
    objective, *_, theta, strengths, parts = problem(SoftmaxLoss())
    gaps = iter([np.full(len(parts), np.inf)] * 2)
    exact, own = ExactObjective(objective), ExactObjective.gap
    monkeypatch.setattr(ExactObjective, "gap", lambda *each: next(gaps, own(*each)))
    curvature = SpectralCurvature(objective)
    found = descend(exact, theta, strengths, parts, curvature, tol=np.inf, gap=1e-3, most=90, max_passes=90)
    assert found.n_passes.max() > featurecache.classify.solvers.linear.lbfgs.LOOKED + 1
