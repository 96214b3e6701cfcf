"""What commands say of labels that cannot be right, and of images that they leave out for their labels."""

from __future__ import annotations

import json

import pytest

from featurecache.cli.main import DONE, FAILED, run

PIXELS = ["--backbone", "pixels", "--size", "8"]


def test_classify_says_as_audit_does_that_an_image_has_two_labels(save, tmp_path, capsys):
    rows = ["path,label"]
    for kind in ("cat", "dog"):
        rows += [f"{save(tmp_path / f'{kind}{number}.png', kind, number).name},{kind}" for number in range(9)]
    rows += [f"cat{number}.png,dog" for number in range(9)] + ["dog0.png,cat|dog", "dog1.png,cat|dog"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    cache = ["--cache", str(tmp_path / "cache")]
    words = ["run", str(tmp_path / "list.csv"), *PIXELS, "--heads", "centroid", "--out", str(tmp_path / "run"), *cache]
    assert run([*words, "--json"]) == DONE
    out, err = capsys.readouterr()
    warnings = " ".join(json.loads(out)["warnings"])
    assert "the same as a test image under another label, where heads can be right about one only. To list" in warnings
    assert "11 images are in the data under several labels" in warnings
    assert "1 label with 2 images is made of other labels ('cat|dog')" in warnings
    assert err.count("made of other labels") == 1


@pytest.mark.parametrize(
    ("folders", "said"),
    [(("train", "test"), "Val is empty, train has 2 images"), (("test", "val"), "put some in train")],
)
def test_an_empty_side_is_named_before_anything_is_extracted(save, tmp_path, capsys, folders, said):
    for folder in folders:
        for kind in ("cat", "dog"):
            for number in range(1 if folder == "train" else 3):
                save(tmp_path / "new" / folder / kind / f"{number}.png", kind, number + 10 * len(folder))
    words = ["run", str(tmp_path / "new"), *PIXELS, "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]
    assert run([*words, "--quiet"]) == FAILED
    assert said in (err := capsys.readouterr().err)
    assert ("--folds" in err) == (folders[0] == "train")
    assert not list(tmp_path.glob("cache/*/shards"))


def test_select_says_which_classes_it_leaves_out_and_why(save, tmp_path, capsys):
    for kind in ("cat", "dog"):
        for number in range(4):
            save(tmp_path / "new" / kind / f"{number}.png", kind, number)
    for number in range(3):
        save(tmp_path / "new" / f"rare{number}" / "0.png", "owl", number)
    words = ["select", str(tmp_path / "new"), *PIXELS, "--cache", str(tmp_path / "cache"), "--quiet"]
    assert run(words) == DONE
    assert "3 classes with 3 images are left out, having fewer than 2 images" in capsys.readouterr().out
    assert run([*words, "--json"]) == DONE
    left_out = json.loads(capsys.readouterr().out)["left_out"]
    assert left_out == [{"class": f"rare{number}", "n_images": 1} for number in range(3)]
