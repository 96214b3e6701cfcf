"""Stage two on vectors from files: scikit-learn's digits, the export of a cache, and the table of another tool."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sklearn.datasets import load_digits

from featurecache import Predictor, audit_images, compare_runs, read_arrays, read_images, train_heads
from featurecache.base.errors import CacheError, RequestError, UsageError
from featurecache.cli.main import DONE, REFUSED, USAGE, run
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.job.request import FeatureRequest
from featurecache.report.page import write_report
from featurecache.runs.record_checks import read_results

HEADS = ("--heads", "ridge,centroid", "--quiet")


@pytest.fixture(scope="module")
def digits():
    """600 scans of 8 x 8 pixels as vectors, and their labels."""
    X, y = load_digits(return_X_y=True)
    return X[:600], y[:600]


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits):
    """digits.npz; new.npz without labels; frame.parquet as pandas writes one; and a run on the first."""
    folder = tmp_path_factory.mktemp("vectors")
    X, y = digits
    np.savez(folder / "digits.npz", features=X, labels=y)
    np.savez(folder / "new.npz", features=X[:20])
    names = [f"pixel_{i // 8}_{i % 8}" for i in range(64)]
    columns = {**dict(zip(names, X.T, strict=True)), "target": y}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "frame.parquet")
    done = run(
        ["classify", str(folder / "digits.npz"), "--out", str(folder / "run"), *HEADS, "--shots", "1,2", "--calibrate"]
    )
    assert done == DONE
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory, digits_folder, filled_cache):
    """The features of 90 digits as files, a run on these images and one on each file."""
    folder, root = tmp_path_factory.mktemp("exported"), str(filled_cache)
    how = {"heads": ["ridge"], "cache_root": filled_cache}
    train_heads(read_images(digits_folder), [FeatureRequest()], out=folder / "images", **how)
    for suffix in ("h5", "npz", "parquet"):
        out = folder / f"out.{suffix}"
        assert run(["cache", "export", str(digits_folder), str(out), "--cache", root, "--quiet"]) == DONE
        train_heads(read_images(out), out=folder / suffix, **how)
    return folder


def test_a_run_on_vectors_alone_advises_no_other_head_to_fine_tune_from(place, digits_folder, capsys):
    assert run(["finetune", str(digits_folder), "--from", str(place / "run"), "--quiet"]) == USAGE
    said = capsys.readouterr().err
    assert "takes vectors from a file, and a network is fine-tuned from a head on its own features: this run" in said
    assert "Start from a run of 'featurecache run' on the images, with a backbone." in said


def test_a_manifest_is_shown_by_its_numbers_and_not_by_its_rows(digits, digits_folder):
    X, y = digits
    assert repr(read_arrays(X, y, name="scans")) == "<Manifest of 600 rows, 10 classes: scans>"
    assert repr(read_images(digits_folder)) == "<Manifest of 90 images, 3 classes: digits>"


def test_heads_are_trained_on_a_file_without_cache_backbone_or_image(place):
    results = read_results(place / "run")
    assert {head["name"] for head in results["heads"]} == {"ridge", "centroid"}
    (row,) = results["features"]
    assert (row["name"], row["dim"], row["weights"]) == ("vectors/digits", 64, "digits.npz")
    assert results["dataset"]["files"] == {
        "n_files": 600, "n_used": 600, "n_missed": 0, "by_reason": [], "folders": {}, "vanished_classes": [],
        "noun": "row",
    }  # fmt: skip
    assert results["heads"][0]["test"]["accuracy"] > 0.85
    assert {row["shots"] for row in results["shots"]} >= {1, 2}
    assert all(head["tempering"] for head in results["heads"])


def test_splits_follow_from_the_numbers_of_a_row(place, digits):
    X, y = digits
    order = np.random.default_rng(0).permutation(len(X))
    np.savez(place / "shuffled.npz", features=X[order].astype("f4"), labels=y[order])
    train_heads(read_images(place / "shuffled.npz"), heads=["ridge"], out=place / "again")
    found = compare_runs([place / "run", place / "again"])
    assert len(found["test_sets"]) == 1
    test = {head["features"]: head["accuracy"] for head in found["heads"] if head["head"] == "ridge"}
    assert test["vectors/digits"] == test["vectors/shuffled"]


def test_the_report_has_a_map_and_says_that_there_are_no_pictures(place):
    page = (place / "run" / "report.html").read_text()
    values = json.loads(re.search(r'id="values">(.*?)</script>', page, re.S)[1])
    assert values["pictures"] == {}
    assert len(values["map"]["label"]) == read_results(place / "run")["dataset"]["n_test"]
    assert "this run is on vectors from a file, which have none" in page
    assert "vectors/digits: 64 numbers each, from digits.npz" in page
    command = f"featurecache classify {place}/digits.npz --heads ridge,centroid --calibrate --shots 1,2"
    assert f"<pre>{command}" in page


def test_a_head_labels_new_vectors_and_refuses_others(place, digits, capsys, digits_folder):
    assert run(["predict", str(place / "run"), str(place / "new.npz"), "--json", "--quiet"]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert [image["path"] for image in found["images"][:2]] == ["new[0]", "new[1]"]
    right = [image["label"] == str(label) for image, label in zip(found["images"], digits[1], strict=False)]
    assert sum(right) >= 18
    np.savez(place / "short.npz", features=np.ones((3, 5)))
    for images, said in (
        (
            [place / "short.npz"],
            "takes vectors of 64 numbers, and those of .* have 5. Name vectors of the same",
        ),
        ([digits_folder], "takes vectors of 64 numbers from a file, and .* has images. Name a file of vectors"),
        ([place / "new.npz", digits_folder], "Images and vectors are labelled apart"),
        ([place / "new.npz", place / "short.npz"], "those of .*short.npz' have 5"),
    ):
        assert run(["predict", str(place / "run"), *map(str, images)]) == USAGE
        assert re.search(said, capsys.readouterr().err)


def test_several_files_of_vectors_are_labelled_one_after_the_other(place, capsys):
    (place / "more").mkdir()
    with np.load(place / "new.npz") as arrays:
        np.savez(place / "more" / "new.npz", features=arrays["features"][:3])
    files = [place / "new.npz", place / "more" / "new.npz", place / "nothing.npz"]
    assert run(["predict", str(place / "run"), *map(str, files), "--json", "--quiet"]) == REFUSED
    found = json.loads(capsys.readouterr().out)
    n = len(found["images"])
    assert [row["path"] for row in found["images"][-3:]] == [f"{place}/more/new[{i}]" for i in range(3)]
    assert found["images"][0]["path"] == f"{place}/new[0]"
    assert [row["probabilities"] for row in found["images"][-3:]] == [
        row["probabilities"] for row in found["images"][:3]
    ]
    assert (found["files"]["n_used"], len(found["refused"])) == (n, 1)


def test_rows_of_vectors_are_called_rows(place, capsys):
    assert run(["predict", str(place / "run"), str(place / "digits.npz"), "--min-probability", "0.9"]) == DONE
    said = capsys.readouterr().err
    assert re.search(r"of \d+ labelled rows right", said)
    assert re.search(r"\d+ rows of 600 left without a label", said)
    assert "image" not in said


def test_a_table_of_another_tool_is_one_of_vectors_where_the_user_says_so(place, capsys):
    words = ["classify", str(place / "frame.parquet"), "--dry-run"]
    assert run(words) != DONE
    assert run([*words, "--features-column", "pixel_", "--label-column", "target"]) == DONE
    assert "600 rows" in capsys.readouterr().out
    reading = {"label_column": "target", "features_column": "pixel_"}
    images = read_images(place / "frame.parquet", ReadOptions(**reading))
    theirs = train_heads(images, heads=["ridge"], out=place / "frame")["heads"][0]
    mine = next(head for head in read_results(place / "run")["heads"] if head["name"] == "ridge")
    assert theirs["test"]["accuracy"] == mine["test"]["accuracy"]
    assert json.loads((place / "frame" / "config.json").read_text())["reading"] == reading
    assert run(["predict", str(place / "frame"), str(place / "new.npz"), "--quiet"]) == DONE
    assert "new[0]" in capsys.readouterr().out
    frame = pyarrow.parquet.read_table(place / "frame.parquet")
    pyarrow.parquet.write_table(frame.select(frame.column_names[::-1]), place / "turned.parquet")
    words = ["predict", str(place / "frame"), str(place / "turned.parquet"), "--features-column", "pixel_"]
    assert run(words) == USAGE
    assert "takes vectors of other columns, or in another order, than " in capsys.readouterr().err


def test_an_audit_finds_copies_and_doubtful_labels(tmp_path, digits):
    X, y = digits
    doubled, labels = np.concatenate([X, X[:3]]), np.concatenate([y, y[:2], [9]])
    labels[5] = (labels[5] + 1) % 10
    images = read_arrays(doubled, labels, splits=["train"] * 400 + ["test"] * 203, name="mine")
    found = audit_images(images).to_dict()
    assert sorted(row["paths"] for row in found["duplicates"]) == [[f"mine[{i}]", f"mine[{600 + i}]"] for i in range(3)]
    assert found["n_leaked"] == 3
    assert found["conflicting_labels"][0]["paths"] == ["mine[2]", "mine[602]"]
    assert "mine[5]" in [row["path"] for row in found["doubtful_labels"]]
    assert found["near_duplicates"] == []


@pytest.mark.parametrize("suffix", ["h5", "npz", "parquet"])
def test_an_exported_file_gives_the_heads_of_its_images(exported, suffix):
    ours, theirs = (read_results(exported / name) for name in ("images", suffix))
    assert ours["dataset"]["n_test"] == theirs["dataset"]["n_test"]
    for mine, other in zip(ours["heads"], theirs["heads"], strict=True):
        assert (mine["name"], mine["test"], mine["params"]) == (other["name"], other["test"], other["params"])
    assert theirs["features"][0]["key"] == ours["features"][0]["key"]
    assert theirs["features"][0]["weights"] == f"out.{suffix}, exported from efficientnet_lite0 IMAGENET1K"


def test_the_map_of_a_run_on_an_exported_file_is_of_that_file(exported):
    write_report(exported / "h5")
    page = (exported / "h5" / "report.html").read_text()
    assert "numbers each, from out.h5, exported from efficientnet_lite0" in page
    assert '"map":null' not in page


def test_digests_of_images_pair_the_heads_of_all_runs(exported):
    assert len(compare_runs([exported / each for each in ("images", "parquet", "h5", "npz")])["test_sets"]) == 1


def test_a_head_on_images_takes_their_exported_features_and_no_others(exported, digits_folder, filled_cache, tmp_path):
    predictor = Predictor.load(exported / "images", cache_root=filled_cache)
    of_images = predictor.predict(read_images(digits_folder))
    of_file = predictor.predict(read_images(exported / "out.h5"))
    assert np.array_equal(of_images.proba, of_file.proba)
    with pytest.raises(UsageError, match="nothing in 'arrays' says that its vectors are these"):
        predictor.predict(read_arrays(np.ones((2, 1280))))
    other = read_images(exported / "out.h5")
    words = ["cache", "export", str(digits_folder), str(tmp_path / "o.npz"), "--cache", str(tmp_path / "c"), "--quiet"]
    extracted = ["extract", *words[2:3], "--backbone", "pixels", "--cache", str(tmp_path / "c"), "--quiet"]
    assert run(extracted) == run([*words, "--backbone", "pixels"]) == DONE
    with pytest.raises(UsageError, match="takes vectors of 1,280 numbers"):
        predictor.predict(read_images(tmp_path / "o.npz"))
    object.__setattr__(other.vectors.spec, "pooling", "max")
    with pytest.raises(CacheError, match="pooling"):
        predictor.predict(other)


def test_commands_that_need_images_name_the_one_that_does_not(place, exported, capsys, tmp_path):
    file = str(place / "digits.npz")
    for words in (
        ["extract", file], ["run", file], ["select", file, "--backbone", "pixels"], ["run", file, "--dry-run"],
        ["finetune", file, "--from", str(place / "run")], ["cache", "export", file, str(tmp_path / "x.npz")],
    ):  # fmt: skip
        assert run(words) == USAGE
        assert f"this command needs images. Heads are trained on vectors by: featurecache classify {file}" in (
            capsys.readouterr().err.replace("\n", " ")
        )
    assert run(["classify", file, "--layer", "stages"]) == USAGE
    assert "holds vectors, and --layer is about images: leave it out." in capsys.readouterr().err
    parquet = str(exported / "out.parquet")  # a table of images too, which are not below its folder
    assert run(["extract", parquet, "--dry-run"]) == DONE
    assert "90 images" in capsys.readouterr().out


def test_a_dry_run_shows_rows_and_what_would_stop(place, capsys):
    assert run(["classify", str(place / "new.npz"), "--dry-run"]) == DONE
    shown = capsys.readouterr().out
    assert "20 rows" in shown
    assert "classify would stop: None of the 20 rows in" in shown
    assert "(found: features). Name the column of classes with --label-column." in shown


def test_arrays_are_trained_on_from_python(digits, tmp_path):
    X, y = digits
    images = read_arrays(X, y, name="mine")
    results = train_heads(images, heads=["ridge"], out=tmp_path / "run")
    assert results["heads"][0]["test"]["accuracy"] > 0.85
    predictions = Predictor.load(tmp_path / "run").predict(read_arrays(X[:10]))
    assert predictions.codes.shape == (10,)
    with pytest.raises(UsageError, match="'mine' holds vectors, which are the features"):
        train_heads(images, [FeatureRequest("resnet18")], heads=["ridge"], out=tmp_path / "other")


def test_images_need_a_request(digits_folder, filled_cache, tmp_path):
    with pytest.raises(UsageError, match="No features are named"):
        train_heads(read_images(digits_folder), heads=["ridge"], cache_root=filled_cache, out=tmp_path / "run")
    with pytest.raises(UsageError, match="No features are named"):
        audit_images(read_images(digits_folder), cache_root=filled_cache)
    with pytest.raises(RequestError):
        FeatureRequest(backbone=3)
