"""A cache that takes no network: images of 8 pixels as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurecache.cli.main import DONE, run


@pytest.fixture(scope="module")
def pixel_cache(tmp_path_factory, digits_folder) -> Path:
    """Features of `digits_folder` by `--backbone pixels --size 8`."""
    root = tmp_path_factory.mktemp("pixels") / "cache"
    assert (
        run(["extract", str(digits_folder), "--backbone", "pixels", "--size", "8", "--cache", str(root), "--quiet"])
        == DONE
    )
    return root
