"""The functions that work on an array, whatever library it is of, by the names of the array API."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace

# From 2.1 on numpy has all of these functions itself.
NUMPY_CONFORMS = hasattr(np, "astype")


def namespace_of(X: Any) -> Any:
    """Return the module of functions for X: numpy for its arrays, else that of `array_api_compat`.

    The compatible module of numpy imports numpy's whole library, its test tools and f2py, which takes a tenth of a
    second: as long as a ridge regression on features of 3,000 images.
    """
    return np if NUMPY_CONFORMS and isinstance(X, np.ndarray) else array_namespace(X)
