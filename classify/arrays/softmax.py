"""From scores to probabilities."""

from collections.abc import Iterator

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray

# Scores turned to float64 at a time: 1 MB, which stays in the processor's cache.
BLOCK_NUMBERS = 2**17


def softmax(scores: FloatArray) -> FloatArray:
    """Return exp(s_c) / sum_c' exp(s_c') for every row of scores (N, C)."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def log_softmax(scores: FloatArray) -> FloatArray:
    """Return the logarithm of `softmax`, without ever taking the logarithm of zero."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def two_columns(scores: FloatArray) -> FloatArray:
    """Give binary scores (N,), positive for the second class, their two columns (0, s); leave (N, C) as it is."""
    if scores.ndim == 2:
        return scores
    return np.column_stack([np.zeros_like(scores), scores])


def softmax_blocks(scores: FloatArray, temperature: float = 1.0) -> Iterator[tuple[slice, FloatArray]]:
    """Yield rows of scores (N, C), and `softmax(scores / temperature)` of them (B, C) in float64."""
    for rows, block in shifted_blocks(scores):
        block /= temperature
        np.exp(block, out=block)
        block /= block.sum(axis=1, keepdims=True)
        yield rows, block


def shifted_blocks(scores: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    """Yield rows of scores (N, C), and their distance (B, C) to the largest of the row, in float64."""
    size = max(1, BLOCK_NUMBERS // scores.shape[1])
    for start in range(0, len(scores), size):
        rows = slice(start, start + size)
        block = scores[rows].astype(np.float64)
        block -= block.max(axis=1, keepdims=True)
        yield rows, block
