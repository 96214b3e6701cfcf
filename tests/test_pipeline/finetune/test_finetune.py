"""A network is trained on from a run's head, survives kills, and leaves a run whose weights are a backbone like any."""

from __future__ import annotations

import html
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet
import pytest
import torch

from featurecache.cli.main import DONE, FAILED, USAGE, run
from featurecache.extract.cache.store import read_spec
from featurecache.finetune.plan import FinetunePlan
from featurecache.finetune.source_run import read_source_run
from featurecache.report.sections import reproduce

SMALL = ["--size", "64", "--engine", "torch", "--quiet"]
QUICK = [*SMALL, "--unfreeze", "1", "--epochs", "2", "--augment", "none"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory, digits_folder) -> Path:
    """Half of the digits: every test here trains a network on them."""
    root = Path(shutil.copytree(digits_folder, tmp_path_factory.mktemp("half") / "digits"))
    for folder in root.iterdir():
        for path in sorted(folder.iterdir())[15:]:
            path.unlink()
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits_folder) -> Path:
    """A folder with a cache at 64 pixels and the run `base` on it."""
    folder = tmp_path_factory.mktemp("finetune")
    command = ["run", str(digits_folder), "--cache", str(folder / "cache"), "--heads", "logistic,ridge,knn"]
    assert run([*command, "--out", str(folder / "base"), *SMALL]) == DONE
    return folder


def command_of(place: Path, digits_folder: Path, out: str, *more: str) -> list[str]:
    words = ["finetune", str(digits_folder), "--from", str(place / "base"), "--cache", str(place / "cache")]
    return [*words, "--out", str(place / out), *more]


@pytest.fixture(scope="module")
def tuned(place, digits_folder) -> Path:
    command = command_of(place, digits_folder, "tuned", *SMALL, "--unfreeze", "2", "--epochs", "4", "--views", "1")
    assert run(command) == DONE
    return place / "tuned"


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def sentence(capsys) -> str:
    err = capsys.readouterr().err
    assert err.count("featurecache: ") == 1
    assert "Traceback" not in err
    return err[err.index("featurecache: ") + len("featurecache: ") :].strip()


def test_the_run_is_one_like_any_other_and_says_how_it_came_about(tuned):
    results = results_of(tuned)
    (head,) = results["heads"]
    assert (head["name"], head["backbone"], head["saved"]) == (
        "finetuned", "efficientnet_lite0", "heads/efficientnet_lite0--finetuned",
    )  # fmt: skip
    assert set(head["test"]) >= {"accuracy", "accuracy_ci", "log_loss", "ece"}
    told = results["finetune"]
    assert (told["split"], told["views"], told["size"], told["augment"]) == ("_blocks.14", 1, 64, "light")
    assert [epoch["number"] for epoch in told["epochs"]] == [1, 2, 3, 4]
    names = {path.name for path in tuned.iterdir()}
    assert names >= {"weights.safetensors", "results.json", "splits.csv", "predictions.parquet", "report.html"}
    assert not list(tuned.parent.glob(".*"))


def test_predict_repeats_the_run_also_from_another_folder(tuned, digits_folder, tmp_path, place):
    moved, hidden = tmp_path / "moved", tmp_path / "hidden"
    shutil.copytree(tuned, moved)
    tuned.rename(hidden)
    try:
        predict_again(moved, digits_folder, tmp_path, place)
    finally:
        hidden.rename(tuned)


def predict_again(moved, digits_folder, tmp_path, place):
    rows = pyarrow.parquet.read_table(moved / "predictions.parquet").to_pylist()
    images = [str(digits_folder / row["path"]) for row in rows]
    out = tmp_path / "said.json"
    command = ["predict", str(moved), *images, "--out", str(out), "--cache", str(place / "cache"), "--quiet"]
    assert run([*command, "--engine", "torch"]) == DONE
    said = json.loads(out.read_text())["images"]
    assert [row["label"] for row in said] == [row["predicted"] for row in rows]
    for ours, theirs in zip(said, rows, strict=True):
        assert list(ours["probabilities"].values()) == pytest.approx(theirs["probabilities"], rel=1e-5, abs=1e-8)


