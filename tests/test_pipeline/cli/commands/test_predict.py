"""Whatever is below the arguments of `predict` gets a label, and its accuracy is over labels that the head has."""

from __future__ import annotations

import csv
import io
import json
import os
import sys

import pytest

from featurecache.cli.main import DONE, REFUSED, USAGE, run


@pytest.fixture
def predicted(run_of_two, capsys):
    """The exit code, the JSON and the lines on stderr of `predict` on some arguments."""

    def predict(*images, options=()):
        code = run(["predict", str(run_of_two), *map(str, images), "--json", *options])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return predict


LAYOUTS = {
    "loose files beside a folder": ["new_0.png", "new_1.png", "day2/more.png"],
    "a split beside other folders": ["train/0.png", "station/0.png", "bridge/0.png"],
    "splits and loose files": ["train/cat/0.png", "test/cat/1.png", "2.png"],
    "deeper than classes": ["2024/05/cam1/0.png", "2024/06/cam1/1.png", "3.png"],
    "a folder in a folder of the same name": ["new/new/cat/0.png", "new/new/dog/1.png"],
    "a split below the class": ["cat/train/0.png", "cat/val/1.png", "dog/train/2.png"],
    "a class beside a split": ["cat/0.png", "val/1.png"],
}


@pytest.mark.parametrize("names", LAYOUTS.values(), ids=LAYOUTS)
def test_every_image_is_labelled_in_any_layout(predicted, save, tmp_path, names):
    for number, name in enumerate(names):
        save(tmp_path / "new" / name, "dog" if "dog" in name else "cat", 100 + number)
    code, found, _ = predicted(tmp_path / "new")
    assert code == DONE
    assert sorted(row["path"] for row in found["images"]) == sorted(names)
    assert all(row["label"] == ("dog" if "dog" in row["path"] else "cat") for row in found["images"])


@pytest.mark.parametrize(
    ("names", "known", "unknown"),
    [
        (["cat/0.png", "dog/1.png", "owl/2.png", "owl/3.png"], 2, {"owl": 2}),
        (["Cam1/0.png", "Cam2/1.png"], 0, {"Cam1": 1, "Cam2": 1}),
        (["new_0.png", "day2/more.png"], 0, {"day2": 1}),
        (["test/cat/0.png", "station/cat/1.png", "station/2.png"], 2, {"station": 1}),
        (["new_0.png", "train/1.png"], 0, {}),
    ],
)
def test_accuracy_is_over_labels_that_the_head_has(predicted, save, tmp_path, names, known, unknown):
    for number, name in enumerate(names):
        save(tmp_path / "new" / name, next((k for k in ("dog", "owl") if k in name), "cat"), 100 + number)
    code, found, err = predicted(tmp_path / "new")
    assert code == DONE
    assert found["labelled"] == {"right": known, "known": known, "unknown": unknown}
    assert (f"{known} of {known} labelled images right" in err) == bool(known)
    assert "0 of" not in err
    if unknown:
        n = sum(unknown.values())
        have = "1 image has" if n == 1 else f"{n} images have"
        assert f"{have} a label that the head does not have: {', '.join(unknown)}" in err


@pytest.mark.parametrize(("labels", "unknown"), [(["unknown", ""], {"unknown": 1}), (["1.0", "cat"], {"1.0": 1})])
def test_labels_of_a_table_that_the_head_does_not_have_are_named(predicted, save, tmp_path, labels, unknown):
    for number in range(2):
        save(tmp_path / f"{number}.png", "cat", 100 + number)
    rows = "".join(f"{number}.png,{label}\n" for number, label in enumerate(labels))
    (tmp_path / "list.csv").write_text(f"path,label\n{rows}")
    code, found, err = predicted(tmp_path / "list.csv")
    assert (code, found["labelled"]["unknown"]) == (DONE, unknown)
    assert "0 of" not in err


