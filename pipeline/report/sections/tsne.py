"""t-SNE as a process of its own, which can be stopped when its time is up.

scikit-learn's t-SNE cannot be interrupted, and how long it takes depends on what else the machine does.
It runs by its path and imports nothing of ours, so that no folder of the user's can stand in for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# 250 iterations of early exaggeration and as many after it: the clusters have formed, later ones only spread them.
ITERATIONS = 500
PERPLEXITY = 30.0
# OpenMP threads wait by spinning: next to other work two of them are many times slower than one.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# Fewer points are seen as well by PCA alone, and a run on a handful of images need not wait.
LEAST_POINTS = 100


def tsne(P: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay points (N, d) out in the plane (N, 2), near ones near (van der Maaten and Hinton 2008)."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(P) - 1) / 3)
    return np.asarray(TSNE(init="pca", perplexity=perplexity, max_iter=ITERATIONS, random_state=0).fit_transform(P))


@contextlib.contextmanager
def tsne_beside(P: NDArray[np.float32]) -> Iterator[Callable[[float], NDArray[np.float32] | None]]:
    """Start t-SNE of P (N, d) while the block runs; call what it yields for the result (N, 2).

    The answer is None when the seconds that it is given are not enough, or there are too few points.
    """
    if len(P) < LEAST_POINTS:
        yield lambda seconds: None
        return
    with tempfile.TemporaryDirectory(prefix="featurecache-") as folder:
        given, found = Path(folder) / "in.npy", Path(folder) / "out.npy"
        np.save(given, P)
        command = [sys.executable, "-P", __file__, str(given), str(found)]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD}
        )

        def wait(seconds: float) -> NDArray[np.float32] | None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(seconds, 0.0))
            return np.load(found) if process.poll() == 0 else None

        try:
            yield wait
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    np.save(sys.argv[2], tsne(np.load(sys.argv[1])))
