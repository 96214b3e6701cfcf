"""Every file of a folder is counted once, by every command, in text and in JSON."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from featurecache.cli.main import DONE, REFUSED, run
from featurecache.extract.images.left_out import REASONS

PIXELS = ["--backbone", "pixels", "--size", "8"]
README = Path(__file__).parents[4] / "extract" / "README.md"
FOREIGN = [
    ".txt", ".pdf", ".mov", ".mp4", ".xml", ".json", ".docx", ".xlsx", ".zip", ".md", ".html", ".py", ".log", ".ini",
    ".bak", ".tmp", ".yaml", ".sh", ".c", ".wav", ".mp3", ".avi", ".npy", ".doc", ".rar", ".7z", ".sql", ".rtf",
]  # fmt: skip
MISSED = [".CR2", ".nef", ".dng", ".svg", ".eps", ".xcf", ".jxl"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, cats_and_dogs) -> Path:
    """Two classes, files of 40 suffixes among them, a class of no image, and what systems leave."""
    root = Path(shutil.copytree(cats_and_dogs, tmp_path_factory.mktemp("mixed") / "new"))
    for number, suffix in enumerate([*FOREIGN, *MISSED, ".CR2", ""]):
        (root / ("cat", "dog")[number % 2] / f"file{number}{suffix}").write_bytes(b"something else")
    for name in ("bird/a.dng", "bird/b.nef", "Thumbs.db", ".DS_Store", "@eaDir/cat/SYNOPHOTO_THUMB_M.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"something else")
    (root / "cat" / "broken.png").write_bytes(b"no image")
    (root / "cat" / "broken.JPG").write_bytes(b"no image")
    for name in ("owl/0.png", "owl/1.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(f"no image either: {name}".encode())
    shutil.copy(root / "dog" / "00.png", root / "loose.png")
    return root


@pytest.fixture(scope="module")
def n_files(mixed) -> int:
    """The number of all files below the folder."""
    return sum(len(names) for _, _, names in os.walk(mixed))


@pytest.fixture(scope="module")
def place(tmp_path_factory, mixed) -> Path:
    """A folder with the cache of the images."""
    root = tmp_path_factory.mktemp("place")
    assert run(["extract", str(mixed), *PIXELS, "--cache", str(root / "cache"), "--quiet"]) == REFUSED
    return root


@pytest.fixture
def ended(mixed, place, run_of_two, tmp_path, capsys):
    """What a command on these images ended with, and what it printed."""
    heads = ["--heads", "ridge", "--out", str(tmp_path / "run")]
    words = {
        "extract": ["extract", str(mixed), *PIXELS],
        "run": ["run", str(mixed), *PIXELS, *heads],
        "classify": ["classify", str(mixed), *PIXELS, *heads],
        "predict": ["predict", str(run_of_two), str(mixed)],
        "select": ["select", str(mixed), *PIXELS, "--sample", "10"],
        "audit": ["audit", str(mixed), *PIXELS, "--max-leaked", "0.9"],
        "export": ["cache", "export", str(mixed), str(tmp_path / "x.npz"), *PIXELS],
        "prune": ["cache", "prune", str(mixed)],
    }

    def end(command, *more):
        code = run([*words[command], "--cache", str(place / "cache"), "--quiet", *more])
        return (code, *capsys.readouterr())

    return end


COMMANDS = ["extract", "run", "classify", "predict", "select", "audit", "export"]


@pytest.mark.parametrize("command", [*COMMANDS, "prune"])
def test_the_counts_add_up_to_all_files(ended, n_files, command):
    code, out, err = ended(command, "--json")
    document = json.loads(out)
    files = document["dataset"]["files"] if command in {"run", "classify"} else document["files"]
    assert files["n_files"] == n_files
    assert files["n_used"] + sum(row["n"] for row in files["by_reason"]) == n_files
    assert code == (DONE if command == "prune" else REFUSED)
    lines = re.findall(r"^(?:files:|  ([\d,]+)) (.*)$", err, re.MULTILINE)
    (total,) = [text for n, text in lines if not n]
    assert total.startswith(f"{n_files}, of which {files['n_used']} images are used")
    nouns = [reason.many.rpartition(" ")[0] for reason in REASONS.values() if not reason.is_folder]
    nouns += [reason.one.rpartition(" ")[0] for reason in REASONS.values() if not reason.is_folder]
    assert files["n_used"] + sum(int(n) for n, text in lines if n and text.partition(":")[0] in nouns) == n_files


@pytest.mark.parametrize("command", COMMANDS)
def test_what_somebody_would_miss_is_named_and_listed(ended, place, tmp_path, command):
    _, _, err = ended(command)
    lists = {"run": tmp_path / "run", "classify": tmp_path / "run", "export": tmp_path}
    with (lists.get(command, place / "cache") / "errors.csv").open() as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert {"bird/a.dng", "bird/b.nef", "cat/broken.png"} <= listed.keys() or command == "select"
    assert {"bird/a.dng", "bird/b.nef"} <= listed.keys()
    assert "RAW" in listed["bird/a.dng"]
    assert not {"Thumbs.db", "cat/file0.txt"} & listed.keys()
    if command != "predict":
        assert {"loose.png", "bird"} <= listed.keys()
    assert "refused and left out, all listed in" in err or command in {"classify", "run"}


def test_a_class_whose_images_are_all_refused_is_named_too(ended):
    _, out, err = ended("extract", "--json")
    assert json.loads(out)["files"]["vanished_classes"] == ["bird", "owl"]
    assert "2 class folders with files and no image that can be read: 'bird', 'owl'" in err


def test_predict_needs_no_classes(ended):
    _, out, _ = ended("predict", "--json")
    found = json.loads(out)
    assert "loose.png" in {row["path"] for row in found["images"]}
    assert found["files"]["vanished_classes"] == []


def test_pruning_keeps_the_rows_of_files_that_others_leave_out(ended, mixed, place, run_of_two, capsys):
    assert run(["predict", str(run_of_two), str(mixed), "--cache", str(place / "cache"), "--quiet"]) == REFUSED
    capsys.readouterr()
    code, out, _ = ended("prune")
    assert code == DONE
    assert "Every row is used by these images." in out


def test_files_that_nobody_misses_are_counted_and_no_more(cats_and_dogs, tmp_path, capsys):
    root = Path(shutil.copytree(cats_and_dogs, tmp_path / "new"))
    for name in ("Thumbs.db", "notes.txt", "cat/Thumbs.db", "cat/list.xml"):
        (root / name).write_bytes(b"something else")
    assert run(["extract", str(root), *PIXELS, "--cache", str(tmp_path / "cache"), "--quiet"]) == DONE
    err = capsys.readouterr().err
    assert "files: 28, of which 24 images are used\n" in err
    assert "  2 files that are not images: 1 .txt, 1 .xml\n" in err
    assert not (tmp_path / "cache" / "errors.csv").exists()


def test_rows_of_a_table_without_a_label_are_counted_and_no_more(cats_and_dogs, tmp_path, capsys):
    root = Path(shutil.copytree(cats_and_dogs, tmp_path / "new"))
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    rows[3], rows[-1] = rows[3].partition(",")[0] + ",", rows[-1].partition(",")[0] + ","
    (root / "list.csv").write_text("\n".join(["path,label", *rows]))
    words = ["run", str(root / "list.csv"), *PIXELS, "--heads", "ridge", "--out", str(tmp_path / "run"), "--json"]
    assert run([*words, "--cache", str(tmp_path / "cache"), "--quiet"]) == DONE
    files = json.loads(capsys.readouterr().out)["dataset"]["files"]
    assert (files["n_files"], files["n_used"], files["n_missed"]) == (24, 22, 0)
    assert files["by_reason"] == [{"reason": "no_label", "suffix": ".png", "n": 2}]


def test_rare_classes_that_are_left_out_are_counted(cats_and_dogs, tmp_path, save, capsys):
    root = Path(shutil.copytree(cats_and_dogs, tmp_path / "new"))
    save(root / "owl" / "0.png", "owl")
    words = ["run", str(root), *PIXELS, "--heads", "ridge", "--out", str(tmp_path / "run"), "--min-per-class", "2"]
    assert run([*words, "--cache", str(tmp_path / "cache"), "--quiet", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["dataset"]["files"]["by_reason"] == [
        {"reason": "rare_class", "suffix": ".png", "n": 1}
    ]


def test_the_readme_says_what_becomes_of_every_kind_of_file():
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([03]) \|$", README.read_text(), re.MULTILINE)
    assert {code: int(exit_code) for code, exit_code in rows} == {
        reason.code: REFUSED if reason.missed else DONE for reason in REASONS.values()
    }