def test_of_many_labels_that_the_head_does_not_have_the_first_are_named(predicted, save, tmp_path):
    for number in range(12):
        save(tmp_path / "new" / f"site{number:02d}" / "0.png", "cat", 100 + number)
    _, found, err = predicted(tmp_path / "new")
    assert len(found["labelled"]["unknown"]) == 12
    assert "site09 and 2 more" in err


@pytest.mark.parametrize(
    ("layout", "right", "unknown"),
    [(None, 2, {"owl": 1}), ("flat", 0, {}), ("any/class", 0, {"blue": 1}), ("leaf", 1, {"owl/blue": 1, "dog/cat": 1})],
)
def test_a_layout_that_is_given_says_what_the_labels_are(predicted, save, tmp_path, layout, right, unknown):
    for number, name in enumerate(["dog/0.png", "owl/blue/1.png", "dog/cat/2.png", "3.png"]):
        save(tmp_path / "new" / name, "dog" if name[0] == "d" else "owl", 100 + number)
    options = [] if layout is None else ["--layout", layout]
    code, found, _ = predicted(tmp_path / "new", options=options)
    assert (code, len(found["images"])) == (DONE, 4)
    assert (found["labelled"]["right"], found["labelled"]["unknown"]) == (right, unknown)


def test_the_layout_of_the_run_is_that_of_other_images_where_it_gives_a_label_that_the_head_has(save, tmp_path, capsys):
    for number in range(24):
        kind = ("cat", "dog")[number % 2]
        save(tmp_path / "old" / "a" / kind / f"{number}.png", kind, number)
    place = ["--cache", str(tmp_path / "cache"), "--quiet"]
    words = ["--backbone", "pixels", "--size", "8", "--heads", "ridge", "--layout", "leaf", *place]
    assert run(["run", str(tmp_path / "old"), *words, "--out", str(tmp_path / "run")]) == DONE
    save(tmp_path / "new" / "a" / "cat" / "0.png", "cat", 100)
    save(tmp_path / "new" / "owl" / "1.png", "owl", 101)
    capsys.readouterr()
    assert run(["predict", str(tmp_path / "run"), str(tmp_path / "new"), "--json", *place]) == DONE
    labelled = json.loads(capsys.readouterr().out)["labelled"]
    assert (labelled["known"], labelled["unknown"]) == (1, {"owl": 1})


def test_options_of_tables_are_for_the_tables_among_the_arguments(predicted, save, tmp_path):
    for name in ("new/cat/0.png", "more/1.png"):
        save(tmp_path / name, "cat", 100)
    (tmp_path / "list.csv").write_text("file,species\nmore/1.png,cat\n")
    columns = ["--path-column", "file", "--label-column", "species"]
    code, found, _ = predicted(tmp_path / "new", tmp_path / "list.csv", options=[*columns, "--layout", "flat"])
    assert (code, len(found["images"]), found["labelled"]["known"]) == (DONE, 2, 1)
    for image in (tmp_path / "new", tmp_path / "new" / "cat" / "0.png"):
        code, found, err = predicted(image, options=columns)
        assert (code, found) == (USAGE, None)
        assert "is no table, and --path-column is about tables: leave it out" in err


def test_an_image_in_several_arguments_is_labelled_once(predicted, save, tmp_path):
    images = [save(tmp_path / "new" / "cat" / f"{number}.png", "cat", number) for number in range(2)]
    code, found, err = predicted(tmp_path / "new", images[1], tmp_path / "new")
    assert (code, len(found["images"]), found["files"]["n_files"]) == (DONE, 2, 2)
    assert "1 image is in several arguments, and used once." in err
    code, found, err = predicted(images[0], images[0])
    assert (code, [row["path"] for row in found["images"]]) == (DONE, ["0.png"])
    assert "1 path is given again, and used once." in err


