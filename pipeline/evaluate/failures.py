"""The failure of one head of several, in a sentence."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featurecache.base.errors import PipelineError
from featurecache.base.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Probabilities of float32 over 10,000 classes sum to 1 within 1e-4.
SUM_TOLERANCE = 1e-3
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def why_failed(error: Exception) -> str:
    """Return a sentence about an error that a head raised.

    Raises the error again where it would end every other head too: rows that no head can learn from, and a full disk,
    the latter as PipelineError.
    """
    from numpy.linalg import LinAlgError

    from featurecache.base.errors import BadLabels, BadSplit, ClassifyError

    if isinstance(error, BadLabels | BadSplit | PipelineError):
        raise error
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        raise PipelineError(
            f"There is no room left on the disk ({error}). Free some space and give the same command again: heads that "
            "are finished are kept."
        ) from error
    if isinstance(error, ClassifyError):
        return str(error)
    if isinstance(error, LinAlgError):
        return f"its equations cannot be solved ({error})."
    if isinstance(error, MemoryError):
        return "it needs more memory than there is. --memory lowers what the features take of it."
    text = printable((str(error).splitlines() or [""])[0])
    return f"it ended with an error of its own, {type(error).__name__}{f': {text}' if text else ''}."


def check_answers(
    predicted: NDArray[np.integer[Any]], proba: NDArray[np.floating[Any]], *, n: int, n_classes: int
) -> None:
    """Raise HeadFailed unless predicted (N,) are codes below C, and proba (N, C) finite rows that sum to one."""
    import numpy as np

    from featurecache.base.errors import HeadFailed

    predicted, proba = np.asarray(predicted), np.asarray(proba)
    if predicted.shape != (n,) or proba.shape != (n, n_classes):
        raise HeadFailed(
            f"for {n:,} images of {n_classes:,} classes it gave labels of shape {predicted.shape} and probabilities of "
            f"shape {proba.shape}."
        )
    sums = proba.sum(axis=1, dtype=np.float64)  # infinite or NaN where one of the row is
    wrong = ~(np.isfinite(sums) & (proba.min(axis=1) >= -SUM_TOLERANCE) & (np.abs(sums - 1) <= SUM_TOLERANCE))
    if wrong.any():
        what = "are finite numbers that sum to one" if np.isfinite(sums).all() else "are finite numbers"
        raise HeadFailed(f"not all its probabilities {what}: those of {int(wrong.sum()):,} of {n:,} images are not.")
    if ((predicted < 0) | (predicted >= n_classes)).any():
        raise HeadFailed("it gave labels that no class has.")


def check_chosen(val: Mapping[str, float]) -> None:
    """Raise HeadFailed where what a head was chosen by, its metrics on val, holds something that is no number."""
    from featurecache.base.errors import HeadFailed

    odd = [name for name, value in val.items() if not math.isfinite(value)]
    if odd:
        raise HeadFailed(f"its {' and '.join(odd)} on val, by which it would be chosen, cannot be computed.")
