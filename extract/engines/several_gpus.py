"""Several GPUs as one engine: each batch runs on the one that is free next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

from featurecache.extract.engines.protocol import ALL_GPUS, Engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def on_all(engines: Iterable[Engine]) -> Engine:
    """Return engines of one network on several devices as one, and a single engine as it is."""
    each = list(engines)
    return each[0] if len(each) == 1 else SeveralGpus(each)


class SeveralGpus:
    """One network on several GPUs, with the lanes of all; see `engines.protocol.Engine`."""

    device = ALL_GPUS

    def __init__(self, engines: Sequence[Engine]) -> None:
        first = engines[0]
        self.name, self.precision = first.name, first.precision
        self.reason = f"{first.reason}, and on {len(engines) - 1} more"
        self.n_lanes = sum(engine.n_lanes for engine in engines)
        self._engines = engines
        # In turn, so that the first batches are on all of them.
        self._free: SimpleQueue[Engine] = SimpleQueue()
        for lane in range(max(engine.n_lanes for engine in engines)):
            for engine in engines:
                if lane < engine.n_lanes:
                    self._free.put(engine)

    @property
    def batch_size(self) -> int:
        """The largest batch that every GPU has memory for, as far as is known."""
        return min(engine.batch_size for engine in self._engines)

    def run(self, batch: Tensor | NDArray[np.uint8]) -> np.ndarray:
        """Compute features: uint8 (B, 3, S, S) -> float32 (B, D)."""
        engine = self._free.get()
        try:
            return engine.run(batch)
        finally:
            self._free.put(engine)

    def allow_lanes(self, n_lanes: int) -> None:
        """Each GPU has the lanes that it can use."""