BAD = {
    "Thumbs.db": b"\0" * 64,
    "notes.txt": b"a note",
    "list.csv": b"name,label\n0.png,cat\n",
    "missing.png": None,
    "empty": "folder",
    "a\nb.doc": b"of Word",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_of_several_costs_itself_alone(predicted, save, tmp_path, name):
    good = [save(tmp_path / f"{number}.png", "dog", number) for number in range(2)]
    bad = tmp_path / name
    if BAD[name] == "folder":
        bad.mkdir()
    elif BAD[name] is not None:
        bad.write_bytes(BAD[name])
    out = tmp_path / "to" / "p.csv"
    out.parent.mkdir()
    code, found, err = predicted(good[0], bad, good[1])
    assert (code, len(found["images"])) == (REFUSED, 2)
    (refused,) = found["refused"]
    assert refused["path"] == str(bad).replace("\n", r"\n")
    assert f"{refused['path']}: {refused['reason']}" in err
    assert predicted(good[0], bad, good[1], options=["--out", str(out)])[0] == REFUSED
    with (out.parent / "errors.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == [refused["path"]]


@pytest.mark.parametrize("more", [[], ["good.png"]])
def test_a_folder_of_images_that_cannot_be_read_is_refused_by_name(predicted, save, tmp_path, more):
    (tmp_path / "raw").mkdir()
    for number in range(3):
        (tmp_path / "raw" / f"{number}.NEF").write_bytes(b"of a camera")
    code, found, err = predicted(tmp_path / "raw", *[save(tmp_path / name) for name in more])
    assert (code, len(found["images"]), found["files"]["n_files"]) == (REFUSED, len(more), 3 + len(more))
    assert [row["path"].rpartition("/")[2] for row in found["refused"]] == ["0.NEF", "1.NEF", "2.NEF"]
    assert "3 images are refused and left out" in err


def test_a_folder_that_cannot_be_read_is_named(predicted, save, tmp_path, monkeypatch):
    save(tmp_path / "new" / "day1" / "0.png")
    save(tmp_path / "new" / "day2" / "1.png")
    scandir = os.scandir

    def closed(folder):
        if str(folder).rstrip("/").endswith("day2"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    code, found, err = predicted(tmp_path / "new")
    assert (code, len(found["images"])) == (REFUSED, 1)
    assert [row["path"] for row in found["refused"]] == ["day2"]
    assert "1 folder is refused and left out" in err
    assert "day2: folder that cannot be read (Permission denied)" in err


def test_arguments_that_are_refused_are_called_arguments(predicted, save, tmp_path):
    (tmp_path / "notes.docx").write_bytes(b"of Word")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "0.nef").write_bytes(b"of a camera")
    arguments = [save(tmp_path / "0.png"), tmp_path / "nope.jpg", tmp_path / "notes.docx"]
    code, _, err = predicted(*arguments)
    assert code == REFUSED
    assert "\n2 arguments are refused and left out, all listed in" in f"\n{err}"
    code, _, err = predicted(*arguments, tmp_path / "new")
    assert "\n1 image and 2 arguments are refused and left out, all listed in" in f"\n{err}"


def test_with_on_error_fail_a_bad_argument_ends_the_command(predicted, save, tmp_path):
    code, found, err = predicted(save(tmp_path / "0.png"), tmp_path / "no.png", options=["--on-error", "fail"])
    assert (code, found) == (USAGE, None)
    assert "no.png" in err


@pytest.mark.parametrize("names", [["no.png"], ["no.png", "neither.png"]])
def test_without_any_image_nothing_is_predicted(predicted, tmp_path, names):
    code, found, err = predicted(*[tmp_path / name for name in names])
    assert (code, found) == (USAGE, None)
    assert "There is no folder or file" in err


def labels_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_predictions_has_a_column_for_every_class(predicted, cats_and_dogs, tmp_path):
    assert predicted(cats_and_dogs, options=["--out", str(tmp_path / "p.csv")])[0] == DONE
    rows = labels_of(tmp_path / "p.csv")
    assert list(rows[0]) == ["path", "label", "probability", "p:cat", "p:dog"]
    for row in rows:
        assert float(row["p:cat"]) + float(row["p:dog"]) == pytest.approx(1)
        assert row[f"p:{row['label']}"] == row["probability"]


def test_labels_of_unsure_images_are_empty_and_counted(predicted, cats_and_dogs, tmp_path):
    out = tmp_path / "p.csv"
    _, everything, _ = predicted(cats_and_dogs)
    middle = sorted(row["probability"] for row in everything["images"])[9]
    unsure = {row["path"] for row in everything["images"] if row["probability"] < middle}
    options = ["--min-probability", str(middle), "--top", "2", "--out", str(out)]
    code, _, err = predicted(cats_and_dogs, options=options)
    assert (code, {row["path"] for row in labels_of(out) if not row["label"]}) == (DONE, unsure)
    assert list(labels_of(out)[0])[3:] == ["label1", "probability1", "label2", "probability2"]
    assert f"9 images of 24 left without a label: the best is less probable than {middle:g}" in err
    assert "of 15 labelled images right" in err
    _, found, _ = predicted(cats_and_dogs, options=options[:4])
    assert (found["unsure"], found["labelled"]["known"]) == (9, 15)


@pytest.mark.parametrize("form", ["csv", "jsonl", "table", "json"])
def test_every_format_can_be_printed(run_of_two, cats_and_dogs, capsys, form):
    assert run(["predict", str(run_of_two), str(cats_and_dogs), "--format", form, "--quiet"]) == DONE
    out = capsys.readouterr().out
    assert len(out.splitlines()) >= 24
    assert out.startswith({"csv": "path,label,", "jsonl": '{"path": ', "table": "path ", "json": "{\n"}[form])


CONTRADICTIONS = {
    "--format is about stdout": ["--format", "csv", "--out", "x.csv"],
    "name two formats": ["--format", "csv", "--json"],
    "has a suffix that is no format": ["--out", "x.txt"],
    "--null is about paths on standard input": ["--null"],
    "not in the range 0<=x<=1": ["--min-probability", "90"],
    "'nan' is not a number": ["--min-probability", "nan"],
    "is not a whole number of 1 or more": ["--top", "0"],
}


@pytest.mark.parametrize("sentence", CONTRADICTIONS)
def test_options_that_contradict_each_other_are_refused(run_of_two, cats_and_dogs, capsys, sentence):
    assert run(["predict", str(run_of_two), str(cats_and_dogs), *CONTRADICTIONS[sentence]]) == USAGE
    assert sentence in capsys.readouterr().err


def test_a_link_is_written_through_in_the_format_of_its_name(predicted, cats_and_dogs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").symlink_to("labels of today")
    assert predicted(cats_and_dogs, options=["--out", "p.csv"])[0] == DONE
    assert (tmp_path / "p.csv").is_symlink()
    assert len(labels_of(tmp_path / "labels of today")) == 24
    (tmp_path / "q.csv").symlink_to(tmp_path / "none" / "q.csv")
    code, _, err = predicted(cats_and_dogs, options=["--out", "q.csv"])
    assert (code, f"There is no folder '{tmp_path / 'none'}'" in err) == (USAGE, True)
    os.mkfifo(tmp_path / "r.csv")
    code, _, err = predicted(cats_and_dogs, options=["--out", "r.csv"])
    assert (code, "'r.csv' is a device or a pipe. Choose a file with --out" in err) == (USAGE, True)


def test_a_table_of_labels_is_not_replaced_by_predictions(predicted, save, tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("path,label\na.png,cat\n")
    code, found, err = predicted("a.png", "list.csv", options=["--out", "./list.csv"])
    assert (code, found) == (USAGE, None)
    assert "'list.csv' is what is to be labelled, and --out would replace it." in err
    assert (tmp_path / "list.csv").read_text() == "path,label\na.png,cat\n"


@pytest.fixture
def typed(monkeypatch):
    """Put bytes on standard input."""

    def put(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return put


def test_paths_on_standard_input_are_labelled_under_their_names(predicted, typed, save, tmp_path, monkeypatch):
    names = ["a.png", "./b/c d.png", "nothing.png"]
    for name in names[:2]:
        save(tmp_path / name, "dog")
    monkeypatch.chdir(tmp_path)
    typed("\n".join(names).encode())
    code, found, err = predicted("-")
    assert (code, [row["path"] for row in found["images"]]) == (REFUSED, names[:2])
    assert "nothing.png" in err
    typed("\0".join([*names[:2], ""]).encode())
    code, found, _ = predicted("-", options=["-0"])
    assert (code, [row["path"] for row in found["images"]]) == (DONE, names[:2])
    typed(b"a.png\n./a.png\na.png")
    _, found, err = predicted("-")
    assert [row["path"] for row in found["images"]] == ["a.png"]
    assert "2 paths are given again, and used once." in err
    typed(b"a.png\n")
    assert [row["path"] for row in predicted("b", "-")[1]["images"]] == ["b/c d.png", "a.png"]


def test_an_image_on_standard_input_has_the_label_of_its_file(predicted, typed, save, tmp_path):
    image = save(tmp_path / "a.png", "dog", 7)
    (expected,) = predicted(image)[1]["images"]
    typed(image.read_bytes())
    code, found, _ = predicted("-")
    assert (code, found["images"]) == (DONE, [{**expected, "path": "-"}])
    typed(image.read_bytes()[:60])
    code, found, err = predicted("-")
    assert (code, found["images"], found["refused"][0]["path"]) == (REFUSED, [], "-")
    assert "\n  -: " in err


def test_a_return_within_a_name_ends_no_line(predicted, typed, save, tmp_path, monkeypatch):
    names = ["a.png", "b\rc.png", " d.png"]
    for name in names:
        save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    typed("\r\n".join([*names, ""]).encode())
    code, found, _ = predicted("-")
    assert (code, [row["path"] for row in found["images"]]) == (DONE, ["a.png", r"b\rc.png", " d.png"])


@pytest.mark.parametrize("data", [b"", b"\n"])
def test_an_empty_standard_input_is_a_sentence(predicted, typed, data):
    typed(data)
    code, _, err = predicted("-")
    assert (code, "Standard input is empty" in err) == (USAGE, True)


def test_a_pattern_is_replaced_also_where_the_shell_leaves_it(predicted, save, tmp_path):
    for name in ("day1/a.png", "day2/b.png"):
        save(tmp_path / name)
    code, found, _ = predicted(tmp_path / "**" / "*.png")
    assert (code, [row["path"] for row in found["images"]]) == (
        DONE,
        [str(tmp_path / "day1/a.png"), str(tmp_path / "day2/b.png")],
    )
    code, _, err = predicted(tmp_path / "*.jpeg")
    assert (code, "matches no file or folder" in err) == (USAGE, True)


def test_images_are_labelled_block_by_block(run_of_two, cats_and_dogs, monkeypatch, tmp_path):
    """No more than a block of features is read from the cache at once, whatever the number of images."""
    from featurecache.extract.cache.store import FeatureCache
    from featurecache.predictions import writing

    sizes, lookup = [], FeatureCache.lookup

    def counted(self, digests):
        sizes.append(len(digests))
        return lookup(self, digests)

    command = ["predict", str(run_of_two), str(cats_and_dogs), "--quiet", "--out"]
    assert run([*command, str(tmp_path / "whole.csv")]) == DONE
    monkeypatch.setattr(FeatureCache, "lookup", counted)
    monkeypatch.setattr(writing.begin_writing, "__kwdefaults__", {"block_images": 10})
    assert run([*command, str(tmp_path / "blocks.csv")]) == DONE
    assert sizes == [10, 10, 4]
    whole, blocks = labels_of(tmp_path / "whole.csv"), labels_of(tmp_path / "blocks.csv")
    assert [(row["path"], row["label"]) for row in blocks] == [(row["path"], row["label"]) for row in whole]
    assert [float(row["p:cat"]) for row in blocks] == pytest.approx([float(row["p:cat"]) for row in whole], abs=1e-12)
