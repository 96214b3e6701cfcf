"""Small pictures of classes that any head tells apart, and a run on two of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache.cli.main import DONE, run

COLOURS = {"cat": (220, 60, 60), "dog": (60, 200, 80), "owl": (70, 90, 230)}
PIXELS = ["--backbone", "pixels", "--size", "8"]


@pytest.fixture(scope="session")
def save():
    """Write a picture of a kind, never the same twice for two numbers, and return its place."""

    def write(place: Path, kind: str = "cat", number: int = 0, **options) -> Path:
        place.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng([list(COLOURS).index(kind), number])
        pixels = random.normal(COLOURS[kind], 18, (8, 8, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place, **options)
        return place

    return write


@pytest.fixture(scope="module")
def cats_and_dogs(tmp_path_factory, save) -> Path:
    """A folder of 12 cats and 12 dogs. Read only."""
    root = tmp_path_factory.mktemp("images") / "two"
    for kind in ("cat", "dog"):
        for number in range(12):
            save(root / kind / f"{number:02d}.png", kind, number)
    return root


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory, cats_and_dogs) -> Path:
    """A run on them, with the head ridge and a cache next to it."""
    root = tmp_path_factory.mktemp("runs")
    command = ["run", str(cats_and_dogs), *PIXELS, "--heads", "ridge", "--out", str(root / "run")]
    assert run([*command, "--cache", str(root / "cache"), "--quiet"]) == DONE
    return root / "run"
