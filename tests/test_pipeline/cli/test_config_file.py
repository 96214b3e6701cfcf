"""--config FILE: options from a TOML file, and the copy of them in a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from featurecache.base.exits import DONE, USAGE
from featurecache.cli import declare
from featurecache.cli.config_file import COMMANDS
from featurecache.cli.main import program, run


@pytest.fixture
def read(tmp_path, parsed):
    """The values of options of a command line by a file with this text."""

    def values(text: str, *words: str, command: str = "classify") -> dict[str, object]:
        (tmp_path / "fc.toml").write_text(text)
        return parsed([command, *words, "--config", str(tmp_path / "fc.toml")])

    return values


@pytest.mark.parametrize(
    ("command", "text", "words"),
    [
        ("classify", "calibrate = true", ["--calibrate"]),
        ("classify", "calibrate = false", []),
        ("classify", 'backbone = ["resnet50", "vgg16"]', ["--backbone", "resnet50", "--backbone", "vgg16"]),
        ("classify", 'backbone = "resnet50"', ["--backbone", "resnet50"]),
        ("classify", 'heads = ["knn", "mlp"]', ["--heads", "knn", "--heads", "mlp"]),
        ("classify", 'metric = "macro_f1"', ["--metric", "macro_f1"]),
        ("classify", "folds = 5\nseed = 7", ["--folds", "5", "--seed", "7"]),
        ("classify", "memory = 2", ["--memory", "2"]),
        ("classify", "memory = 0.5", ["--memory", "0.5"]),
        ("classify", "shots = [4, 1]", ["--shots", "4,1"]),
        ("classify", 'shots = "1,2"', ["--shots", "1,2"]),
        ("classify", "shots = 8", ["--shots", "8"]),
        ("classify", 'out = "data/runs/a"\ncache = "c"', ["--out", "data/runs/a", "--cache", "c"]),
        ("classify", "min-per-class = 3", ["--min-per-class", "3"]),
        ("classify", "min_per_class = 3", ["--min-per-class", "3"]),
        ("classify", 'label_column = "kind"\nas = "vectors"', ["--label-column", "kind", "--as", "vectors"]),
        ("classify", 'param = ["knn.k=1,3"]', ["--param", "knn.k=1,3"]),
        ("classify", "param.knn.k = [1, 3]", ["--param", "knn.k=1,3"]),
        ("classify", 'param.knn.metric = "cosine"', ["--param", "knn.metric=cosine"]),
        ("classify", "param.sklearn.svm.SVC.C = [0.1, 1e3]", ["--param", "sklearn.svm.SVC.C=0.1,1000.0"]),
        ("extract", 'device = "cuda:1"\nbatch_size = 8', ["--device", "cuda:1", "--batch-size", "8"]),
        ("finetune", 'from = "r"\nlr = 0.01\nunfreeze = 3', ["--from", "r", "--lr", "0.01", "--unfreeze", "3"]),
        ("audit", "max-leaked = 0", ["--max-leaked", "0"]),
        ("export", 'run = "photos"\nout = "m.onnx"\nfixed = true', ["--out", "m.onnx", "--fixed"]),
        ("select", 'backbone = ["a"]\nsample = 10', ["--backbone", "a", "--sample", "10"]),
        ("serve", 'run = "photos"\nallow_host = "lan"\ntimeout = 5', ["--allow-host", "lan", "--timeout", "5"]),
    ],
)
def test_a_value_of_a_file_is_that_of_the_option(read, parsed, command, text, words):
    images = "" if command in ("export", "serve") else 'images = "photos"'
    table = f"[{command}]\n{images}\n{text}"
    assert read(table, command=command) == parsed([command, "photos", *words])


def test_grids_of_tables_are_those_of_the_words(read):
    from featurecache.classify.selection.settings import parse_settings

    found = read('[classify]\nimages = "x"\nparam.mlp.hidden = [[512, 256], 64]\nparam.knn.metric = ["cosine"]')
    assert parse_settings(found["param"]) == {"mlp": {"hidden": [(512, 256), 64]}, "knn": {"metric": ["cosine"]}}


def test_words_come_before_the_table_of_the_command_and_that_before_the_common_one(read):
    text = '[common]\nseed = 1\nfolds = 3\nbackbone = ["a", "b"]\nimages = "photos"\n'
    text += '[classify]\nfolds = 4\nmetric = "macro_f1"'
    found = read(text, "other", "--metric", "log_loss", "--backbone", "c")
    assert [found[name] for name in ("images", "seed", "folds", "metric", "backbone")] == [
        "other", 1, 4, "log_loss", ("c",),
    ]  # fmt: skip
    assert read(text, command="audit")["images"] == "photos"


def test_run_and_images_of_predict_may_come_from_the_file(read):
    found = read('[predict]\nrun = "digits"\nimages = ["a", "b"]', command="predict")
    assert (found["run"], found["images"]) == (Path("digits"), ("a", "b"))


def test_what_the_common_table_has_for_other_commands_is_left_out(read):
    found = read('[common]\nimages = "photos"\nepochs = 3\nmax_leaked = 0.5', command="extract")
    assert "epochs" not in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[classify]\nbakbone = 'a'", "[classify]: there is no option 'bakbone'. Did you mean backbone?"),
        ("[common]\nbakbone = 'a'", "[common]: there is no option 'bakbone'. Did you mean backbone?"),
        ("[classify]\nengine = 'torch'", "there is no option 'engine'. It is one of [extract], [run], [predict],"),
        ("[finetune]\nepoch = 3", "[finetune]: there is no option 'epoch'. Did you mean epochs?"),
        ("[clasify]\nseed = 3", "[clasify] is no command that takes options from a file. Did you mean [classify]?"),
        ("[cache]\nseed = 3", "[cache] is no command that takes options from a file."),
        ("seed = 3", "'seed' is in no table. Put it below [common]"),
        ("[classify]\nseed = '3'", '[classify], seed: "3" is not a whole number.'),
        ("[classify]\nseed = true", "[classify], seed: true is not a whole number."),
        ("[classify]\nseed = 1.0", "[classify], seed: 1.0 is not a whole number."),
        ("[classify]\nseed = -1", "[classify], seed: '-1' is not a whole number from 0 to 4,294,967,295."),
        ("[finetune]\nlr = 'a'", '[finetune], lr: "a" is not a number.'),
        ("[finetune]\nlr = nan", "[finetune], lr: NaN is not a number."),
        ("[classify]\nmemory = inf", "[classify], memory: Infinity is not a number."),
        ("[finetune]\nlr = 1" + "0" * 400, "[finetune], lr: 1000000000"),
        ("[classify]\nheads = 0x" + "f" * 5000, "[classify], heads: Exceeds the limit"),
        ("[classify]\ncalibrate = 1", "[classify], calibrate: 1 is neither true nor false."),
        ("[classify]\ncalibrate = 'yes'", '[classify], calibrate: "yes" is neither true nor false.'),
        ("[classify]\nmetric = 'f1'", "[classify], metric: 'f1' is not one of"),
        ("[classify]\nmetric = ['a']", '[classify], metric: ["a"] is a list, and the option takes one value.'),
        ("[classify]\nout = 3", "[classify], out: 3 is not a text in quotes."),
        ("[classify]\nout = 2020-01-01", '[classify], out: "2020-01-01" is not a text in quotes.'),
        ("[classify.out]\na = 1", '[classify], out: {"a": 1} is not a text in quotes.'),
        ("[classify]\nbackbone = [['a']]", '[classify], backbone: ["a"] is not a text in quotes.'),
        ("[classify]\nimages = ''\nconfig = 'a'", "[classify]: there is no option 'config'."),
        ("[classify]\nmin-per-class = 1\nmin_per_class = 2", "min-per-class is given twice"),
        ("[classify]\nparam.C = 1", "[classify], param: 'C' is not HEAD.NAME"),
        ("[extract]\ndevice = 'gpu'", "[extract], device: "),
        ("[classify", "is no TOML file: Expected"),
        ("[classify]\nseed =\n", "is no TOML file: Invalid value (at line 2, column 7)."),
        ("[classify]\nseed = 1\nseed = 2", "is no TOML file: Cannot overwrite a value (at end of document)."),
        ("[classify]\nseed = " + "9" * 5000, "is no TOML file: "),
        ("a = " + "[" * 20_000, "is no file for --config: it is nested too deeply."),
        ("[" + ".".join("a" * 1000) + "]", "is no file for --config: it is nested deeper than 12 levels."),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_said_in_one_sentence_with_its_table(text, said, tmp_path, capsys):
    (tmp_path / "fc.toml").write_text(text)
    assert run(["classify", "photos", "--config", str(tmp_path / "fc.toml")]) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'{tmp_path / 'fc.toml'}'" in line
    assert said in line


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "There is no file"),
        ("folder", "it is not an ordinary file"),
        (b"[classify]\nimages = '\xff'", "it is not in UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "it is not in UTF-8"),
        (b"# " + b"x" * (1 << 20), "it is larger than 1 MiB"),
        (b"{}", "is no TOML file"),
    ],
)
def test_what_is_no_file_of_options_is_one_sentence(data, said, tmp_path, capsys):
    path = tmp_path / "fc.toml"
    if data == "folder":
        path.mkdir()
    elif data is not None:
        path.write_bytes(data)
    assert run(["classify", "photos", "--config", str(path)]) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_file_with_the_mark_that_windows_puts_first_is_read(read, tmp_path, parsed):
    (tmp_path / "fc.toml").write_bytes(b"\xef\xbb\xbf[classify]\r\nimages = 'photos'\r\nseed = 3\r\n")
    assert parsed(["classify", "--config", str(tmp_path / "fc.toml")])["seed"] == 3


def test_the_example_of_the_readme_is_read(read):
    readme = Path(declare.__file__).resolve().parent / "README.md"
    (example,) = re.findall(r"```toml\n(.*?)```", readme.read_text(), re.S)
    found = read(example)
    assert (found["images"], found["heads"]) == ("photos/", ("logistic", "knn"))
    assert found["param"] == ("logistic.C=0.1,1,10",)
    assert read(example, command="finetune")["epochs"] == 12
    assert read(example, command="serve")["port"] == 9000


def test_no_file_is_read_unless_it_is_named(tmp_path, monkeypatch, parsed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "featurecache.toml").write_text("[classify]\nseed = 3")
    assert parsed(["classify", "photos"])["seed"] == 0


def test_an_empty_list_is_refused(read):
    with pytest.raises(click.UsageError, match=r"heads: the list is empty\. Leave the key out for the default"):
        read("[classify]\nheads = []", "photos")


def test_two_files_are_refused(tmp_path, capsys):
    (tmp_path / "fc.toml").write_text("[classify]\nseed = 3")
    assert run(["classify", "photos", *["--config", str(tmp_path / "fc.toml")] * 2]) == USAGE
    assert "--config is given twice" in capsys.readouterr().err


def test_a_command_without_images_anywhere_says_what_is_missing(tmp_path, capsys):
    (tmp_path / "fc.toml").write_text("[classify]\nseed = 3")
    assert run(["classify", "--config", str(tmp_path / "fc.toml")]) == USAGE
    assert "Missing argument 'IMAGES'" in capsys.readouterr().err


def test_every_command_that_takes_a_file_shows_it_in_its_help(capsys):
    for name in set(COMMANDS) & set(program.list_commands(click.Context(program))):
        assert run([name, "--help"]) == DONE
        assert "--config FILE" in capsys.readouterr().out


def test_the_shell_completes_option_names_with_a_file_that_is_not_there():
    from click.shell_completion import ShellComplete

    found = ShellComplete(program, {}, "featurecache", "_X").get_completions(
        ["classify", "--config", "nowhere.toml"], "--calib"
    )
    assert [item.value for item in found] == ["--calibrate"]


def test_the_library_that_reads_toml_is_loaded_only_when_it_is_needed():
    program = "import sys, featurecache.cli.commands.classify; print('tomllib' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


@pytest.fixture
def photos(digits_folder, tmp_path, monkeypatch) -> Path:
    """A working folder with `photos`, and a file for `run` on them."""
    monkeypatch.chdir(tmp_path)
    os.symlink(digits_folder, tmp_path / "photos")
    (tmp_path / "fc.toml").write_text(
        '[common]\nimages = "photos"\nbackbone = "pixels"\nsize = 4\nquiet = true\n'
        '[run]\nheads = ["ridge", "centroid"]\nparam.ridge.alpha = [1, 10]\nout = "first"\nmemory = 3\nshots = [2]\n'
        "repeats = 2\n"
    )
    return tmp_path


def test_the_copy_in_a_run_repeats_it(photos, capsys):
    assert run(["run", "--config", "fc.toml", "--seed", "3"]) == DONE
    copied = tomllib.loads((photos / "first" / "config.toml").read_text())["run"]
    assert copied["param"] == ["ridge.alpha=1,10"]
    assert (copied["seed"], copied["memory"], copied["shots"], copied["images"]) == (3, 3.0, [2], "photos")
    assert not {"out", "quiet", "json", "dry-run"} & copied.keys()
    assert run(["run", "--config", "first/config.toml", "--out", "again", "--quiet"]) == DONE
    first, again = (json.loads((photos / name / "results.json").read_text()) for name in ("first", "again"))
    assert first["config"] == again["config"]
    assert [head["test"] for head in first["heads"]] == [head["test"] for head in again["heads"]]
    assert (photos / "first" / "config.toml").read_text() == (photos / "again" / "config.toml").read_text()
    assert run(["run", "--config", "first/config.toml", "--out", "first", "--quiet"]) == DONE  # it is a run's file


def test_odd_texts_come_back_as_they_were(parsed, tmp_path, monkeypatch):
    from featurecache.cli.config_file import resolved_options

    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "latest").symlink_to("real")
    odd = 'a "b" \\ \t\x7f ü\n'
    context = program.get_command(click.Context(program), "finetune").make_context(
        "finetune", [odd, "--from", "latest", "--lr", "1e-05", "--memory", "0.1"]
    )
    (tmp_path / "fc.toml").write_text(resolved_options(context))
    found = parsed(["finetune", "--config", "fc.toml"])
    assert (found["images"], found["lr"], found["memory"]) == (odd, 1e-05, 0.1e9)
    assert found["start"] == Path("real")
    assert {**context.params, "start": Path("real")} == found
