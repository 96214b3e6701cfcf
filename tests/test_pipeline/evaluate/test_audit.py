"""An audit finds what was done to a data set, says what that can change, and ends with 3 where it matters."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from featurecache.cli.main import DONE, FAILED, REFUSED, USAGE, run
from featurecache.evaluate.audit import robust_z


def audited(folder, cache, capsys, *options: str) -> tuple[int, dict]:
    code = run(["audit", str(folder), "--cache", str(cache), "--json", "--quiet", *options])
    return code, json.loads(capsys.readouterr().out)


def first_test_image(folder):
    return sorted((folder / "test" / "1").iterdir())[0]


def extract(folder, cache, capsys) -> None:
    assert run(["extract", str(folder), "--cache", str(cache), "--quiet"]) == DONE
    capsys.readouterr()


def test_clean_images_are_called_clean(images, cache, capsys):
    code, found = audited(images, cache, capsys)
    assert code == DONE
    assert (found["untrue"], found["why"]) == (False, "")
    assert found["n_images"] == sum(found["n_of_split"].values()) == 90
    for name in ("duplicates", "near_duplicates", "groups_across_splits", "conflicting_labels"):
        assert found[name] == []


def test_a_test_image_in_train_makes_accuracies_optimistic(sorted_images, cache, capsys):
    original = first_test_image(sorted_images)
    shutil.copy(original, sorted_images / "train" / "1" / "copy.png")
    code, found = audited(sorted_images, cache, capsys)
    assert code == REFUSED
    told = "1 of 30 test images is in train or val too, as exact copies."
    assert found["why"] == f"Test accuracies can be up to 3.33 points too high: {told}"
    assert (found["n_leaked"], found["share_leaked"]) == (1, 0.033333)
    (copies,) = found["duplicates"]
    assert (copies["same"], copies["across_splits"], copies["labels"]) == ("bytes", True, ["1", "1"])
    assert set(copies["paths"]) == {f"test/1/{original.name}", "train/1/copy.png"}


def test_leaks_up_to_a_stated_share_are_told_and_end_it_well(sorted_images, cache, capsys):
    shutil.copy(first_test_image(sorted_images), sorted_images / "train" / "1" / "copy.png")
    code, found = audited(sorted_images, cache, capsys, "--max-leaked", "0.04")
    assert (code, found["n_leaked"]) == (DONE, 1)


def test_of_a_video_as_many_near_copies_are_listed_as_asked_for_those_across_splits_first(
    sorted_images, cache, capsys, monkeypatch
):
    picture = Image.open(first_test_image(sorted_images)).resize((64, 64), Image.Resampling.BICUBIC)
    for number in range(6):
        split = "test" if number == 5 else "train"
        picture.save(sorted_images / split / "1" / f"frame-{number}.jpg", quality=80 + number)
    extract(sorted_images, cache, capsys)
    monkeypatch.setattr("featurecache.evaluate.audit.MOST_NEAR", 4)
    _, found = audited(sorted_images, cache, capsys)
    assert len(found["near_duplicates"]) == 4
    assert found["n_near_duplicates"] >= 15
    assert all(pair["across_splits"] for pair in found["near_duplicates"])


def test_a_test_image_saved_anew_in_train_is_found(sorted_images, cache, capsys):
    large = Image.open(first_test_image(sorted_images)).resize((64, 64), Image.Resampling.BICUBIC)
    large.save(sorted_images / "test" / "1" / "large.png")
    large.save(sorted_images / "train" / "1" / "large.jpg", quality=80)
    extract(sorted_images, cache, capsys)
    code, found = audited(sorted_images, cache, capsys)
    assert code == REFUSED
    assert "nearly the same" in found["why"]
    pairs = [set(pair["paths"]) for pair in found["near_duplicates"]]
    assert {"test/1/large.png", "train/1/large.jpg"} in pairs


def test_copies_within_train_are_told_and_harm_nothing(sorted_images, cache, capsys):
    original = sorted((sorted_images / "train" / "0").iterdir())[0]
    shutil.copy(original, original.with_name("copy.png"))
    code, found = audited(sorted_images, cache, capsys)
    across = {each["across_splits"] for each in found["duplicates"] if "val" not in each["splits"]}
    assert len(found["duplicates"]) == 1
    assert code == DONE
    assert across <= {False}


def test_one_image_under_two_labels_is_a_conflict(images, cache, capsys):
    original = sorted((images / "0").iterdir())[0]
    shutil.copy(original, images / "2" / "copy.png")
    _, found = audited(images, cache, capsys)
    (conflict,) = found["conflicting_labels"]
    assert conflict["same"] == "bytes"
    assert sorted(conflict["labels"]) == ["0", "2"]


def test_a_group_on_both_sides_is_a_leak(images, cache, capsys):
    paths = sorted(images.rglob("*.png"))
    with (images / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split", "group"))
        for number, path in enumerate(paths):
            split = "test" if number % 3 == 0 else "train"
            group = "=patient 7" if number in (0, 1) else f"p{number}"
            writer.writerow((path.relative_to(images), path.parent.name, split, group))
    code, found = audited(images / "list.csv", cache, capsys)
    assert code == REFUSED
    assert found["why"].endswith(": 1 of 30 test images is of a group that is in train or val too.")
    (group,) = found["groups_across_splits"]
    assert (group["group"], group["n_images"]) == ("=patient 7", 2)


def test_a_wrong_label_is_doubted(images, cache, capsys):
    moved = sorted((images / "0").iterdir())[3]
    moved.rename(images / "1" / "moved.png")
    _, found = audited(images, cache, capsys)
    first = found["doubtful_labels"][0]
    assert (first["path"], first["label"], first["suggested"]) == ("1/moved.png", "1", "0")
    assert first["label_probability"] < first["suggested_probability"]


def test_an_image_of_another_kind_is_an_outlier(images, cache, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "0" / "noise.png")
    extract(images, cache, capsys)
    _, found = audited(images, cache, capsys)
    first = found["outliers"][0]
    assert first["path"] == "0/noise.png"
    assert first["distance"] > 2 * first["typical_distance"]


def test_classes_too_small_to_test_are_named(images, cache, capsys):
    for path in sorted((images / "2").iterdir())[4:]:
        path.unlink()
    _, found = audited(images, cache, capsys)
    assert found["small_classes"][0]["label"] == "2"
    assert found["small_classes"][0]["n_test"] <= 4


def test_out_holds_the_json_and_a_table_for_every_list(sorted_images, cache, tmp_path, capsys):
    shutil.copy(first_test_image(sorted_images), sorted_images / "train" / "1" / "a\nb.png")
    code, found = audited(sorted_images, cache, capsys, "--out", str(tmp_path / "out"))
    assert code == REFUSED
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == found
    tables = {path.name for path in (tmp_path / "out").glob("*.csv")}
    assert tables == {f"audit_{name}.csv" for name, rows in found.items() if isinstance(rows, list)}
    text = (tmp_path / "out" / "audit_duplicates.csv").read_text()
    assert "a\\nb.png" in text


def test_a_place_that_cannot_be_a_folder_ends_it_before_the_work(images, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        command = ["audit", str(images), "--cache", str(tmp_path / "none"), "--out", str(out), "--quiet"]
        assert run(command) == FAILED
        assert capsys.readouterr().err == (
            f"featurecache: The folder '{out}' cannot be written: '{tmp_path / 'file'}' is not a folder. "
            "Choose another with --out.\n"
        )


def test_files_that_cannot_be_written_are_left_as_they_were_and_the_result_is_printed(
    images, cache, tmp_path, capsys, monkeypatch
):
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    out = tmp_path / "out"
    out.mkdir()
    (out / "audit.json").write_text("older")
    monkeypatch.setattr("featurecache.evaluate.audit_document.write_json", full)
    assert run(["audit", str(images), "--cache", str(cache), "--out", str(out), "--quiet"]) == FAILED
    printed = capsys.readouterr()
    assert "90 images" in printed.out
    assert printed.err.startswith("featurecache: The disk is full: a file could not be written. Free some space, or")
    assert [path.name for path in out.iterdir()] == ["audit.json"]
    assert (out / "audit.json").read_text() == "older"


def test_the_text_says_the_verdict_and_escapes_names(sorted_images, cache, capsys):
    shutil.copy(first_test_image(sorted_images), sorted_images / "train" / "1" / "a\x1b[31mb.png")
    assert run(["audit", str(sorted_images), "--cache", str(cache), "--quiet"]) == REFUSED
    out = capsys.readouterr().out
    assert "\nTest accuracies can be up to 3.33 points too high: 1 of 30 test images is" in out
    assert "\nimages in more than one file: 1\n" in out
    assert "\ngroups on more than one side of the split: none\n" in out
    assert "\x1b" not in out
    assert "a\\x1b[31mb.png" in out


def test_missing_features_end_it_with_the_command_to_run(images, tmp_path, capsys):
    assert run(["audit", str(images), "--cache", str(tmp_path / "none"), "--quiet"]) == FAILED
    assert f"featurecache extract {images} --cache {tmp_path / 'none'}" in capsys.readouterr().err


def test_two_backbones_are_one_too_many(images, cache, capsys):
    command = ["audit", str(images), "--cache", str(cache), "--backbone", "pixels,efficientnet_lite0"]
    assert run(command) == USAGE
    assert "An audit looks at one set of features, not at 2" in capsys.readouterr().err


def test_the_robust_score_is_the_ordinary_one_on_normal_numbers():
    values = np.random.default_rng(0).normal(5.0, 2.0, 100_000)
    assert robust_z(values).std() == pytest.approx(1.0, rel=0.02)
    assert robust_z(np.array([1.0, 1.0, 1.0, 9.0])).tolist() == [0, 0, 0, 0]
