"""What can be done from Python: the same as by the command line, silently, with values in and out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import featurecache
from featurecache import (
    FeatureCacheError,
    FeatureRequest,
    Predictor,
    audit_images,
    compare_runs,
    extract_features,
    read_images,
    select_backbones,
    train_heads,
)
from featurecache.base.errors import FeaturesMissing

FEATURES = [FeatureRequest("efficientnet_lite0")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits_folder, filled_cache):
    """A run, and what `train_heads` returned."""
    out = tmp_path_factory.mktemp("runs") / "first"
    images = read_images(digits_folder)
    return out, train_heads(images, FEATURES, heads=["ridge", "centroid"], cache_root=str(filled_cache), out=str(out))


def test_every_public_name_is_there():
    for name in featurecache.__all__:
        assert getattr(featurecache, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'embed'"):
        _ = featurecache.embed


@pytest.mark.parametrize("images", ["photos", np.zeros((3, 1280)), None], ids=["path", "array", "none"])
def test_what_is_no_manifest_is_refused_by_its_type(trained, filled_cache, tmp_path, images):
    calls = [
        lambda: extract_features(images, FEATURES, filled_cache),
        lambda: train_heads(images, FEATURES, out=tmp_path / "run"),
        lambda: audit_images(images, FEATURES[0], cache_root=filled_cache),
        lambda: select_backbones(images, ["efficientnet_lite0"], cache_root=filled_cache),
    ]
    for call in calls:
        with pytest.raises(FeatureCacheError, match=f"images are a {type(images).__name__} and have to be a Manifest"):
            call()


def test_places_may_be_text(digits_folder, trained, filled_cache):
    images, (out, _) = read_images(str(digits_folder)), trained
    assert extract_features(images, FEATURES, str(filled_cache)).filled[0].n_extracted == 0
    assert audit_images(images, FEATURES[0], cache_root=str(filled_cache)).images
    assert compare_runs([str(out)]) == compare_runs([out])


def test_train_heads_writes_the_run_that_it_returns(trained):
    out, results = trained
    assert json.loads((out / "results.json").read_text())["heads"] == results["heads"]
    assert {head["name"] for head in results["heads"]} == {"ridge", "centroid"}


def test_a_predictor_is_loaded_once_and_labels_any_images(trained, digits_folder, filled_cache, tmp_path):
    predictor = Predictor.load(trained[0], head="ridge")
    assert (predictor.name, predictor.classes) == ("ridge on efficientnet_lite0", ["0", "1", "2"])
    everything = predictor.predict(read_images(digits_folder))
    shutil.copytree(digits_folder / "1", tmp_path / "ones")
    ones = predictor.predict(read_images(tmp_path / "ones"))
    chosen = [sample.label == "1" for sample in everything.samples]
    assert np.array_equal(ones.proba, everything.proba[chosen])
    n_right, n_labelled = everything.accuracy()
    assert n_labelled == 90
    assert n_right > 80


def test_nothing_is_printed(trained, digits_folder, filled_cache, capsys):
    images = read_images(digits_folder)
    found = audit_images(images, FEATURES[0], cache_root=filled_cache)
    chosen = select_backbones(images, ["pixels"], cache_root=trained[0].parent / "cache", n_sample=45)
    assert found.images == chosen.images == str(digits_folder)
    assert [row["head"] for row in compare_runs([trained[0]])["heads"]]
    assert capsys.readouterr() == ("", "")


def test_lines_for_people_are_logged_and_in_the_log_of_the_run(images, cache, tmp_path, caplog):
    shutil.copytree(images / "0", images / "few")
    for path in sorted((images / "few").iterdir())[1:]:
        path.unlink()
    with caplog.at_level("INFO", logger="featurecache"):
        train_heads(
            read_images(images), FEATURES, heads=["ridge"], cache_root=cache, out=tmp_path / "run", min_per_class=2
        )
    (line,) = [record.message for record in caplog.records if record.name == "featurecache" and "few" in record.message]
    assert "1 class with 1 image is left out" in line
    assert line in (tmp_path / "run" / "log.txt").read_text().splitlines()


def test_all_errors_are_of_one_tree(digits_folder, tmp_path):
    with pytest.raises(FeaturesMissing) as raised:
        train_heads(read_images(digits_folder), FEATURES, cache_root=tmp_path / "none", out=tmp_path / "run")
    assert str(raised.value) == (
        f"Not every image has features of efficientnet_lite0 in '{tmp_path / 'none'}'. Call extract_features with "
        "these images, requests and cache first."
    )
    assert (raised.value.n_missing, raised.value.cache_root) == ({FEATURES[0]: 90}, tmp_path / "none")
    with pytest.raises(FeatureCacheError, match="There is no head 'logistik'"):
        train_heads(read_images(digits_folder), FEATURES, heads=["logistik"], out=tmp_path / "run")
    with pytest.raises(FeatureCacheError, match="is not a run"):
        Predictor.load(tmp_path)
