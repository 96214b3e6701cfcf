"""A run on raw pixels, whose network is exported in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurecache.cli.main import DONE, run


@pytest.fixture(scope="session")
def pixels_run(tmp_path_factory, digits_folder, judged_once) -> Path:
    """A run of heads on the raw pixels of `digits_folder`, one of them an ensemble. Read only."""
    root = tmp_path_factory.mktemp("pixels-run")
    words = [str(digits_folder), "--backbone", "pixels", "--cache", str(root / "cache"), "--quiet"]
    heads = ["--heads", "logistic,ridge", "--ensemble", "--calibrate", "--out", str(root / "run")]
    with judged_once():
        assert run(["extract", *words]) == DONE
        assert run(["classify", *words, *heads]) == DONE
    return root / "run"
