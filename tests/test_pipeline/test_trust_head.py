"""What a run from elsewhere may do with its heads: predict, or be refused in a sentence."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import sklearn
from skops.io import dumps

from featurecache.classify.heads.saving.folder import load_head
from featurecache.cli.main import DONE, FAILED, run
from featurecache.finetune.plan import FinetunePlan
from featurecache.finetune.source_run import read_source_run

TREE = "sklearn.tree.DecisionTreeClassifier"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits_folder, filled_cache) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", f"ridge,{TREE}"]
    assert run([*command, "--out", str(folder), "--quiet"]) == DONE
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def head_of(folder: Path, name: str) -> Path:
    return folder / "heads" / f"efficientnet_lite0--{name}"


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def put(folder: Path, estimator) -> None:
    """Put another tree in place of the head's."""
    path = head_of(folder, TREE) / "head.skops"
    path.write_bytes(dumps(estimator))
    rewrite(path.with_name("head.json"), sha256=sha256(path.read_bytes()).hexdigest())


def put_tree(folder: Path, **changes) -> None:
    """Put a tree with other values in its first node in place of the head's."""
    head = load_head(head_of(folder, TREE)).head.estimator_
    state = head.tree_.__getstate__()
    nodes = state["nodes"].copy()
    for name, value in changes.items():
        nodes[name][0] = value
    head.tree_.__setstate__(state | {"nodes": nodes})
    put(folder, head)


def predict(folder, images, *options):
    return run(["predict", str(folder), str(images), *options])


def test_a_tree_that_could_crash_python_is_refused_with_the_way_on(copied, digits_folder, capsys):
    put_tree(copied, left_child=10**7)
    assert predict(copied, digits_folder, "--head", TREE, "--quiet") == FAILED
    said = capsys.readouterr().err
    assert said.startswith("featurecache: head.skops could crash Python or read its memory (sklearn.tree._tree.Tree: ")
    assert "load it with --trust-head" in said
    assert len(said.splitlines()) == 1


def test_a_head_that_is_trusted_predicts_with_what_is_not_checked(copied, digits_folder, capsys):
    head = load_head(head_of(copied, TREE)).head.estimator_
    head.fit = 1  # hides a method that predicting does not need
    put(copied, head)
    assert predict(copied, digits_folder, "--head", TREE, "--quiet") == FAILED
    assert "has a value ['fit'] where its class has something else" in capsys.readouterr().err
    assert predict(copied, digits_folder, "--head", TREE, "--quiet", "--trust-head") == DONE


def test_a_head_of_another_scikit_learn_predicts_with_a_note(copied, digits_folder, capsys):
    path = head_of(copied, TREE) / "head.skops"
    other = "9" * len(sklearn.__version__)
    path.write_bytes(_with_schema(path.read_bytes(), sklearn.__version__, other))
    rewrite(head_of(copied, TREE) / "head.json", sha256=sha256(path.read_bytes()).hexdigest())
    assert predict(copied, digits_folder, "--head", TREE) == DONE
    assert f"The head DecisionTreeClassifier was saved by scikit-learn {other}" in capsys.readouterr().err


def _with_schema(blob: bytes, old: str, new: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(blob)) as file, zipfile.ZipFile(written, "w") as other:
        for name in file.namelist():
            other.writestr(name, file.read(name).replace(old.encode(), new.encode()))
    return written.getvalue()


@pytest.mark.parametrize("saved", ["/etc", "../other", "heads/../../other"])
def test_a_head_outside_of_its_run_is_not_read(copied, digits_folder, capsys, saved):
    shutil.copytree(head_of(copied, "ridge"), copied.parent / "other")
    results = json.loads((copied / "results.json").read_text())
    for row in results["heads"]:
        row["saved"] = saved
    (copied / "results.json").write_text(json.dumps(results))
    assert predict(copied, digits_folder, "--head", "ridge", "--quiet") == FAILED
    assert "'saved' of the head 'ridge' leads out of the run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ["0"]}, "has 3 classes, which have other names or none"),
        ({"classes": [0, 1, 2]}, "'meta.classes[0]' is 0 and has to be a text"),
        ({"classes": "012"}, "'meta.classes' is '012' and has to be a list"),
        ({"tempering": -1.0}, "'meta.tempering' is -1.0 and has to be above 0"),
        ({"tempering": "warm"}, "'meta.tempering' is 'warm' and has to be a number"),
        ({"tempering": True}, "'meta.tempering' is True and has to be a number"),
        ({"tempering_floor": 1.0}, "'meta.tempering_floor' is 1.0 and has to be a probability below 1"),
        ({"tempering_floor": [1]}, "'meta.tempering_floor' is a list and has to be a probability below 1"),
    ],
)
def test_meta_that_is_not_about_the_head_is_refused(copied, digits_folder, capsys, changes, said):
    path = head_of(copied, "ridge") / "head.json"
    meta = json.loads(path.read_text())["meta"] | changes
    rewrite(path, meta=meta)
    assert predict(copied, digits_folder, "--head", "ridge", "--quiet") == FAILED
    assert said in capsys.readouterr().err


def test_a_fine_tune_reads_what_a_head_was_trained_on_and_never_builds_the_head(copied, digits_folder, filled_cache):
    for name in ("ridge", TREE):
        for path in head_of(copied, name).glob("head.s*"):
            path.write_bytes(b"anything")
    for head in ("ridge", "random"):
        plan = FinetunePlan(copied, filled_cache, copied.parent / "tuned", head=head)
        assert read_source_run(plan).request.backbone == "efficientnet_lite0"
