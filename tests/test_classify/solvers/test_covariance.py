import numpy as np
import pytest

import featurecache.classify.solvers.covariance
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.solvers.covariance import SignRegression, decompose_rows, single_ridge, spectra


def problem(n, feature_dim, rounds):
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(n, feature_dim)) * np.geomspace(1, 5, feature_dim) + 2.0, np.arange(n) % 3
    weights = rng.uniform(0.5, 2.0, size=n) * np.ones((rounds, 1))
    for number in range(rounds):
        weights[number, number::rounds] = 0.0
    return X, codes, weights


@pytest.mark.parametrize("shape", [(60, 6), (20, 40)], ids=["tall", "wide"])
@pytest.mark.parametrize("within", [False, True])
def test_the_spectrum_of_a_round_is_that_of_the_rows_it_trains_on(shape, within, monkeypatch):
    monkeypatch.setattr(featurecache.classify.solvers.covariance, "BLOCK", 7)
    X, codes, weights = problem(*shape, rounds=4)
    rows = Rows(X, weights)
    for number, (w, found) in enumerate(zip(weights, spectra(rows, codes, weights, 3, within=within), strict=True)):
        Z = (X - w @ X / w.sum()) / rows.scalings[number].scale
        means = np.stack([w[codes == c] @ Z[codes == c] / w[codes == c].sum() for c in range(3)])
        around = means[codes] if within else 0.0
        assert found.counts == pytest.approx([w[codes == c].sum() for c in range(3)])
        assert found.means == pytest.approx(means, abs=1e-9)
        assert (found.basis * found.energy) @ found.basis.T == pytest.approx(
            (Z - around).T @ (w[:, None] * (Z - around))
        )
        assert found.basis.T @ found.basis == pytest.approx(np.eye(found.basis.shape[1]), abs=1e-8)


def test_rounds_with_weights_of_their_own_share_nothing_and_are_right():
    X, codes, weights = problem(60, 6, rounds=2)
    weights[1, codes == 0] *= 3.0
    together = spectra(Rows(X, weights), codes, weights, 3)
    for number in range(2):
        (alone,) = spectra(Rows(X, weights[[number]]), codes, weights[[number]], 3)
        assert together[number].energy == pytest.approx(alone.energy)
        assert together[number].means == pytest.approx(alone.means)


@pytest.mark.parametrize("shape", [(20, 6), (6, 20)])
def test_the_decompose_rows_is_that_of_the_svd(shape):
    Z = np.random.default_rng(0).normal(size=shape)
    left, energy = decompose_rows(Z)
    assert np.sort(energy) == pytest.approx(np.sort(np.linalg.svd(Z, compute_uv=False) ** 2))
    assert left @ np.diag(energy) @ left.T == pytest.approx(Z @ Z.T)


@pytest.mark.parametrize("shape", [(60, 6), (20, 40)], ids=["tall", "wide"])
@pytest.mark.parametrize("alpha", [0.0, 1e-3, 10.0])
def test_a_single_strength_of_ridge_has_the_solution_of_the_spectrum(shape, alpha):
    X, codes, weights = problem(*shape, rounds=2)
    rows = Rows(X, weights)
    expected = [SignRegression(each).solve(alpha) for each in spectra(rows, codes, weights, 3)]
    for (coef, intercept), (W, b) in zip(single_ridge(rows, codes, weights, 3, alpha), expected, strict=True):
        assert coef == pytest.approx(W, rel=1e-7, abs=1e-9)
        assert intercept == pytest.approx(b, rel=1e-7, abs=1e-9)


def test_equal_columns_are_solved_by_the_spectrum_where_no_penalty_parts_them():
    X, codes, weights = problem(60, 6, rounds=2)
    X[:, 1] = X[:, 0]
    for coef, _ in single_ridge(Rows(X, weights), codes, weights, 3, 0.0):
        assert coef[:, 0] == pytest.approx(coef[:, 1])
