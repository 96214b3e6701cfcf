"""FeatureExtractor is a transformer of scikit-learn, and its cache is an ordinary one."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data

from featurecache import FeatureCache, FeatureExtractor, FeatureRequest, Settings, extract_features, read_images
from featurecache.base.errors import CacheUnwritable, ImageRefused, NoImages, RequestError, UnknownBackbone
from featurecache.extract.backbones.libraries import own_network
from featurecache.extract.cache import shards
from featurecache.extract.cache.store import read_spec
from featurecache.extract.in_memory import cached
from featurecache.extract.in_memory.network import ImageNetwork


@pytest.fixture(scope="module", autouse=True)
def _judged_once(judged_once):
    with judged_once():
        yield


@pytest.fixture(scope="module")
def paths(digits_folder) -> list[str]:
    """Six digits of each of three classes."""
    return [sample.path for sample in read_images(digits_folder).samples[::5]]


@pytest.fixture(scope="module")
def labels(paths) -> list[str]:
    return [Path(path).parent.name for path in paths]


class OfNumbers(FeatureExtractor):
    """X of numbers (N, M), as the checks of scikit-learn give it: each row is an image of one row of M grey pixels."""

    def fit(self, X, y=None):
        return super().fit(self._pictures(X, reset=True), y)

    def transform(self, X):
        return super().transform(self._pictures(X, reset=False))

    def _pictures(self, X, reset):
        X = validate_data(self, X, reset=reset)
        return list(np.clip(X * 16 + 128, 0, 255).astype(np.uint8)[:, None])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        return tags


# The checks give X of numbers, which is no image: for that reason alone they are run on `OfNumbers`. None is excepted;
# scikit-learn itself skips that of other array libraries unless they are switched on.
@parametrize_with_checks([OfNumbers("pixels", cache=None)])
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_a_pipeline_is_searched_and_each_image_is_computed_once(paths, labels, tmp_path):
    root = tmp_path / "cache"
    pipeline = make_pipeline(FeatureExtractor("pixels", cache=root), RidgeClassifier())
    search = GridSearchCV(pipeline, {"featureextractor__size": [None, 32], "ridgeclassifier__alpha": [0.1, 1.0]}, cv=2)
    search.fit(paths, labels)
    assert search.best_score_ > 0.7
    assert search.predict(paths[:2]).tolist() == labels[:2]
    report = extract_features(read_images(Path(paths[0]).parents[1]), [FeatureRequest("pixels")], root)
    assert (report.filled[0].n_present, report.filled[0].n_extracted) == (18, 72)


def test_features_are_those_of_the_cache_however_an_image_is_given(paths, tmp_path):
    root = tmp_path / "cache"
    report = extract_features(read_images(Path(paths[0]).parents[1]), [FeatureRequest("pixels")], root)
    expected = report.filled[0].cache.lookup(report.digests[::5])
    data = [Path(path).read_bytes() for path in paths]
    arrays = [np.asarray(Image.open(io.BytesIO(each))) for each in data]
    kept, alone = FeatureExtractor("pixels", cache=str(root)), FeatureExtractor("pixels", cache=None)
    for items in (paths, np.array(paths)[:, None], data, arrays, [*paths[:5], *data[5:9], *arrays[9:]]):
        for extractor in (kept, alone):
            assert np.array_equal(extractor.transform(items), expected)
    # Of arrays there are rows of their own; bytes have those of their files.
    cache = report.filled[0].cache
    cache.refresh()
    assert len(cache) == 90 + len({each.tobytes() for each in arrays})
    pictures = [Image.fromarray(each) for each in arrays[:2]]
    n_rows = len(cache)
    assert np.array_equal(kept.fit_transform(pictures), expected[:2])
    cache.refresh()
    assert len(cache) == n_rows


def test_it_names_its_columns_and_makes_tables(paths):
    pandas = pytest.importorskip("pandas")
    extractor = FeatureExtractor("pixels", cache=None).fit(paths)
    assert extractor.n_features_out_ == 3072
    assert extractor.get_feature_names_out()[:2].tolist() == ["pixels_0", "pixels_1"]
    frame = extractor.set_output(transform="pandas").transform(pandas.Series(paths))
    assert frame.shape == (18, 3072)
    assert frame.columns[-1] == "pixels_3071"


def test_it_is_copied_with_its_parameters_and_nothing_else(paths):
    extractor = FeatureExtractor("pixels", size=32, cache=None).fit(paths)
    assert clone(extractor).get_params() == extractor.get_params()
    copied = pickle.loads(pickle.dumps(extractor))  # noqa: S301 (made in the same line)
    assert np.array_equal(copied.transform(paths[:3]), extractor.transform(paths[:3]))
    assert vars(extractor).keys() - extractor.get_params().keys() == {"n_features_out_"}


@pytest.mark.parametrize("has_cache", [False, True])
def test_a_bad_image_is_named_by_its_number(paths, tmp_path, has_cache):
    extractor = FeatureExtractor("pixels", cache=tmp_path / "cache" if has_cache else None)
    shutil.copy(paths[0], tmp_path / "bad.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for item in (tmp_path / "bad.png", b"hello", Image.fromarray(np.ones((4, 4), np.float32))):
        with pytest.raises(ImageRefused, match=r"^Item 3.* is refused: "):
            extractor.transform([paths[0], paths[1], paths[2], item])


def test_what_is_asked_wrongly_is_an_error(paths):
    with pytest.raises(ValueError, match="X has 0 samples"):
        FeatureExtractor("pixels", cache=None).fit([])
    with pytest.raises(NoImages, match="One image is given"):
        FeatureExtractor("pixels", cache=None).fit(paths[0])
    with pytest.raises(UnknownBackbone):
        FeatureExtractor("resnet1", cache=None).fit(paths)
    with pytest.raises(RequestError, match="pooling"):
        FeatureExtractor("pixels", pooling="most", cache=None).transform(paths)
    assert FeatureExtractor("pixels", cache=None).transform([]).shape == (0, 3072)


class AsBytes:
    """A path whose text is bytes, as the system has them."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return os.fsencode(self.path)


