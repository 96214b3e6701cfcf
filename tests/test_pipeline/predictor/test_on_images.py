"""Images in memory get what the same images get as files by way of the cache, and nothing is written."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache import Predictor, Settings, read_arrays, read_images, train_heads
from featurecache.base.errors import CacheError, ImageRefused, RequestError, UsageError
from featurecache.cli.main import DONE, run

BOTH = "efficientnet_lite0+pixels"
HEADS = ["efficientnet_lite0--ridge", "pixels--knn", f"{BOTH}--ridge", "ensemble"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits_folder, filled_cache):
    """A cache with the features of two networks, and a run with heads on each, on both, and their mean."""
    folder = tmp_path_factory.mktemp("in_memory")
    shutil.copytree(filled_cache, folder / "cache")
    root = str(folder / "cache")
    assert run(["extract", str(digits_folder), "--backbone", BOTH, "--cache", root, "--quiet"]) == DONE
    words = ["--backbone", "efficientnet_lite0", "--backbone", f"pixels,{BOTH}", "--heads", "ridge,knn", "--ensemble"]
    command = ["classify", str(digits_folder), *words, "--cache", root, "--out", str(folder / "run"), "--quiet"]
    assert run(command) == DONE
    return folder


@pytest.fixture(scope="module")
def predictors(place):
    return {head: Predictor.load(place / "run", head=head) for head in HEADS}


@pytest.fixture(scope="module")
def some(digits_folder):
    """The data set, and nine of its samples."""
    images = read_images(digits_folder)
    return images, images.samples[::10]


def files_of(root: Path) -> set[tuple[Path, int]]:
    """The files of a cache and their sizes, but for exported graphs, which tests keep next to it."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {(path, path.stat().st_size) for path in files if not path.name.startswith(("graph-", "engine-"))}


@pytest.mark.parametrize("head", HEADS)
def test_every_kind_of_image_has_the_answer_of_its_file_in_the_cache(predictors, some, place, head):
    predictor, images, samples = predictors[head], some[0], some[1][::3]
    by_cache = predictor.predict(images)
    expected = by_cache.proba[::30]
    before = files_of(place / "cache")
    data = [Path(sample.path).read_bytes() for sample in samples]
    opened = [Image.open(io.BytesIO(each)) for each in data]
    kinds = {
        "paths": [sample.path for sample in samples],
        "Paths": (Path(sample.path) for sample in samples),
        "bytes": data,
        "PIL": opened,
        "arrays": [np.asarray(each) for each in opened],
        "mixed": [Path(samples[0].path), data[1], np.asarray(opened[2])],
        "column": np.array([[sample.path] for sample in samples], dtype=object),
        "stack": np.stack([np.asarray(each.convert("RGB")) for each in opened]),
    }
    for kind, items in kinds.items():
        np.testing.assert_allclose(predictor.predict_proba(items), expected, rtol=0, atol=1e-5, err_msg=kind)
    found = predictor.predict(data)
    assert [predictor.classes[code] for code in found.codes] == predictor.predict_labels(data)
    assert found.codes.tolist() == by_cache.codes[::30].tolist()
    assert found.rows()[2][0] == "item 2"
    assert files_of(place / "cache") == before


@pytest.mark.parametrize("head", HEADS[:3])
def test_features_are_those_of_the_cache_to_the_last_bit(predictors, some, head):
    predictor, (images, samples) = predictors[head], some
    wanted = predictor._found(images, Settings(), _Silent())
    expected = wanted.cache.lookup(wanted.digests)
    found = predictor.features([sample.path for sample in samples])
    assert found.dtype == np.float32
    assert np.array_equal(found, expected[::10])
    assert np.array_equal(predictor.features([samples[1].path]), expected[10:11])


class _Silent:
    def say(self, line):
        raise AssertionError(line)

    def digesting(self, done, total):
        pass


@pytest.mark.parametrize("head", HEADS)
def test_the_steps_of_a_server_give_the_same_answers(predictors, some, head):
    predictor, (_, samples) = predictors[head], some
    assert all("on cpu" in line for line in predictor.start())
    prepared = predictor.prepared([Path(sample.path).read_bytes() for sample in samples])
    sides = {pixels.shape for each in prepared for pixels in each}
    assert sides <= {(3, 224, 224), (3, 32, 32)}
    codes, proba = predictor.answers(prepared)
    expected = predictor.predict([sample.path for sample in samples])
    assert codes.tolist() == expected.codes.tolist()
    np.testing.assert_allclose(proba, expected.proba, rtol=0, atol=1e-6)
    assert predictor.vectors(prepared).shape == predictor.features([samples[0].path] * 9).shape


@pytest.mark.parametrize("head", [HEADS[0], HEADS[2]])
def test_one_image_alone_has_the_probabilities_that_it_has_among_others(predictors, head):
    predictor = predictors[head]
    X = np.abs(np.random.default_rng(0).normal(size=(9, predictor.spec.feature_dim))).astype(np.float32)
    codes, proba = predictor._of_rows(X)
    for i in range(9):
        alone = predictor._of_rows(X[i : i + 1])
        assert np.array_equal(alone[1], proba[i : i + 1])
        assert alone[0].tolist() == [codes[i]]


