"""A cache is found by what it says of itself, and never taken for another: network, cut, transform, weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurecache.base.errors import UnknownBackbone, UnknownLayer, UnknownWeights, WeightsMissing
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.digests import digest_samples
from featurecache.extract.images.read import read_images
from featurecache.extract.job import request as requests
from featurecache.extract.job.matching import check_named, find_matching, find_unique, load_if_here
from featurecache.extract.job.request import FeatureRequest, Resolved, recall

LITE = FeatureRequest()


@pytest.fixture
def asked(cache) -> FeatureSpec:
    """The spec of the features in the cache."""
    with Memo(cache) as memo:
        resolved = recall(LITE, memo)
    assert resolved is not None
    return resolved.spec


@pytest.fixture
def upgraded(monkeypatch):
    """Nothing that was remembered is about this version."""
    monkeypatch.setattr(requests, "_code_digest", lambda: "another version")


@pytest.fixture
def without_weights(monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise WeightsMissing("they are not here")

    monkeypatch.setattr("featurecache.extract.backbones.weights.find_weights", missing)
    monkeypatch.setattr("featurecache.extract.backbones.registry.find_weights", missing)


def digests_of(images: Path, cache: Path) -> np.ndarray:
    with Memo(cache) as memo:
        return digest_samples(read_images(images).samples, memo).digests


def fill(cache: Path, spec: FeatureSpec, digests: np.ndarray, weights: str | None = None) -> None:
    """Rows of nothing for these images."""
    rows = ShardRows(
        np.ones((len(digests), spec.feature_dim), spec.dtype), digests, [str(i) for i in range(len(digests))]
    )
    FeatureCache(cache, spec).add(rows, {} if weights is None else {"weights": weights})


def only(cache: Path, digests: np.ndarray, request: FeatureRequest = LITE, **options: bool) -> FeatureSpec | None:
    with Memo(cache) as memo:
        found = find_unique(request, digests, cache_root=cache, memo=memo, **options)
    return None if found is None else found.resolved.spec


@pytest.mark.parametrize("state", ["with weights", "without"])
def test_it_is_found_after_an_upgrade(digits_folder, cache, asked, upgraded, request, state):
    if state == "without":
        request.getfixturevalue("without_weights")
    digests = digests_of(digits_folder, cache)
    assert only(cache, digests) == asked
    with Memo(cache) as memo:
        remembered = recall(LITE, memo)
        assert (remembered is None) == (state == "without")
        (found,) = find_matching(LITE, digests, cache_root=cache, memo=memo)
    assert found.resolved == Resolved(asked, "IMAGENET1K")


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "_blocks.4", "feature_dim": 40},
        {"pooling": "max"},
        {"precision": "bf16"},
        {"dtype": "float16"},
        {"decode": "reduced"},
        {"decode_version": 99},
        {"view": "light-v1:0:1"},
        {"backbone": "efficientnet_lite1"},
    ],
)
@pytest.mark.parametrize("state", ["with weights", "without"])
def test_another_is_none(digits_folder, cache, asked, upgraded, request, change, state):
    if state == "without":
        request.getfixturevalue("without_weights")
    digests, root = digests_of(digits_folder, cache), cache / "root"
    fill(root, replace(asked, **change), digests, "IMAGENET1K")
    assert only(root, digests) is None
    fill(root, asked, digests, "IMAGENET1K")
    assert only(root, digests) == asked


def test_what_was_asked_for_is_found_among_others(digits_folder, cache, asked, without_weights):
    digests, root = digests_of(digits_folder, cache), cache / "root"
    max_pooled = replace(asked, pooling="max")
    small = replace(asked, transform=replace(asked.transform, crop=64, resize=73))
    middle = replace(asked, layer="_blocks.4", feature_dim=40)
    for spec in (asked, max_pooled, middle):
        fill(root, spec, digests, "IMAGENET1K")
    assert only(root, digests, FeatureRequest(pooling="max")) == max_pooled
    assert only(root, digests, FeatureRequest(layer="_blocks.4")) == middle
    assert only(root, digests) == asked
    assert only(root, digests, FeatureRequest(size=64)) is None
    fill(root, small, digests, "IMAGENET1K")
    assert only(root, digests, FeatureRequest(size=64)) == small
    assert only(root, digests) is None, "of which size is the default's, only the weights would say"


def test_with_weights_on_this_machine_the_size_of_the_default_is_known(digits_folder, cache, asked):
    digests, root = digests_of(digits_folder, cache), cache / "root"
    small = replace(asked, transform=replace(asked.transform, crop=64, resize=73))
    for spec in (asked, small):
        fill(root, spec, digests, "IMAGENET1K")
    assert only(root, digests) == asked
    assert only(root, digests, FeatureRequest(size=64)) == small


def test_weights_are_told_apart_by_the_name_that_shards_record(digits_folder, cache, asked, without_weights):
    digests, root = digests_of(digits_folder, cache), cache / "root"
    mine = replace(asked, weights_digest="ab" * 32)
    fill(root, asked, digests, "IMAGENET1K")
    fill(root, mine, digests, "mine.pth")
    assert only(root, digests, FeatureRequest(weights="somewhere/mine.pth")) == mine
    assert only(root, digests, FeatureRequest(weights="imagenet1k")) == asked
    assert only(root, digests, FeatureRequest(weights="other.pth")) is None
    assert only(root, digests) is None, "which of them is the default is not known here"
    with Memo(root) as memo:
        assert [each.has_weights for each in find_matching(LITE, digests, cache_root=root, memo=memo)] == [True, True]


def test_with_weights_on_this_machine_the_name_of_the_default_is_known(digits_folder, cache, asked):
    digests, root = digests_of(digits_folder, cache), cache / "root"
    fill(root, replace(asked, weights_digest="ab" * 32), digests, "mine.pth")
    assert only(root, digests) is None
    fill(root, asked, digests, "IMAGENET1K")
    assert only(root, digests) == asked


def test_a_file_that_is_here_counts_by_its_content_and_not_by_its_name(
    digits_folder, cache, asked, tmp_path, monkeypatch
):
    digests, root, file = digests_of(digits_folder, cache), cache / "root", tmp_path / "mine.pth"
    file.write_bytes(b"tensors")
    request = FeatureRequest(weights=str(file))
    mine = replace(asked, weights_digest="ab" * 32)
    fill(root, mine, digests, "mine.pth")
    assert only(root, digests, request) is None, "it was never read"
    monkeypatch.setattr(FileState, "is_settled", lambda *_: True)
    with Memo(root) as memo:
        requests.remember_file(replace(request, pooling="gem"), Resolved(mine, "mine.pth"), file, memo)
    assert only(root, digests, request) == mine
    monkeypatch.setattr(requests, "_code_digest", lambda: "another version")
    assert only(root, digests, request) == mine
    file.write_bytes(b"trained on")
    assert only(root, digests, request) is None, "it holds other tensors now"


def test_an_image_that_was_refused_needs_no_row_but_for_extract(digits_folder, cache, asked, upgraded):
    digests = digests_of(digits_folder, cache)
    more = np.vstack([digests, np.zeros((1, 32), np.uint8)])
    assert only(cache, more) is None
    with Memo(cache) as memo:
        memo.remember_refusals({(bytes(more[-1]), asked.key): "damaged"})
    assert only(cache, more) == asked
    assert only(cache, more, allow_refused=False) is None


def test_no_image_at_all_is_in_no_cache(cache, upgraded):
    assert only(cache, np.empty((0, 32), np.uint8)) is None
    assert only(cache / "nowhere", np.zeros((1, 32), np.uint8)) is None


def test_weights_that_are_not_here_are_not_fetched(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", pytest.fail)
    with Memo(cache) as memo:
        assert load_if_here(FeatureRequest("resnet18"), memo) is None


@pytest.mark.parametrize(
    ("request_", "error", "nearest"),
    [
        (FeatureRequest("resnet51"), UnknownBackbone, "resnet50"),
        (FeatureRequest(layer="_block.4"), UnknownLayer, "_blocks.4"),
        (FeatureRequest(weights="typo.pth"), UnknownWeights, "IMAGENET1K"),
    ],
)
def test_a_name_that_nobody_has_is_said_with_its_neighbours(request_, error, nearest):
    with pytest.raises(error, match=nearest):
        check_named(request_)
