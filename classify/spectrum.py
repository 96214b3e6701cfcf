"""One eigendecomposition that serves every strength of regularisation.

For standardised Z (N, D): Z^T Z / N = V diag(lambda) V^T. In the basis V the penalty |W|^2 keeps its form and the
quadratic part of every loss becomes diagonal, so ridge and LDA are solved by division and descent is well conditioned.
With fewer rows than columns the smaller Z Z^T is decomposed, and V spans the rows of Z, where every penalised solution
lies (representer theorem).
"""

from dataclasses import dataclass

import numpy as np

from classify.arrays import FloatArray

# Rows turned to float64 at a time: 4096 x 1280 is 42 MB.
BLOCK = 4096


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of Z^T Z / N, (R,), and their orthonormal eigenvectors, (D, R), R <= min(N, D); both float64."""

    eigenvalues: FloatArray
    basis: FloatArray

    def rotate(self, Z: FloatArray) -> FloatArray:
        """Return Z (N, D) in the basis, (N, R), in the dtype of Z."""
        return np.asarray(Z @ self.basis.astype(Z.dtype))


def decompose(Z: FloatArray) -> Spectrum:
    """Return the spectrum of centred Z (N, D), in float64 whatever the dtype of Z."""
    n_rows, feature_dim = Z.shape
    if n_rows >= feature_dim:
        eigenvalues, basis = np.linalg.eigh(product(Z, Z) / n_rows)
        return Spectrum(np.maximum(eigenvalues, 0.0), basis)
    wide = Z.astype(np.float64)
    eigenvalues, left = np.linalg.eigh(wide @ wide.T / n_rows)
    kept = eigenvalues > n_rows * np.finfo(np.float64).eps * eigenvalues[-1]
    eigenvalues, left = eigenvalues[kept], left[:, kept]
    return Spectrum(eigenvalues, wide.T @ left / np.sqrt(eigenvalues * n_rows))


def product(A: FloatArray, B: FloatArray) -> FloatArray:
    """Return A^T B in float64 for A (N, P), B (N, Q), a block of rows at a time."""
    total = np.zeros((A.shape[1], B.shape[1]))
    for start in range(0, len(A), BLOCK):
        rows = slice(start, start + BLOCK)
        total += A[rows].T.astype(np.float64) @ B[rows].astype(np.float64)
    return total
