"""F(x) == T(P(x)): images in memory get what heads say of cached vectors, for every network of the README's table.

Slow: `make survey`. Random weights stand in for those that are not on this machine.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from featurecache import FeatureRequest, Predictor, extract_features, read_images, train_heads
from featurecache.extract.backbones.weights import find_weights

pytestmark = pytest.mark.slow
NETWORKS = ["efficientnet_lite0", "mobilenet_v3_large", "resnet18", "resnet50", "vgg16", "vit_b_16"]


@pytest.fixture(scope="module")
def few(tmp_path_factory, digits_folder) -> Path:
    """Ten digits of each of three classes."""
    folder = tmp_path_factory.mktemp("few")
    for path in sorted(digits_folder.glob("*/*.png"))[::3]:
        (folder / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    return folder


def request_for(name: str, folder: Path) -> FeatureRequest:
    if find_weights(name).is_local:
        return FeatureRequest(name)
    torch.manual_seed(0)
    torch.save(models.get_model(name, weights=None).state_dict(), folder / f"{name}.pth")
    return FeatureRequest(name, weights=str(folder / f"{name}.pth"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_predictor_of_images_equals_heads_on_cached_vectors(name, few, tmp_path):
    images, asked, root = read_images(few), request_for(name, tmp_path), tmp_path / "cache"
    report = extract_features(images, [asked], root)
    train_heads(images, [asked], heads=["ridge", "knn"], cache_root=root, out=tmp_path / "run")
    paths = [sample.path for sample in report.samples]
    for head in ("ridge", "knn"):
        predictor = Predictor.load(tmp_path / "run", head=head)
        by_cache = predictor.predict(images)
        np.testing.assert_allclose(predictor.predict_proba(paths), by_cache.proba, rtol=0, atol=1e-5)
        assert predictor.predict_labels(paths) == [row[1] for row in by_cache.rows()]
    assert np.array_equal(predictor.features(paths), report.filled[0].cache.lookup(report.digests))
