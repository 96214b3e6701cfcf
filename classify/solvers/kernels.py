"""The RBF kernel, and its approximation by landmarks."""

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray
from featurecache.classify.arrays.as_numpy import working

# Rows at a time: 2048 x 1280 float32 is 10 MB.
BLOCK = 2048
# The kernel comes from float32 distances: below this part of the largest eigenvalue there is only noise.
NOISE = 1e-6
# Rows of B at a time: 256 x 1280 float64 is 2.6 MB, which stays in a processor's cache.
WIDE_ROWS = 256


def squared_distances(A: FloatArray, B: FloatArray) -> FloatArray:
    """Return |a - b|^2 for rows of A (N, D) and B (V, D): (N, V)."""
    distances = A @ B.T
    distances *= -2.0
    distances += (A**2).sum(axis=1)[:, None]
    distances += (B**2).sum(axis=1)
    return np.asarray(np.maximum(distances, 0.0, out=distances))


def wide_distances(A: FloatArray, B: FloatArray) -> FloatArray:
    """Return |a - b|^2, computed in float64, for rows of A (N, D) and B (V, D) of any precision: (N, V)."""
    A = A.astype(np.float64, copy=False)
    own = np.einsum("ij,ij->i", A, A)[:, None]
    distances = np.empty((len(A), len(B)))
    for start in range(0, len(B), WIDE_ROWS):
        some = slice(start, start + WIDE_ROWS)
        block = B[some].astype(np.float64, copy=False)
        distances[:, some] = A @ block.T * -2.0 + own + np.einsum("ij,ij->i", block, block)
    return np.asarray(np.maximum(distances, 0.0, out=distances))


def rbf(distances: FloatArray, gamma: float) -> FloatArray:
    """Return exp(-gamma distance) for squared distances (N, V), in their dtype."""
    scaled = distances * np.asarray(-gamma, dtype=distances.dtype)
    return np.asarray(np.exp(scaled, out=scaled))


def whitening(K: FloatArray) -> FloatArray:
    """Return K^-1/2, float64, of a positive semi-definite K (V, V), without directions at the level of rounding."""
    eigenvalues, vectors = np.linalg.eigh(K.astype(np.float64))
    kept = eigenvalues > NOISE * eigenvalues[-1]
    return np.asarray((vectors[:, kept] / np.sqrt(eigenvalues[kept])) @ vectors[:, kept].T)


def landmark_columns(
    X: FloatArray, origin: FloatArray, landmarks: FloatArray, gamma: float, whiten: FloatArray, columns: FloatArray
) -> None:
    """Write K(X, L) K(L, L)^-1/2 into columns (N, V), in blocks, for X (N, D) and landmarks (V, D) minus the origin."""
    mixed = whiten.astype(columns.dtype)
    for start in range(0, len(X), BLOCK):
        rows = slice(start, start + BLOCK)
        np.matmul(rbf(squared_distances(working(X[rows]) - origin, landmarks), gamma), mixed, out=columns[rows])
