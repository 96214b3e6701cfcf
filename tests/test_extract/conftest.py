"""Shared by the tests of extract: a spec of a toy backbone, its rows, and a process without a superuser's rights."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.transform_spec import TransformSpec

NOBODY = 65534
TOY_SPEC = FeatureSpec(
    backbone="toy",
    source="tests",
    weights_digest="ab" * 32,
    layer="end",
    pooling="avg",
    transform=TransformSpec(16, 8, "bilinear", True, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    feature_dim=5,
    decode_version=1,
)


@pytest.fixture
def spec() -> FeatureSpec:
    return TOY_SPEC


@pytest.fixture
def make_rows():
    """n random rows of a spec, other ones for another seed."""

    def make(n: int, *, seed: int = 0, spec: FeatureSpec = TOY_SPEC) -> ShardRows:
        random = np.random.default_rng(seed)
        features = random.normal(size=(n, spec.feature_dim)).astype(spec.dtype)
        digests = random.integers(0, 256, (n, 32), dtype=np.uint8)
        return ShardRows(features, digests, [f"class {seed}/{i}.png" for i in range(n)])

    return make


@pytest.fixture
def half_spec(spec) -> FeatureSpec:
    return replace(spec, dtype="float16")


@pytest.fixture
def closed_to_us():
    """A context in which permissions count, also where the tests run as root."""

    @contextlib.contextmanager
    def closed() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return closed


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that anybody may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    folder.chmod(0o700)
    shutil.rmtree(folder)
