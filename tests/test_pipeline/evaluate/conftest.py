"""A cache that takes no network, images of 8 pixels as they are; and images with a split."""

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


@pytest.fixture
def sorted_images(images, tmp_path) -> Path:
    """The 90 digits with a given split: 20 of each class in train, 10 in test."""
    for label in "012":
        for number, path in enumerate(sorted((images / label).iterdir())):
            folder = tmp_path / "sorted" / ("train" if number < 20 else "test") / label
            folder.mkdir(parents=True, exist_ok=True)
            path.rename(folder / path.name)
    return tmp_path / "sorted"
