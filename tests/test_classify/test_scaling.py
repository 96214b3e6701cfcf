import numpy as np
import pytest

from classify.scaling import fit_scaling


def test_columns_come_out_with_mean_zero_and_deviation_one_and_constants_survive():
    X = np.column_stack([np.arange(10.0), 1000 * np.arange(10.0), np.full(10, 0.1)]).astype(np.float32)
    Z = fit_scaling(X).apply(X)
    assert Z.dtype == np.float32
    assert Z.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-6)
    assert Z.std(axis=0) == pytest.approx([1, 1, 0], abs=1e-6)


def test_folded_weights_score_raw_columns_alike():
    rng = np.random.default_rng(0)
    X, W, b = rng.normal(3, 2, (20, 5)), rng.normal(size=(3, 5)), rng.normal(size=3)
    scaling = fit_scaling(X)
    coef, intercept = scaling.fold(W, b)
    assert X @ coef.T + intercept == pytest.approx(scaling.apply(X) @ W.T + b)
