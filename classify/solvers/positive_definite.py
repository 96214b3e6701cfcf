"""Linear systems with a positive definite matrix, by its Cholesky factor and numpy alone.

    A = L L^T,   L Y = B,   L^T X = Y

The two triangular systems are solved by blocks of rows, whose own triangles are solved as any system is. scipy.linalg
has routines for them, and to import it takes longer than a ridge regression on features of 3,000 images.
"""

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray

# Rows solved together: what these triangles cost beyond what they need is then a few per cent of the factor.
BLOCK = 128


def solve_positive(A: FloatArray, B: FloatArray) -> FloatArray:
    """Return X (D, K), float64, with A X = B for a positive definite A (D, D) and right sides B (D, K).

    Only the lower triangle of A is read. Raises np.linalg.LinAlgError where A is not positive definite.
    """
    root = np.linalg.cholesky(A)
    X, starts = np.array(B, dtype=np.float64), range(0, len(A), BLOCK)
    for start in starts:
        rows = slice(start, start + BLOCK)
        X[rows] = np.linalg.solve(root[rows, rows], X[rows] - root[rows, :start] @ X[:start])
    for start in reversed(starts):
        rows, after = slice(start, start + BLOCK), slice(start + BLOCK, None)
        X[rows] = np.linalg.solve(root[rows, rows].T, X[rows] - root[after, rows].T @ X[after])
    return X
