"""Default values of options, and names, that several rooms know."""

from __future__ import annotations

from pathlib import Path

DEFAULT_CACHE = Path("data/cache")
DEFAULT_LAYER = "default"
DEFAULT_BACKBONE = "efficientnet_lite0"
LARGEST_SEED = 2**32 - 1  # scikit-learn takes no larger one

SPLITS = ("train", "val", "test")