def test_the_tuned_network_stands_in_one_table_with_the_heads_it_came_from(tuned, place, capsys):
    assert run(["compare", str(place / "base"), str(tuned), "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert {row["head"] for row in found["heads"]} == {"logistic", "ridge", "knn", "finetuned"}
    assert {row["test_set"] for row in found["heads"]} == {1}
    assert len(found["pairs"]) == 6


def test_the_tuned_weights_go_through_extract_and_classify_again(tuned, digits_folder, place, tmp_path, capsys):
    """Their transform comes with them, so no size is asked for; the features are those that the run made already."""
    weights = ["--weights", str(tuned / "weights.safetensors"), "--cache", str(place / "cache"), "--quiet"]
    capsys.readouterr()
    assert run(["extract", str(digits_folder), *weights, "--engine", "torch", "--json"]) == DONE
    (cache,) = json.loads(capsys.readouterr().out)["caches"]
    assert (cache["n_present"], cache["n_extracted"]) == (45, 0)
    assert read_spec(Path(cache["folder"])).transform.crop == 64
    out = tmp_path / "again"
    assert run(["classify", str(digits_folder), *weights, "--heads", "logistic", "--out", str(out)]) == DONE
    results = results_of(out)
    assert results["features"][0]["key"] == results_of(tuned)["features"][0]["key"]
    assert results["heads"][0]["test"]["accuracy"] > 0.8


def test_the_lower_part_is_left_as_it_was(tuned):
    from safetensors.torch import load_file

    from featurecache.extract.backbones.tensor_files import read_tensors
    from featurecache.extract.backbones.weights import fetch, find_weights

    before = read_tensors(fetch(find_weights("efficientnet_lite0")))
    after = load_file(tuned / "weights.safetensors")
    same = {name: bool(tensor.equal(before[name])) for name, tensor in after.items()}
    assert all(same[name] for name in same if name.startswith(("_conv_stem", "_blocks.0.", "_blocks.10.")))
    assert not same["_conv_head.weight"]
    assert all(same[name] for name in same if "running" in name)


def weights_after(place: Path, digits_folder: Path, out: str, *more: str) -> bytes:
    assert run(command_of(place, digits_folder, out, *QUICK, *more)) == DONE
    return (place / out / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def quick(place, digits_folder) -> bytes:
    return weights_after(place, digits_folder, "quick")


def test_the_same_command_gives_the_same_weights_and_another_seed_others(place, digits_folder, quick):
    assert weights_after(place, digits_folder, "again") == quick
    assert weights_after(place, digits_folder, "seeded", "--seed", "1") != quick


def test_whether_maps_are_kept_is_decided_once_for_train_and_val(place, digits_folder, quick, monkeypatch):
    """Room that train has taken in between does not make val another matter."""
    budget = Mock(side_effect=[1e9, 0.0])
    monkeypatch.setattr("featurecache.finetune.map_store._budget", budget)
    assert weights_after(place, digits_folder, "once") == quick
    assert budget.call_count == 1


def test_maps_beyond_the_disk_budget_are_made_anew_with_the_same_result(place, digits_folder, quick, capsys):
    command = command_of(place, digits_folder, "made", *[word for word in QUICK if word != "--quiet"], "--disk", "0")
    assert run(command) == DONE
    assert "they are computed in every epoch" in capsys.readouterr().err
    assert (place / "made" / "weights.safetensors").read_bytes() == quick


# Saves after every step: a kill is to hit that, too.
PROGRAM = """
import sys
from featurecache.cli.main import run
from featurecache.finetune import training
training.SAVE_SECONDS = 0.0
sys.exit(run(sys.argv[1:]))
"""


def started(place: Path, digits_folder: Path, folder: Path) -> subprocess.Popen:
    """A process that tunes into `folder`, with a cache of its own there, in small steps, so that there are many."""
    words = command_of(place, digits_folder, "run", *QUICK, "--batch-size", "4", "--resume")
    own = ["--cache", str(folder / "cache"), "--out", str(folder / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *words, *own], env=environment, stdout=subprocess.DEVNULL)


def code_of(process: subprocess.Popen, seconds: float) -> int:
    """How a process ends that is killed from outside after so many seconds."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@pytest.mark.slow
def test_killed_at_any_instant_and_resumed_it_comes_to_the_same_weights(place, digits_folder, tmp_path):
    """Killed anywhere between start and end: in imports, features, maps, steps, saves, val or the run folder."""
    whole, killed, weights = tmp_path / "whole", tmp_path / "killed", "run/weights.safetensors"
    began = time.perf_counter()
    assert started(place, digits_folder, whole).wait() == DONE
    seconds = time.perf_counter() - began
    random, codes = np.random.default_rng(0), []
    while codes.count(-signal.SIGKILL) < 3:
        codes.append(code_of(started(place, digits_folder, killed), random.uniform(0, seconds)))
        assert codes[-1] in (DONE, -signal.SIGKILL), codes
        if codes[-1] == DONE:  # before its kill came: the next one begins from nothing
            assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
            shutil.rmtree(killed)
    assert started(place, digits_folder, killed).wait() == DONE
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
    assert not list(killed.glob(".finetune-*"))


def test_where_nothing_was_saved_resume_begins_anew_and_says_so(place, digits_folder, quick, capsys):
    command = command_of(place, digits_folder, "anew", *[word for word in QUICK if word != "--quiet"], "--resume")
    assert run(command) == DONE
    said = f"Nothing was saved of a fine-tune with these very settings in '{place}': it starts from the beginning."
    assert said in capsys.readouterr().err.splitlines()
    assert (place / "anew" / "weights.safetensors").read_bytes() == quick


class Killed(BaseException):
    """What ends a command where a kill would: below whatever turns errors into sentences."""


def unguarded(command: list[str]) -> None:
    """Give the command so that nothing catches what it raises."""
    from featurecache.cli.declare import Invocation
    from featurecache.cli.main import invoke, program

    invoke(program, "featurecache", command, Invocation())


@pytest.mark.parametrize(
    "last",
    ["finetune.write_run.report_on", "finetune.checkpoint.Checkpoint.forget", "finetune.finetune.point_latest"],
)
def test_a_kill_behind_the_last_step_leaves_a_run_that_resume_finishes(
    place, digits_folder, tmp_path, capsys, monkeypatch, last
):
    out = tmp_path / "run"
    command = [*command_of(place, digits_folder, "never", *QUICK, "--epochs", "1"), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(f"featurecache.{last}", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            unguarded(command)
    before = (out / "weights.safetensors").stat().st_ino
    capsys.readouterr()
    assert run(command) == USAGE
    assert "holds a tuned network" in sentence(capsys)
    assert run([*command, "--resume"]) == DONE
    assert "finetuned" in capsys.readouterr().out
    assert (out / "weights.safetensors").stat().st_ino == before
    assert (out / "report.html").exists()
    assert not (tmp_path / "latest").exists()
    assert not list(tmp_path.glob(".*"))


def test_resume_without_a_named_folder_takes_up_the_run_that_is_whole_already(
    place, digits_folder, tmp_path, capsys, monkeypatch
):
    """Killed between the last rename and the end, or not at all: there is one run, trained once."""
    monkeypatch.chdir(tmp_path)
    words = command_of(place, digits_folder, "never", *[word for word in QUICK if word != "--quiet"], "--epochs", "1")
    at = words.index("--out")
    command = [*words[:at], *words[at + 2 :]]
    with monkeypatch.context() as patch:
        patch.setattr("featurecache.finetune.finetune.point_latest", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            unguarded(command)
    (whole,) = Path("data/runs").glob("[!.]*")
    (Path("data/runs") / "damaged").mkdir()
    (Path("data/runs") / "damaged" / "results.json").write_text("{")
    for name in (whole.name, "renamed"):
        whole = whole.rename(whole.with_name(name))
        capsys.readouterr()
        assert run([*command, "--resume"]) == DONE
        said = capsys.readouterr().err.splitlines()
        assert f"Trained to the end already: '{whole}'. Without --resume it is trained again." in said
        assert f"run folder: {whole}" in said
        assert Path("data/runs/latest").resolve() == whole.resolve()
    assert {path.name for path in Path("data/runs").iterdir()} == {whole.name, "latest", "damaged"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_same_seed_gives_the_same_losses(place, digits_folder):
    losses = []
    for out in ("cuda1", "cuda2"):
        assert run(command_of(place, digits_folder, out, *QUICK, "--device", "cuda")) == DONE
        losses.append([epoch["train_loss"] for epoch in results_of(place / out)["finetune"]["epochs"]])
        assert (place / out / "weights.safetensors").exists()
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert losses[0][1] < losses[0][0]


def test_a_random_head_starts_from_scratch(place, digits_folder, quick):
    assert weights_after(place, digits_folder, "random", "--head", "random") != quick
    assert results_of(place / "random")["finetune"]["head"] == "random"


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--head", "knn"], USAGE, "The head 'knn' cannot start a network: it is no layer with weights. --head takes"),
        (["--head", "mlp"], USAGE, "The run has no head 'mlp'."),
        (["--backbone", "resnet18"], USAGE, "is a run on efficientnet_lite0, not on resnet18. Run first:"),
        (["--unfreeze", "layer4"], USAGE, "efficientnet_lite0 cannot be split below 'layer4'; --unfreeze takes a"),
        (["--unfreeze", "99"], USAGE, "cannot be split below '99'; --unfreeze takes a number of stages up to"),
        (["--augment", "flip", "--views", "3"], USAGE, "--views is the number of views, and --augment flip"),
        (
            ["--batch-norm", "trained", "--accumulate", "2"],
            USAGE,
            "--batch-norm trained needs the statistics of whole steps",
        ),
        (
            ["--unfreeze", "all", "--disk", "1", "--dtype", "float16"],
            USAGE,
            "--unfreeze all trains from the images on, so there are no maps: leave out --disk, --dtype.",
        ),
        (["--unfreeze", "8", "--memory", "1"], USAGE, "--unfreeze 8 trains from the images on, so there are no maps:"),
        (["--lr", "1e30"], FAILED, "The loss is NaN or infinite at step"),
        (["--size", "1"], FAILED, "The network does not take images of 1 x 1 pixels. Choose another --size"),
    ],
)
def test_wrong_use_is_one_sentence_and_leaves_nothing(place, digits_folder, capsys, more, code, says):
    assert run(command_of(place, digits_folder, "wrong", *QUICK, *more)) == code
    assert says in sentence(capsys)
    assert not (place / "wrong").exists()
    assert not list(place.glob(".finetune-*"))


def test_a_run_that_is_tuned_already_names_the_one_it_came_from(place, tuned, digits_folder, capsys):
    command = ["finetune", str(digits_folder), "--from", str(tuned), "--cache", str(place / "cache"), *QUICK]
    assert run([*command, "--out", str(place / "wrong")]) == USAGE
    assert f"is fine-tuned already. Start from the run that it was tuned from, '{place / 'base'}'" in sentence(capsys)


@pytest.fixture(scope="module")
def staged(place, digits_folder) -> Path:
    """A run on the last layer and on the ends of all stages, by val far better on these, and one on these alone."""
    words = [str(digits_folder), "--cache", str(place / "cache"), "--heads", "logistic", "--size", "64", "--quiet"]
    for name, layers in (("both", ["default", "stages"]), ("stages", ["stages"])):
        more = [word for layer in layers for word in ("--layer", layer)]
        command = ["run", *words, *more, "--engine", "torch", "--out", str(place / "staged" / name)]
        assert run(command) == DONE
    results = results_of(place / "staged" / "both")
    for head in results["heads"]:
        head["val"]["accuracy"] = 1.0 if head["features"].endswith("stages") else 0.5
    (place / "staged" / "both" / "results.json").write_text(json.dumps(results))
    return place / "staged"


@pytest.mark.parametrize("head", [None, "random", "logistic"])
def test_a_head_on_the_ends_of_all_stages_is_left_out(staged, digits_folder, place, head):
    plan = FinetunePlan(staged / "both", place / "cache", place / "never", head=head)
    assert read_source_run(plan).request.layer is None


def test_a_run_on_the_ends_of_all_stages_says_what_to_run_instead(staged, digits_folder, place, capsys):
    words = ["finetune", str(digits_folder), "--from", str(staged / "stages"), "--cache", str(place / "cache")]
    assert run([*words, "--out", str(place / "never"), *QUICK]) == USAGE
    assert sentence(capsys) == (
        f"All heads of '{staged / 'stages'}' take the ends of all stages, and a network ends in one place. "
        "Run classify without --layer stages, and start from that run."
    )


def test_latest_is_the_run_to_start_from_and_then_the_tuned_one_beside_it(
    place, digits_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "data" / "runs"
    shutil.copytree(place / "base", runs / "base")
    (runs / "latest").symlink_to("base")
    command = ["finetune", str(digits_folder), "--from", str(runs / "latest"), "--cache", str(place / "cache"), *QUICK]
    assert run([*command, "--out", str(runs / "tuned")]) == DONE
    told = capsys.readouterr().out
    assert (runs / "latest").resolve() == runs / "tuned"
    assert "val %" in told
    assert {"finetuned", "logistic"} <= set(told.split())


def test_the_run_to_start_from_is_not_the_place_to_write_to(place, digits_folder, capsys):
    assert run(command_of(place, digits_folder, "base", *QUICK)) == USAGE
    assert "is the run to start from. Choose another folder with --out." in sentence(capsys)
    assert (place / "base" / "results.json").exists()


def test_a_tuned_network_is_not_replaced(tuned, place, digits_folder, capsys):
    assert run(command_of(place, digits_folder, "tuned", *QUICK)) == USAGE
    assert "holds a tuned network, and other runs may stand on its weights." in sentence(capsys)
    assert run(command_of(place, digits_folder, "tuned", *QUICK, "--resume")) == USAGE
    assert "holds a tuned network" in sentence(capsys)
    words = ["classify", str(digits_folder), "--cache", str(place / "cache"), "--out", str(tuned), "--size", "64"]
    assert run([*words, "--heads", "ridge"]) == USAGE
    assert (tuned / "weights.safetensors").exists()


def test_other_images_than_those_of_the_run_are_told(place, images, tmp_path, capsys):
    sorted(images.rglob("*.png"))[0].unlink()
    command = ["finetune", str(images), "--from", str(place / "base"), "--cache", str(place / "cache")]
    loud = [word for word in QUICK if word != "--quiet"]
    assert run([*command, "--out", str(tmp_path / "run"), *loud]) == DONE
    assert "The run had other images than these (" in capsys.readouterr().err


def test_the_page_names_the_command_that_tunes_the_same_again(tuned, place, digits_folder, parsed):
    results = results_of(tuned)
    (line,) = reproduce.commands(results["config"], results["finetune"])
    asked, given = (
        parsed(words) for words in (shlex.split(line)[1:], command_of(place, digits_folder, "tuned", "--unfreeze", "2"))
    )
    expected = {"epochs": 4, "views": 1, "size": 64, "augment": "light", "unfreeze": "2", "head": "logistic"}
    expected |= {"backbone": "efficientnet_lite0", "dtype": "float16"}
    assert {name: asked[name] for name in expected} == expected
    assert asked["start"] == given["start"]
    assert asked["images"] == given["images"]
    assert line.removeprefix("featurecache ") in html.unescape((tuned / "report.html").read_text())


def test_the_command_of_a_run_without_maps_names_no_dtype(tuned, parsed):
    results = results_of(tuned)
    (line,) = reproduce.commands(results["config"], results["finetune"] | {"unfreeze": "all", "dtype": None})
    asked = parsed(shlex.split(line)[1:])
    assert (asked["unfreeze"], asked["dtype"]) == ("all", None)


def test_without_val_there_is_nothing_to_judge_epochs_by(place, images, tmp_path, capsys):
    for folder in sorted(images.iterdir()):
        for extra in sorted(folder.iterdir())[2:]:
            extra.unlink()
    words = [str(images), "--cache", str(place / "cache"), *SMALL]
    assert run(["run", *words, "--heads", "logistic", "--folds", "3", "--out", str(tmp_path / "base")]) == DONE
    capsys.readouterr()
    assert run(["finetune", *words, "--from", str(tmp_path / "base"), "--out", str(tmp_path / "run")]) == FAILED
    assert "has no val images to judge epochs by" in sentence(capsys)


def test_a_full_disk_keeps_the_state_there_is(place, digits_folder, quick, capsys, monkeypatch):
    from featurecache.base import files

    states, publish = [], files.publish

    def full(temporary, path):
        if path.name.startswith(".finetune-"):
            states.append(path)
            if len(states) == 2:
                raise OSError(28, "No space left on device")
        publish(temporary, path)

    command = command_of(place, digits_folder, "full", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(files, "publish", full)
        assert run(command) == FAILED
    assert "cannot be written" in sentence(capsys)
    assert run([*command, "--resume"]) == DONE
    assert (place / "full" / "weights.safetensors").read_bytes() == quick


def test_an_image_that_changes_before_the_end_is_named_and_the_training_kept(
    place, images, tmp_path, capsys, monkeypatch
):
    from featurecache.finetune import write_run as outcome

    words = [str(images), "--cache", str(place / "cache"), *SMALL]
    assert run(["run", *words, "--heads", "logistic", "--out", str(tmp_path / "base")]) == DONE
    victim, save = sorted(images.rglob("*.png"))[0], outcome.save_weights
    before = victim.read_bytes()

    def save_and_change(*arguments):
        save(*arguments)
        victim.write_bytes(before + b"more")

    command = ["finetune", *words, "--from", str(tmp_path / "base"), "--out", str(tmp_path / "run"), *QUICK]
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(outcome, "save_weights", save_and_change)
        assert run(command) == FAILED
    assert "changed or went away while the training went on" in sentence(capsys)
    victim.write_bytes(before)
    assert run([*command, "--resume"]) == DONE


def test_a_folder_that_is_no_run_is_no_start(digits_folder, tmp_path, capsys):
    assert run(["finetune", str(digits_folder), "--from", str(tmp_path), "--quiet"]) == USAGE
    assert "is not a run: it has no results.json" in sentence(capsys)


def test_images_of_other_classes_are_refused(place, images, tmp_path, capsys):
    (images / "2").rename(images / "two")
    command = ["finetune", str(images), "--from", str(place / "base"), "--cache", str(place / "cache"), *QUICK]
    assert run([*command, "--out", str(tmp_path / "run")]) == FAILED
    assert "3 classes (0, 1, two, ...) and the run has 3 others (0, 1, 2, ...)" in sentence(capsys)
