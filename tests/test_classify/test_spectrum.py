import numpy as np
import pytest

import classify.spectrum
from classify.spectrum import decompose, product


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_the_spectrum_rebuilds_the_covariance_and_loses_no_row(shape):
    Z = np.random.default_rng(0).normal(size=shape)
    Z -= Z.mean(axis=0)
    spectrum = decompose(Z)
    rebuilt = spectrum.basis * spectrum.eigenvalues @ spectrum.basis.T
    assert rebuilt == pytest.approx(Z.T @ Z / len(Z), abs=1e-10)
    assert spectrum.basis.T @ spectrum.basis == pytest.approx(np.eye(spectrum.basis.shape[1]), abs=1e-8)
    assert spectrum.rotate(Z) @ spectrum.basis.T == pytest.approx(Z, abs=1e-10)


def test_blocks_add_up(monkeypatch):
    monkeypatch.setattr(classify.spectrum, "BLOCK", 3)
    A, B = np.random.default_rng(0).normal(size=(2, 10, 4))
    assert product(A, B) == pytest.approx(A.T @ B)
