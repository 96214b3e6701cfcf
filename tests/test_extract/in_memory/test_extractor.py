"""FeatureExtractor is a transformer of scikit-learn, and its cache is an ordinary one."""

from __future__ import annotations

import io
import pickle
import shutil
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

from featurecache import FeatureExtractor, FeatureRequest, extract_features, read_images
from featurecache.base.errors import ImageRefused, NoImages, RequestError, UnknownBackbone


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
