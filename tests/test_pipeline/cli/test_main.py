"""Every wrong use ends with one sentence, the right exit code and nothing half-written."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from PIL import Image

from featurecache.cli.commands.classify import HEADS_KEPT
from featurecache.cli.commands.extract import FEATURES_KEPT
from featurecache.cli.main import DONE, FAILED, INTERRUPTED, PLACES, REFUSED, USAGE, program, run
from featurecache.extract.engines.fixed_batches import not_run
from featurecache.extract.engines.torch_engine import TorchEngine

QUICK_HEADS = "ridge,centroid"
CACHE = ("info", "verify", "compact", "export", "prune")


def only_sentence(capsys) -> str:
    """What was said on stderr: one message of the command, and no traceback."""
    err = capsys.readouterr().err
    assert err.count("featurecache: ") == 1
    assert "Traceback" not in err
    return err[err.index("featurecache: ") :]


def nothing_left(folder: Path) -> bool:
    return not folder.exists() or not any(folder.rglob("*.h5"))


@pytest.mark.parametrize(
    ("words", "missing"),
    [("export r", "--out"), ("finetune photos", "--from"), ("select photos", "--backbone"), ("predict r", "IMAGES...")],
)
def test_what_is_required_and_missing_is_named(words, missing, capsys):
    assert run(words.split()) == USAGE
    assert f"Missing {'option' if missing[0] == '-' else 'argument'} '{missing}'" in only_sentence(capsys)


def test_no_such_folder_is_a_usage_error(tmp_path, capsys):
    assert run(["extract", str(tmp_path / "nowhere"), "--cache", str(tmp_path / "cache")]) == USAGE
    assert "There is no folder or file" in only_sentence(capsys)
    assert not (tmp_path / "cache").exists()


def test_an_empty_folder_says_what_to_put_into_it(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(["extract", str(tmp_path / "empty"), "--cache", str(tmp_path / "cache")]) == FAILED
    assert "holds no images" in only_sentence(capsys)
    assert not (tmp_path / "cache").exists()


def test_one_class_only_cannot_be_classified(images, cache, tmp_path, capsys):
    shutil.rmtree(images / "1")
    shutil.rmtree(images / "2")
    out = tmp_path / "run"
    assert run(["classify", str(images), "--cache", str(cache), "--out", str(out), "--quiet"]) == FAILED
    assert "class" in only_sentence(capsys)
    assert not out.exists()


def test_a_class_with_a_single_image_is_named(images, cache, tmp_path, capsys):
    for path in sorted((images / "1").iterdir())[1:]:
        path.unlink()
    out = tmp_path / "run"
    assert run(["classify", str(images), "--cache", str(cache), "--out", str(out), "--quiet"]) == FAILED
    assert "'1'" in only_sentence(capsys)
    assert not out.exists()


def test_a_corrupt_image_is_listed_and_the_rest_is_done(images, cache, tmp_path, capsys):
    (images / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (images / "0" / "new.png").write_bytes(_png(200))
    assert run(["extract", str(images), "--cache", str(cache), "--quiet"]) == REFUSED
    out, err = capsys.readouterr()
    assert "90 already there, 1 extracted" in out
    assert "1 image is refused" in err
    assert "0/broken.png" in err
    assert "0/broken.png" in (cache / "errors.csv").read_text()
    run_folder = tmp_path / "run"
    command = ["classify", str(images), "--cache", str(cache), "--heads", "ridge", "--out", str(run_folder), "--quiet"]
    assert run(command) == REFUSED
    assert "0/broken.png" in (run_folder / "errors.csv").read_text()


def test_on_error_fail_stops_at_the_corrupt_image(images, cache, capsys):
    (images / "0" / "broken.png").write_bytes(b"nothing")
    assert run(["extract", str(images), "--cache", str(cache), "--on-error", "fail", "--quiet"]) == FAILED
    assert "'0/broken.png' is refused" in only_sentence(capsys)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\na.png,x\n", "no column 'path'"),
        ("path,label\nmissing.png,x\n", "1 of the 1 files named in"),
        ("path,label\n../outside.png,x\n", "outside the manifest's folder"),
        ("path,label,split\n0/000.png,x,spare\n", "has the split 'spare'"),
    ],
)
def test_a_bad_manifest_is_refused_in_one_sentence(images, tmp_path, capsys, text, sentence):
    (images / "list.csv").write_text(text)
    assert run(["extract", str(images / "list.csv"), "--cache", str(tmp_path / "cache")]) == FAILED
    assert sentence in only_sentence(capsys)
    assert nothing_left(tmp_path / "cache")


def test_an_unknown_backbone_names_its_neighbours(digits_folder, tmp_path, capsys):
    command = ["extract", str(digits_folder), "--cache", str(tmp_path / "cache"), "--backbone", "resnet51", "--quiet"]
    assert run(command) == USAGE
    assert "resnet50" in only_sentence(capsys)
    assert nothing_left(tmp_path / "cache")


def test_an_unknown_layer_among_good_ones_names_its_neighbours(digits_folder, tmp_path, capsys):
    layers = ["--layer", "default", "--layer", "_block.4"]
    assert run(["extract", str(digits_folder), "--cache", str(tmp_path / "cache"), *layers, "--quiet"]) == USAGE
    assert "no layer '_block.4'; nearest: _blocks.4" in only_sentence(capsys)
    assert nothing_left(tmp_path / "cache")


@pytest.mark.parametrize("option", ["--layer", "--backbone"])
def test_an_empty_name_is_a_usage_error_and_not_nothing_to_do(digits_folder, tmp_path, capsys, option):
    assert run(["extract", str(digits_folder), "--cache", str(tmp_path / "cache"), option, ",", "--quiet"]) == USAGE
    assert f"{option} is empty" in only_sentence(capsys)


def test_an_unknown_head_names_its_neighbours(digits_folder, filled_cache, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "logistik", "--out", str(out)]
    assert run(command) == USAGE
    assert "logistic" in only_sentence(capsys)
    assert not out.exists()


def test_weights_of_another_architecture_are_refused(digits_folder, tmp_path, capsys):
    weights = tmp_path / "linear.pth"
    torch.save(torch.nn.Linear(3, 2).state_dict(), weights)
    command = ["extract", str(digits_folder), "--cache", str(tmp_path / "cache"), "--weights", str(weights), "--quiet"]
    assert run(command) == FAILED
    assert "linear.pth" in only_sentence(capsys)
    assert nothing_left(tmp_path / "cache")


def test_weights_that_are_not_here_say_which_file_is_missing(digits_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    command = ["extract", str(digits_folder), "--cache", str(tmp_path / "cache"), "--backbone", "vgg16", "--quiet"]
    assert run(command) == FAILED
    said = only_sentence(capsys)
    assert "vgg16-397923af.pth" in said
    assert str(tmp_path / "hub") in said
    assert "efficientnet_lite0" in said


def test_classify_before_extract_prints_the_command_to_run(digits_folder, tmp_path, capsys):
    cache, out = tmp_path / "cache", tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(cache), "--pooling", "max", "--out", str(out), "--quiet"]
    assert run(command) == FAILED
    assert f"featurecache extract {digits_folder} --pooling max --cache {cache}" in only_sentence(capsys)
    assert not out.exists()
    assert not cache.exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="only an ordinary user can be denied a folder")
def test_an_unwritable_cache_folder_is_one_sentence(digits_folder, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert run(["extract", str(digits_folder), "--cache", str(tmp_path / "locked" / "cache"), "--quiet"]) == FAILED
    assert "cannot be written" in only_sentence(capsys)


def test_a_cache_that_is_a_file_cannot_be_written(digits_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run(["extract", str(digits_folder), "--cache", str(tmp_path / "file" / "cache"), "--quiet"]) == FAILED
    assert "cannot be written" in only_sentence(capsys)


def test_an_out_folder_with_other_things_in_it_is_left_alone(digits_folder, filled_cache, tmp_path, capsys):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    out = str(tmp_path / "precious")
    command = [
        "classify",
        str(digits_folder),
        "--cache",
        str(filled_cache),
        "--heads",
        "ridge",
        "--out",
        out,
        "--quiet",
    ]
    assert run(command) == USAGE
    assert "not a run" in only_sentence(capsys)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_nothing_is_extracted_for_a_run_that_cannot_be_written(digits_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    command = ["run", str(digits_folder), "--cache", str(tmp_path / "cache"), "--quiet"]
    assert run([*command, "--out", str(tmp_path / "file" / "run")]) == FAILED
    assert "cannot be written" in only_sentence(capsys)
    assert not (tmp_path / "cache").exists()


def test_a_run_folder_called_latest_is_a_usage_error(digits_folder, filled_cache, tmp_path, capsys):
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--out", str(tmp_path / "latest")]
    assert run([*command, "--quiet"]) == USAGE
    assert "Choose another name with --out" in only_sentence(capsys)


def test_a_device_that_is_not_there_is_a_usage_error(digits_folder, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    command = ["extract", str(digits_folder), "--cache", str(tmp_path / "cache"), "--device", "cuda", "--quiet"]
    assert run(command) == USAGE
    assert "cuda" in only_sentence(capsys)


def test_a_folder_that_is_no_run_cannot_predict(digits_folder, tmp_path, capsys):
    assert run(["predict", str(tmp_path), str(digits_folder)]) == USAGE
    assert "is not a run" in only_sentence(capsys)


@pytest.mark.parametrize("argv", [["--help"], ["extract", "--help"], ["classify", "--help"], ["predict", "--help"]])
def test_help_is_printed(argv, capsys):
    assert run(argv) == DONE
    assert "Usage: featurecache" in capsys.readouterr().out


def test_a_wrong_flag_is_a_usage_error(capsys):
    assert run(["extract", "folder", "--poling", "red"]) == USAGE
    said = "featurecache: No such option '--poling'. Did you mean '--pooling'? See 'featurecache extract --help'.\n"
    assert capsys.readouterr().err == said


def test_an_option_of_another_command_is_not_taken_for_one_that_is_unlike_it(capsys):
    assert run(["audit", "folder", "--heads", "ridge"]) == USAGE
    assert capsys.readouterr().err == "featurecache: No such option '--heads'. See 'featurecache audit --help'.\n"


def test_a_wrong_command_is_a_usage_error_that_names_its_neighbours(capsys):
    assert run(["extrat"]) == USAGE
    said = "featurecache: There is no command 'extrat'. Did you mean extract or export? See 'featurecache --help'.\n"
    assert capsys.readouterr().err == said


def test_options_are_not_abbreviated(capsys):
    assert run(["extract", "folder", "--back", "resnet18"]) == USAGE
    assert "No such option '--back'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "old", "new"),
    [
        (["select", "photos", "--backbones", "pixels"], "--backbones", "--backbone"),
        (["finetune", "photos", "--from", "run", "--smoothing=0.2"], "--smoothing", "--label-smoothing"),
        (["finetune", "photos", "--from", "run", "--parts", "2"], "--parts", "--accumulate"),
    ],
)
def test_an_option_goes_on_by_its_old_name_with_a_note(words, old, new, parsed, capsys):
    before = parsed(words)
    said = f"featurecache: {old} is called {new} now; the old name goes in the next version.\n"
    assert capsys.readouterr().err == said
    assert before == parsed([word.replace(old, new) for word in words])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "command", [[name] for name in PLACES] + [["cache", name] for name in CACHE] + [["bench", "heads"]]
)
def test_every_command_has_a_help_and_an_example(command, capsys, parsed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("featurecache.toml").write_text('[serve]\nrun = "data/runs/latest"\n')
    assert run([*command, "--help"]) == DONE
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: featurecache {' '.join(command)} ")
    examples = [line.strip() for line in said.partition("Examples:")[2].splitlines() if line.strip()]
    assert examples or command in (["cache"], ["bench"])
    for line in examples:
        words = shlex.split(line.rpartition(" | ")[2])
        parsed(words[words.index("featurecache") + 1 :])  # a variable may be set before it


@pytest.mark.parametrize("words", [[], ["cache"], ["bench"]])
def test_a_listing_shows_the_first_sentence_of_every_command_uncut(words, capsys):
    group = program
    for word in words:
        group = group.get_command(click.Context(program), word)
    assert run([*words, "--help"]) == DONE
    listing = capsys.readouterr().out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    commands = {name: importlib.import_module(place).command for name, place in group.places.items()}
    assert [line.split(maxsplit=1) for line in listing] == [
        [name, command.get_short_help_str(200)] for name, command in commands.items()
    ]


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], ["featurecache.cli.options", "featurecache.extract", "featurecache.classify", "tabulate"]),
        (["--version"], ["featurecache.cli.options", "featurecache.extract", "featurecache.classify", "tabulate"]),
        (["heads"], ["featurecache.extract", "numpy", "sklearn"]),
        (["backbones"], ["featurecache.classify", "numpy", "torch", "torchvision"]),
        (["classify", "--help"], ["h5py", "numpy", "torch"]),
        (["cache", "prune", "--help"], ["h5py", "numpy"]),
    ],
)
def test_what_only_lists_imports_nothing_heavy(words, absent):
    code = "import sys; from featurecache.cli.main import run; code = run(sys.argv[1:]); "
    code += "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert not {*done.stderr.split()} & {*absent}


def test_a_shell_completes_the_names_of_commands():
    names = [item.value for item in program.shell_complete(click.Context(program), "c")]
    assert names == ["classify", "compare", "cache"]


def test_a_shell_completes_the_names_of_devices():
    extract = program.get_command(click.Context(program), "extract")
    (device,) = [each for each in extract.params if each.name == "device"]
    names = [item.value for item in device.shell_complete(click.Context(extract), "c")]
    assert names == ["cpu", "cuda", "cuda:all"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete_words(shell, tmp_path):
    def featurecache(**surroundings: str) -> str:
        command = [sys.executable, "-c", "from featurecache.__main__ import main; raise SystemExit(main())"]
        return subprocess.run(command, env=os.environ | surroundings, capture_output=True, text=True, check=True).stdout

    script = featurecache(_FEATURECACHE_COMPLETE=f"{shell}_source")
    assert "_FEATURECACHE_COMPLETE" in script
    assert f"{shell}_complete" in script
    words = {"COMP_WORDS": "featurecache extract --prec", "COMP_CWORD": "2" if shell != "fish" else "--prec"}
    assert "--precision" in featurecache(_FEATURECACHE_COMPLETE=f"{shell}_complete", **words)


@pytest.mark.parametrize(
    ("command", "seed"),
    [
        (["classify", "photos"], "-1"),
        (["audit", "photos"], "4294967296"),
        (["select", "photos", "--backbone", "pixels"], "99999999999"),
        (["cache", "export", "photos", "out.h5"], "1.5"),
        (["finetune", "photos", "--from", "run"], "-1"),
    ],
)
def test_a_seed_that_no_generator_takes_is_a_usage_error(capsys, command, seed):
    assert run([*command, "--seed", seed]) == USAGE
    assert f"'{seed}' is not a whole number from 0 to 4,294,967,295." in capsys.readouterr().err


def test_the_largest_seed_is_one(digits_folder, filled_cache, tmp_path):
    heads = "mlp,sklearn.ensemble.ExtraTreesClassifier"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", heads, "--seed", "4294967295"]
    few = ["--param", "mlp.hidden=64", "--param", "mlp.dropout=0", "--param", "mlp.learning_rate=0.001"]
    assert run([*command, *few, "--out", str(tmp_path / "run"), "--quiet"]) == DONE


def test_shots_that_name_no_number_are_a_usage_error(capsys):
    assert run(["classify", "photos", "--shots", ","]) == USAGE
    assert "',' names no number: give some, such as 1,2,4." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["report", "run"], "Stopped: no page was written."),
        (["audit", "photos"], "Stopped before the audit was finished."),
        (["compare", "run"], "Stopped."),
        (["extract", "photos"], FEATURES_KEPT),
        (
            ["predict", "run", "photos"],
            "Stopped: nothing was labelled. Features extracted so far are kept: the same command continues from there.",
        ),
    ],
)
def test_ctrl_c_promises_only_what_is_true(monkeypatch, capsys, command, sentence):
    def stop(**_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(program.get_command(None, command[0]), "callback", stop)
    assert run(command) == INTERRUPTED
    assert capsys.readouterr().err == f"\n{sentence}\n"


def test_run_says_what_is_kept_of_the_stage_that_was_stopped(
    monkeypatch, capsys, digits_folder, filled_cache, tmp_path
):
    from featurecache.evaluate import classify

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(classify, "classify", stop)
    words = ["run", str(digits_folder), "--cache", str(filled_cache), "--out", str(tmp_path / "run"), "--quiet"]
    assert run(words) == INTERRUPTED
    assert capsys.readouterr().err == f"\n{HEADS_KEPT}\n"


def _png(grey: int) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("L", (8, 8), grey).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_engine_that_fails_on_the_way_is_a_failed_run_and_no_wrong_use(images, tmp_path, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise not_run("torch on cpu", RuntimeError("shapes do not fit"), "--engine onnxruntime")

    monkeypatch.setattr(TorchEngine, "_run_whole", fail)
    assert run(["extract", str(images), "--cache", str(tmp_path / "c"), "--engine", "torch", "--quiet"]) == FAILED
    assert only_sentence(capsys) == ("featurecache: torch on cpu failed: shapes do not fit; try --engine onnxruntime\n")
