"""Standardised mini-batches of rows. Only a batch is copied, so that the features may be a memory map."""

from collections.abc import Iterator

import numpy as np
import torch

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import working, working_dtype
from featurecache.classify.arrays.memmap import random_access
from featurecache.classify.arrays.scaling import Scaling

# Rows per product where nothing is learned: their hidden layer of 1024 is 8 MB.
BLOCK = 2048


class Batches:
    """Some rows of X (N, D), at the positions `rows` (R,), with class codes and weights for all N."""

    def __init__(
        self,
        X: FloatArray,
        rows: IntArray,
        codes: IntArray,
        weights: FloatArray,
        scaling: Scaling,
        device: str = "cpu",
    ) -> None:
        self.X, self.rows, self.device = X, rows, device
        self.codes, self.weights = codes, weights.astype(working_dtype(X))
        self.mean, self.scale = (each.astype(self.weights.dtype) for each in (scaling.mean, scaling.scale))

    def shuffled(
        self, size: int, least: int, order: np.random.Generator
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield rows (B, D), codes (B,) and weights (B,) in random order: as many passes as make `least` batches."""
        n_batches = -(-len(self.rows) // size)
        with random_access(self.X):
            for _ in range(-(-least // n_batches)):
                # Parts of equal size: one row left over would weigh as much as a whole batch.
                for chosen in np.array_split(order.permutation(self.rows), n_batches):
                    yield self._scaled(chosen), self._there(self.codes[chosen]), self._there(self.weights[chosen])

    def blocks(self) -> Iterator[torch.Tensor]:
        """Yield the rows (B, D) in order."""
        for start in range(0, len(self.rows), BLOCK):
            yield self._scaled(self.rows[start : start + BLOCK])

    def _scaled(self, chosen: IntArray) -> torch.Tensor:
        batch = working(self.X[chosen if isinstance(self.X, np.ndarray) else torch.from_numpy(chosen).to(self.device)])
        # A slice of rows would be a view of X: what is scaled is always its own copy.
        scaled = batch - self.mean
        scaled /= self.scale
        return self._there(scaled)

    def _there(self, values: FloatArray | IntArray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)
