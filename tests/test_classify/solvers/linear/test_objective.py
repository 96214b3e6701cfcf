import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.arrays.scaling import fit_scalings
from featurecache.classify.solvers.linear.losses import SoftmaxLoss, SquaredHingeLoss
from featurecache.classify.solvers.linear.objective import Objective
from featurecache.classify.solvers.linear.optimum import Room
from featurecache.classify.solvers.linear.preconditioning import BlockCurvature, SpectralCurvature, inverse_root


def problem(loss, kind=np.asarray, n=40, feature_dim=3):
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 3
    X = rng.normal(size=(n, feature_dim)) + np.eye(3)[codes][:, :feature_dim]
    weights = rng.uniform(0.5, 2.0, size=(2, n))
    weights[0, 30:], weights[1, :10] = 0.0, 0.0
    return Objective(Rows(kind(X), weights), codes, weights, loss, 3), X, codes, weights


def members(objective):
    parts = np.arange(objective.n_parts)
    theta = np.random.default_rng(1).normal(size=(len(parts), objective.width, 4))
    return theta, np.geomspace(0.1, 10.0, len(parts)), parts


@pytest.mark.parametrize("loss", [SoftmaxLoss(), SquaredHingeLoss()])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_gradient_of_every_member_is_that_of_its_objective(loss, kind):
    objective, *_ = problem(loss, kind)
    theta, strengths, parts = members(objective)
    value, gradient = objective(objective.rows.array(theta), strengths, parts)
    for i in range(len(parts)):

        def alone(flat, i=i):
            one = objective.rows.array(flat.reshape(1, *theta.shape[1:]))
            return objective(one, strengths[[i]], parts[[i]])[0][0]

        assert value[i] == pytest.approx(alone(theta[i].ravel()))
        assert np.asarray(gradient[i]).ravel() == pytest.approx(
            approx_fprime(theta[i].ravel(), alone), rel=1e-3, abs=1e-3
        )


def test_the_objective_is_the_formula_on_each_rounds_own_rows():
    objective, X, codes, weights = problem(SoftmaxLoss())
    theta, strengths, parts = members(objective)
    value, _ = objective(theta, strengths, parts)
    for number, (W, C) in enumerate(zip(theta, strengths, strict=True)):
        w = weights[number]
        scores = fit_scalings(X, w[None])[0].apply(X) @ W[:, :-1].T + W[:, -1]
        log_proba = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        expected = -C * w @ log_proba[np.arange(40), codes] + 0.5 * (W[:, :-1] ** 2).sum()
        assert value[number] == pytest.approx(expected)


def test_the_curvature_in_blocks_is_the_second_derivative_of_each_class():
    objective, *_ = problem(SoftmaxLoss())
    theta, strengths, parts = members(objective)
    curvature = BlockCurvature(objective)
    curvature.measure(theta[:1], float(strengths[0]), 0)
    for code in range(3):
        step = np.zeros_like(theta[:1])
        step[0, code, 1] = 1e-5
        _, higher = objective(theta[:1] + step, strengths[:1], parts[:1])
        _, lower = objective(theta[:1] - step, strengths[:1], parts[:1])
        right = np.zeros_like(step)
        right[0, code] = ((higher - lower) / 2e-5)[0, code]
        found = right[0, code] @ curvature.roots[code].T @ curvature.roots[code]
        # The rows with the least curvature are left out, so that this is not exact.
        assert found == pytest.approx([0, 1, 0, 0], abs=0.05)
        solved = curvature.solve(right, strengths[:1], parts[:1])
        assert solved.sum(axis=1) == pytest.approx(np.zeros((1, 4)), abs=1e-9)


@pytest.mark.parametrize("loss", [SoftmaxLoss(), SquaredHingeLoss()], ids=["softmax", "hinge"])
def test_the_spectral_curvature_is_exact_where_every_row_has_the_typical_curvature(loss):
    objective, *_ = problem(loss)
    parts = np.arange(objective.n_parts)
    strengths = np.full(len(parts), 2.0)
    gradient = np.random.default_rng(2).normal(size=(len(parts), objective.width, 4))
    gradient -= gradient.mean(axis=1, keepdims=True) if loss.joint else 0.0
    solved = SpectralCurvature(objective).solve(gradient, strengths, parts)
    used = objective.rows.used
    Z = objective.rows.standardised(used, 0)
    for part in parts:
        total = objective.total[part // (objective.n_parts // 2)]
        H = 2.0 * loss.curvature * total * Z.T @ Z / len(used) + np.eye(3)
        assert solved[part, :, :-1] @ H == pytest.approx(gradient[part, :, :-1])


def test_between_two_strengths_the_measured_curvature_is_interpolated():
    objective, *_ = problem(SquaredHingeLoss())
    theta, _, parts = members(objective)
    curvature = SpectralCurvature(objective)
    curvature.measure(0.1 * theta, 1.0)
    curvature.measure(theta, 100.0)
    unit = np.zeros_like(theta)
    unit[:, :, -1] = 1.0

    def at(strength):
        return 1.0 / curvature.solve(unit, np.full(len(parts), strength), parts)[:, 0, -1]

    low, high = objective.seconds_summed(0.1 * theta, parts)[:, 0], objective.seconds_summed(theta, parts)[:, 0]
    assert at(0.5) == pytest.approx(0.5 * low)
    assert at(10.0) == pytest.approx(10.0 * np.sqrt(low * high))
    assert at(1000.0) == pytest.approx(1000.0 * high)
    assert objective.seconds(theta, np.ones(len(parts)), parts).sum(axis=0) == pytest.approx(high, rel=1e-5)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_largest_eigenvectors_alone_are_nearly_all_of_the_spectral_curvature(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 80)) * np.arange(1, 81) ** -1.0 @ rng.normal(size=(80, 80))
    weights, codes = np.ones((1, 300)), np.arange(300) % 3
    objective = Objective(Rows(kind(X), weights), codes, weights, SoftmaxLoss(), 3)
    whole, part = SpectralCurvature(objective), SpectralCurvature(objective, Room(most_columns=79, rank=40))
    assert part.basis.shape == (80, 40)
    assert part.eigenvalues[:10] == pytest.approx(whole.eigenvalues[::-1][:10], rel=0.05)
    assert part.eigenvalues.sum() + 40 * part.rest == pytest.approx(whole.eigenvalues.sum(), rel=1e-6)
    gradient = objective.rows.array(rng.normal(size=(1, 3, 81)))
    expected, found = (
        np.asarray(each.solve(gradient, np.array([0.01]), np.zeros(1, int))).ravel() for each in (whole, part)
    )
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_root_of_the_inverse_is_one_even_where_rounding_has_spoilt_the_matrix(kind):
    A = np.random.default_rng(0).normal(size=(30, 60))
    root = np.asarray(inverse_root(kind(A @ A.T)))
    assert root.T @ root @ A @ A.T == pytest.approx(np.eye(30), abs=1e-3)
    indefinite = np.diag(np.append(np.ones(29), -1e-3))
    assert np.isfinite(np.asarray(inverse_root(kind(indefinite)))).all()
