"""`--dry-run` shows how images are read, and does nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from featurecache.cli.main import DONE, FAILED, REFUSED, run

PIXELS = ["--backbone", "pixels"]
COMMANDS = {
    "extract": [],
    "run": [],
    "classify": [],
    "select": PIXELS,
    "audit": [],
    "finetune": ["--from", "RUN"],
    "predict": ["RUN"],
}


@pytest.fixture(scope="module")
def split(tmp_path_factory, save) -> Path:
    """A folder with train and test, a file that is no image, and an image of a camera. Read only."""
    root = tmp_path_factory.mktemp("images") / "split"
    for name in ("train/cat/0.png", "train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png"):
        save(root / name, "dog" if "dog" in name else "cat", int(name[-5]))
    (root / "notes.txt").write_text("a note")
    (root / "train" / "dog" / "0.nef").write_bytes(b"RAW")
    return root


def words_of(command, images, run_folder) -> list[str]:
    more = [str(run_folder) if word == "RUN" else word for word in COMMANDS[command]]
    names = [*more, str(images)] if command == "predict" else [str(images), *more]
    return [command, *names, "--dry-run"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_images_shows_how(split, run_of_two, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert run(words_of(command, split, run_of_two)) == REFUSED
    out = capsys.readouterr().out
    assert "classes: 2: cat (3), dog (2)" in out
    assert "files: 7, of which 5 images are used" in out
    assert "train/dog/0.nef: RAW image of a camera" in out
    assert out.endswith("Nothing was done.\n")
    assert run([*words_of(command, split, run_of_two), "--json"]) == REFUSED
    found = json.loads(capsys.readouterr().out)
    assert (found["n_images"], found["classes"], found["n_groups"]) == (5, {"cat": 3, "dog": 2}, 0)
    assert found["splits"] == ({} if command == "predict" else {"train": 3, "test": 2})
    assert found["files"]["n_files"] == 7
    assert list(tmp_path.iterdir()) == []


def test_groups_and_rows_without_a_label_are_counted(cats_and_dogs, tmp_path, capsys):
    root = Path(shutil.copytree(cats_and_dogs, tmp_path / "new"))
    paths = [path.relative_to(root) for path in sorted(root.rglob("*.png"))]
    rows = [f"{path},{path.parent.name},{number % 5}" for number, path in enumerate(paths)]
    rows[0] = rows[0].replace(",cat,", ",,")
    (root / "list.csv").write_text("\n".join(["path,label,group", *rows]))
    assert run(["classify", str(root / "list.csv"), "--dry-run"]) == DONE
    out = capsys.readouterr().out
    assert "groups: 5\n" in out
    assert "without a label: 1\n" in out
    assert "splits: none given: made by digest" in out


def test_what_cannot_be_read_is_refused_as_ever(tmp_path, capsys):
    assert run(["extract", str(tmp_path), "--dry-run"]) == FAILED
    assert "holds no images" in capsys.readouterr().err


UNFIT = {
    "one class": ["cat/0.png", "cat/1.png"],
    "no labels": ["0.png", "1.png"],
    "one image of a class": ["cat/0.png", "cat/1.png", "cat/2.png", "dog/3.png"],
    "no val": ["train/cat/0.png", "train/dog/1.png", "test/cat/2.png", "test/dog/3.png"],
}


@pytest.mark.parametrize("names", UNFIT.values(), ids=UNFIT)
def test_the_sentence_that_would_stop_the_command_is_shown_and_nothing_is_made(
    save, tmp_path, monkeypatch, capsys, names
):
    for number, name in enumerate(names):
        save(tmp_path / "images" / name, "dog" if "dog" in name else "cat", number)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = [str(tmp_path / "images"), *PIXELS]
    said = []
    for command in ("run", "classify"):
        assert run([command, *words, "--dry-run"]) == DONE
        *_, line, last = capsys.readouterr().out.splitlines()
        assert last == "Nothing was done."
        said.append(line.removeprefix(f"{command} would stop: "))
    assert run(["run", *words, "--dry-run", "--json"]) == DONE
    said.append(json.loads(capsys.readouterr().out)["would_stop"])
    assert run(["extract", *words, "--dry-run"]) == DONE
    assert "would stop" not in capsys.readouterr().out
    assert list(Path().iterdir()) == []
    assert run(["run", *words, "--quiet"]) == FAILED
    assert capsys.readouterr().err.rstrip().endswith(said[0])
    assert said == said[:1] * 3
    assert said[0]


def test_nothing_heavy_is_loaded(split, run_of_two, tmp_path):
    code = "import sys; from featurecache.cli.main import run; "
    code += "[run(words.split('|')) for words in sys.argv[1:]]; print(*sys.modules, file=sys.stderr)"
    words = ["|".join(words_of(command, split, run_of_two)) for command in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert not {"torch", "onnxruntime", "sklearn"} & {*done.stderr.split()}
    assert list(tmp_path.iterdir()) == []
