"""What a solver of linear heads returns, and the memory that solvers may take; nothing that solves is imported here."""

from dataclasses import dataclass

from featurecache.classify.arrays.array_types import FloatArray


@dataclass(frozen=True)
class Optimum:
    """One strength in one round: weights (C, D) on that round's standardised columns, intercept (C,), how it ended.

    gap: how far the objective is at most above its minimum, as a part of that.
    """

    setting: int
    number: int
    weights: FloatArray
    intercept: FloatArray
    n_passes: int
    slope: float
    gap: float
    note: str


@dataclass(frozen=True)
class Room:
    """Limits of memory and size for curvature."""

    blocks_bytes: int = 192 * 2**20
    """For all blocks together; with more classes or columns the spectral curvature must do. Ten classes of the default
    backbone's `--layer stages`, 2064 columns, take 163 MiB."""
    matrices_bytes: int = 336 * 2**20
    """For all matrices of Newton's method; the classes of all rounds are cut into batches accordingly. Five folds of
    ten classes, 10,000 x 1280, took 60 s with room for 25 of them, 76 with room for 14 and 54 with room for all."""
    most_columns: int = 6000
    """Beyond these the whole eigendecomposition takes longer than what it saves, and memory for D x D numbers."""
    rank: int = 512
    """Eigenvectors that are computed beyond that: of 8192 columns they take 17 MB."""


ROOM = Room()