@pytest.mark.parametrize("has_cache", [False, True])
def test_odd_paths_are_read_or_refused_by_the_same_sentence(paths, tmp_path, has_cache):
    extractor = FeatureExtractor("pixels", cache=tmp_path / "cache" if has_cache else None)
    assert np.array_equal(extractor.transform([AsBytes(paths[0])]), extractor.transform(paths[:1]))
    for name in ("a\0b.png", "half \ud800.png"):
        with pytest.raises(ImageRefused) as raised:
            extractor.transform([paths[0], Path(name)])
        assert str(raised.value).endswith("', is refused: cannot be read: no file can have such a name.")
    with pytest.raises(NoImages, match="The images are a ndarray and have to be a list"):
        extractor.transform(np.array(paths[0]))


def test_the_first_of_several_bad_images_is_named_whatever_they_are(paths, tmp_path):
    bad = [b"hello", tmp_path / "none.png", Image.fromarray(np.ones((4, 4), np.float32)), b"", tmp_path / "no.png"]
    for has_cache in (False, True):
        extractor = FeatureExtractor("pixels", cache=tmp_path / "cache" if has_cache else None)
        for first in range(len(bad)):
            with pytest.raises(ImageRefused, match=f"^Item {first + 1}[ ,]"):
                extractor.transform([paths[0], *[paths[1]] * first, *bad[first:]])


def test_threads_that_ask_at_once_share_one_network(paths, tmp_path, monkeypatch):
    cached._network.cache_clear()
    cached._lone_network.cache_clear()
    built = []
    monkeypatch.setattr(cached, "ImageNetwork", lambda *args, **how: built.append(1) or ImageNetwork(*args, **how))
    extractors = [FeatureExtractor("pixels", size=9, cache=root) for root in (tmp_path / "cache", None)]
    data = [Path(path).read_bytes() for path in paths]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: extractors[i % 2].transform(data), range(8)))
    assert all(np.array_equal(each, found[0]) for each in found)
    assert len(built) == 2


def test_a_weights_file_that_has_changed_is_another_network_where_there_is_no_cache(tmp_path, monkeypatch):
    weights, settings = tmp_path / "mine.pth", Settings()
    request = FeatureRequest("resnet18", weights=str(weights))
    monkeypatch.setattr(cached, "_lone_network", lambda request, settings, state: (request, state))
    weights.write_bytes(b"one")
    first = cached._network_alone(request, settings)
    assert cached._network_alone(request, settings) == first
    weights.write_bytes(b"another")
    assert cached._network_alone(request, settings) != first
    monkeypatch.chdir(tmp_path)
    assert cached._network_alone(replace(request, weights="mine.pth"), settings)[0] == first[0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_what_is_published_stays_when_the_disk_is_full_or_the_user_stops(paths, tmp_path, monkeypatch, error):
    extractor = FeatureExtractor("pixels", cache=tmp_path / "cache")
    data = [Path(path).read_bytes() for path in paths]
    write_shard, written = shards.write_shard, []

    def write(*args):
        if len(written) == 2:
            raise error
        written.append(1)
        write_shard(*args)

    with monkeypatch.context() as patched:
        patched.setattr(cached, "SHARD_ROWS", 4)
        patched.setattr(shards, "write_shard", write)
        with pytest.raises((OSError, KeyboardInterrupt, CacheUnwritable)):
            extractor.transform(data)
    n_kept = len(FeatureCache(tmp_path / "cache", cached_spec(tmp_path / "cache")))
    assert n_kept == 8
    assert np.array_equal(extractor.transform(data), FeatureExtractor("pixels", cache=None).transform(data))


def cached_spec(root):
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    return read_spec(folder)


def test_a_function_of_the_program_is_a_backbone_in_the_processes_of_a_search_too(paths, monkeypatch):
    monkeypatch.setattr(own_network, "NAMED", {})  # as in a process that was started for it
    extractor = FeatureExtractor("featurecache_tests_network:build", cache=None)
    with pytest.raises(UnknownBackbone, match="There is no function"):
        extractor.transform(paths[:1])
    assert list(own_network.NAMED) == ["featurecache_tests_network:build"]


def test_sizes_of_numpy_are_sizes_and_other_parameters_are_sentences(paths):
    assert FeatureExtractor("pixels", size=np.int64(4), cache=None).fit(paths).n_features_out_ == 48
    wrong = {
        "The cache is an empty path": {"cache": ""},
        r"use make_union\(FeatureExtractor\('pixels'\), FeatureExtractor\('resnet18'\)\)": {
            "backbone": "pixels+resnet18"
        },
        "The size is '8' and has to be 1 to": {"size": "8"},
        "The weights is '' and has to be a name": {"weights": ""},
    }
    for message, values in wrong.items():
        with pytest.raises(RequestError, match=message):
            FeatureExtractor(**{"backbone": "pixels", "cache": None, **values}).fit(paths)
