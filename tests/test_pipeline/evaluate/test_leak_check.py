"""The quick look of `classify` sees the same leaks as the audit, and says nothing of clean images."""

import json
import shutil

import pytest
from PIL import Image

from featurecache.cli.main import DONE, REFUSED, run
from featurecache.evaluate.join import label_samples, look_up
from featurecache.evaluate.leak_check import leak_warnings
from featurecache.evaluate.leak_effect import AuditCall
from featurecache.extract.cache.memo import Memo
from featurecache.extract.images.read import read_images
from featurecache.extract.job.request import FeatureRequest


def warnings_of(folder, cache) -> list[str]:
    with Memo(cache) as memo:
        labelled = label_samples(read_images(folder), memo, seed=0)
        (features,) = look_up(labelled, [FeatureRequest()], cache_root=cache, memo=memo)
    return leak_warnings(labelled, features.X, AuditCall(FeatureRequest(), cache, seed=0, min_per_class=1))


def test_clean_images_bring_no_warning(images, cache):
    assert warnings_of(images, cache) == []


def test_a_copy_across_the_split_is_told_with_what_to_run(sorted_images, cache):
    original = sorted((sorted_images / "test" / "1").iterdir())[0]
    shutil.copy(original, sorted_images / "train" / "1" / "copy.png")
    assert warnings_of(sorted_images, cache) == [
        "Test accuracies can be up to 3.33 points too high: 1 test image is in train or val too, as exact copies. "
        "Call audit_images to list them."
    ]


@pytest.mark.parametrize(("split", "n"), [("test", 2), ("train", 1)])
def test_one_image_under_two_labels_is_said_wherever_it_is(sorted_images, cache, split, n):
    original = sorted((sorted_images / split / "1").iterdir())[0]
    shutil.copy(original, sorted_images / split / "2" / "copy.png")
    *verdict, conflict = warnings_of(sorted_images, cache)
    assert conflict == (
        f"1 image is in the data under several labels, the first, '{split}/1/{original.name}', under 1 and 2: heads "
        "can be right about one of them only. Call audit_images to list them."
    )
    assert len(verdict) == n - 1
    for sentence in verdict:
        assert sentence.startswith(
            "Test accuracies can be up to 3.23 points too low: 2 test images are the same as a test image under "
            "another label, where heads can be right about one only. "
        )


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_copies_of_train_under_another_label_can_make_accuracies_too_low(sorted_images, cache, capsys, suffix):
    train, test = sorted_images / "train", sorted_images / "test"
    for number, original in enumerate(sorted((train / "1").iterdir())[:3]):
        if suffix == "png":
            shutil.copy(original, test / "2" / f"copy-{number}.png")
        else:
            large = Image.open(original).resize((64, 64), Image.Resampling.BICUBIC)
            large.save(train / "1" / f"large-{number}.png")
            large.save(test / "2" / f"large-{number}.jpg", quality=80)
    shutil.copy(sorted((train / "0").iterdir())[0], test / "0" / "copy.png")
    assert run(["extract", str(sorted_images), "--cache", str(cache), "--quiet"]) == DONE
    capsys.readouterr()
    what = {
        "png": "in train or val too under another label, as exact copies",
        "jpg": "nearly the same as one of another label in train or val",
    }[suffix]
    verdict = warnings_of(sorted_images, cache)[0]
    compared = "" if suffix == "png" else ", of 34 compared"
    high = "Test accuracies can be up to 2.94 points too high: 1"
    low = "in train or val too, as exact copies; and up to 8.82 points too low: 3"
    assert verdict.startswith(f"{high} test image is {low} test images are {what}{compared}. ")
    assert run(["audit", str(sorted_images), "--cache", str(cache), "--json", "--quiet"]) == REFUSED
    found = json.loads(capsys.readouterr().out)
    assert found["why"] == f"{high} of 34 test images is {low} of 34 test images are {what}."
    assert found["n_leaked"] == 4


def test_a_copy_saved_anew_is_told(sorted_images, cache):
    large = Image.open(sorted((sorted_images / "test" / "1").iterdir())[0]).resize((64, 64), Image.Resampling.BICUBIC)
    large.save(sorted_images / "test" / "1" / "large.png")
    large.save(sorted_images / "train" / "1" / "large.jpg", quality=80)
    assert run(["extract", str(sorted_images), "--cache", str(cache), "--quiet"]) == DONE
    (warning,) = warnings_of(sorted_images, cache)
    assert "1 test image is nearly the same as one in train or val, of 31 compared" in warning


def test_a_run_with_a_leak_says_so_wherever_it_is_looked_at(sorted_images, cache, tmp_path, capsys):
    shutil.copy(sorted((sorted_images / "test" / "1").iterdir())[0], sorted_images / "train" / "1" / "copy.png")
    words = ["classify", str(sorted_images), "--cache", str(cache), "--heads", "centroid", "--seed", "3", "--quiet"]
    assert run([*words, "--out", str(tmp_path / "run")]) == DONE
    told = "Test accuracies can be up to 3.33 points too high: 1 test image is in train or val too, as exact copies."
    command = f"featurecache audit {sorted_images} --cache {cache} --seed 3"
    assert f"{told} To list them: {command}" in capsys.readouterr().out
    assert f"{told} To list them: {command}" in (tmp_path / "run" / "report.html").read_text()