def test_several_threads_share_one_predictor(place, some):
    predictor, (_, samples) = Predictor.load(place / "run", head=f"{BOTH}--ridge"), some
    paths = [sample.path for sample in samples]
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(predictor.predict_proba(paths))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(predictor._by_settings) == 1
    assert all(np.array_equal(each, found[0]) for each in found)
    assert len(found) == 4


def test_no_images_have_no_rows(predictors):
    for predictor in predictors.values():
        assert predictor.predict_proba([]).shape == (0, 3)
        assert predictor.predict_labels([]) == []
        assert predictor.features([]).shape[0] == 0
        assert predictor.predict([]).rows() == []


def test_a_bad_image_is_named_by_its_number(predictors, some, tmp_path):
    predictor, (_, samples) = predictors["pixels--knn"], some
    good = [sample.path for sample in samples]
    (tmp_path / "cut.png").write_bytes(Path(good[0]).read_bytes()[:60])
    bad = {
        "Item 2 is refused: the file is empty": b"",
        "Item 2 is refused: no image format": b"hello, this is text",
        f"Item 2, '{tmp_path / 'cut.png'}', is refused: damaged": tmp_path / "cut.png",
        f"Item 2, '{tmp_path / 'none.png'}', is refused: cannot be read: No such file": str(tmp_path / "none.png"),
        f"Item 2, '{tmp_path}', is refused: a folder": tmp_path,
        "Item 2 is refused: 32-bit or float pixels": Image.fromarray(np.ones((4, 4), np.float32)),
    }
    for message, item in bad.items():
        for method in (predictor.predict_proba, predictor.features, predictor.predict):
            with pytest.raises(ImageRefused) as raised:
                method([good[0], good[1], item, *good[2:]])
            assert str(raised.value).startswith(message)


def test_bad_images_are_left_out_where_the_settings_say_so(predictors, some):
    predictor, (_, samples) = predictors[f"{BOTH}--ridge"], some
    good = [sample.path for sample in samples]
    found = predictor.predict([*good[:5], b"nothing", *good[5:], b""], settings=Settings(on_error="skip"))
    assert np.array_equal(found.proba, predictor.predict(good).proba)
    assert [sample.path for sample in found.samples] == good
    assert [(each.name, each.reason.split(";")[0]) for each in found.files.refusals] == [
        ("item 5", found.files.refusals[0].reason.split(";")[0]),
        ("item 10", "the file is empty"),
    ]
    assert found.files.n_used == 9


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("photo.png", "One image is given where several are expected"),
        (np.zeros((4, 4, 3), np.uint8), "One image is given"),
        (np.zeros((4, 4), np.uint8), "One image is given"),
        ({"a": 1}, "The images are a dict and have to be a list"),
        (3, "The images are an int and have to be a list"),
        ({"a.png"}, "The images are a set and have to be a list"),
        ([np.zeros((3, 4, 4), np.uint8)], r"Item 0 is an array of uint8 and shape \(3, 4, 4\); give a path"),
        ([b"x", np.zeros((4, 4, 3))], "Item 1 is an array of float64"),
        ([np.zeros((0, 4, 3), np.uint8)], "Item 0 is an array of uint8 and shape"),
        ([None], "Item 0 is a NoneType"),
        ([""], "Item 0 is an empty path"),
        (np.array([b"\xff\xd8\x00"]), "Item 0 is of a numpy array of bytes, which drops zeros"),
    ],
    ids=str,
)
def test_what_is_no_image_is_an_error_that_says_what_is(predictors, items, message):
    for method in ("predict", "predict_proba", "predict_labels", "features"):
        with pytest.raises(RequestError, match=message):
            getattr(predictors["pixels--knn"], method)(items)


def test_a_head_on_vectors_takes_no_images(tmp_path):
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    train_heads(read_arrays(random.normal(size=(60, 3)) + y[:, None], y), heads=["ridge"], out=tmp_path / "run")
    predictor = Predictor.load(tmp_path / "run")
    with pytest.raises(UsageError, match="takes vectors of 3 numbers from a file, and images are given"):
        predictor.predict_proba([b"x"])


def test_another_network_than_that_of_the_run_is_refused(place, monkeypatch, some):
    from featurecache.features import new_images

    monkeypatch.setattr(new_images, "DECODE_VERSION", 99)
    with pytest.raises(CacheError, match="another decode_version"):
        Predictor.load(place / "run", head="pixels--knn").features([some[1][0].path])


def test_torch_is_not_loaded_where_the_graph_is_stored(place, some):
    program = (
        "import sys; from featurecache import Predictor\n"
        f"found = Predictor.load({str(place / 'run')!r}, head='efficientnet_lite0--ridge')\n"
        f"assert found.predict_labels([{some[1][0].path!r}]) == ['0']\n"
        "print([name for name in ('torch', 'sklearn') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout == "[]\n", ended.stderr
