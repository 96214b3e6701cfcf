"""A run folder from a stranger: each reader refuses in a sentence that names file and field, and reads no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from featurecache.base.errors import PipelineError
from featurecache.cli.main import DONE, FAILED, USAGE, run
from featurecache.features.saved_with_head import head_meta
from featurecache.runs.record_checks import read_config, read_results, saved_folder

SECRET = "the bytes of a file that is none of its business"
FIRST = ("heads", 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits_folder, filled_cache) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge,centroid"]
    assert run([*command, "--out", str(folder), "--quiet"]) == DONE
    return folder


@pytest.fixture
def hostile(tmp_path, finished) -> Path:
    """A copy of a run to change, in a folder of its own."""
    return Path(shutil.copytree(finished, tmp_path / "stranger" / "run"))


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text(SECRET * 20)
    return path


def change(folder: Path, place: tuple[str | int, ...], value: Any, name: str = "results.json") -> None:
    """Put a value at a place of a JSON file; `...` takes out what is there."""
    path = folder / name
    document = json.loads(path.read_text())
    inner = document
    for step in place[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    path.write_text(json.dumps(document))


def commands(folder: Path, images: Path, cache: Path) -> dict[str, list[str]]:
    """Every command that reads a run folder."""
    return {
        "predict": ["predict", str(folder), str(images / "0" / "000.png"), "--cache", str(cache), "--quiet"],
        "report": ["report", str(folder), "--cache", str(cache), "--out", str(folder.parent / "page.html")],
        "compare": ["compare", str(folder)],
        "finetune": ["finetune", str(images), "--from", str(folder), "--cache", str(cache), "--quiet",
                     "--out", str(folder.parent / "tuned")],
    }  # fmt: skip


def refusal(command: list[str], capsys) -> str:
    """What a command says that fails with one sentence."""
    capsys.readouterr()
    assert run(command) == FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("featurecache: ")
    assert err.count("\n") == 1
    assert SECRET[:8] not in err
    return err


# results.json and config.json, field by field


CHANGES = [
    (("heads",), ..., "'heads' is missing"),
    (("heads",), [], "'heads' is empty"),
    (("heads",), {}, "'heads' is an object and has to be a list"),
    (("heads", 0), 3, "'heads[0]' is 3 and has to be an object"),
    ((*FIRST, "name"), ["a"], "'heads[0].name' is a list and has to be a text"),
    ((*FIRST, "name"), "a\0b", "'heads[0].name' is "),
    ((*FIRST, "backbone"), "../x", "'heads[0].backbone' is '../x' and has to be a name without a slash"),
    ((*FIRST, "val"), ..., "'heads[0].val' is missing"),
    ((*FIRST, "val", "accuracy"), "1", "'heads[0].val.accuracy' is '1' and has to be a number from 0 to 1"),
    ((*FIRST, "val", "accuracy"), -1, "'heads[0].val.accuracy' is -1 and"),
    ((*FIRST, "val", "accuracy"), True, "'heads[0].val.accuracy' is True and"),
    ((*FIRST, "val", "log_loss"), None, "'heads[0].val.log_loss' is None and has to be a number"),
    ((*FIRST, "params"), [], "'heads[0].params' is a list and has to be an object"),
    ((*FIRST, "test", "accuracy_ci"), [0.5], "'heads[0].test.accuracy_ci' is a list and has to be an interval"),
    ((*FIRST, "test", "accuracy_ci"), [0.9, 0.1], "'heads[0].test.accuracy_ci' is a list and has to be an interval"),
    ((*FIRST, "tied_with_best"), 1, "'heads[0].tied_with_best' is 1 and has to be true or false"),
    ((*FIRST, "fit_seconds"), -3, "'heads[0].fit_seconds' is -3 and"),
    ((*FIRST, "grid"), [[]], "'heads[0].grid[0]' is a list and has to be an object"),
    ((*FIRST, "tempering"), {"temperature": 1}, "'heads[0].tempering.ece_before' is missing"),
    (("format",), 2, "'format' is 2 and has to be format 1"),
    (("format",), "1", "'format' is '1' and"),
    (("created",), 5, "'created' is 5 and has to be a text"),
    (("dataset",), [], "'dataset' is a list and has to be an object"),
    (("dataset", "classes"), "abc", "'dataset.classes' is 'abc' and has to be a list"),
    (("dataset", "classes"), [1], "'dataset.classes[0]' is 1 and has to be a text"),
    (("dataset", "n_test"), -1, "'dataset.n_test' is -1 and has to be a whole number of 0 or more"),
    (("dataset", "n_test"), 10**300, "'dataset.n_test' is 1000"),
    (("dataset", "n_train"), 1.5, "'dataset.n_train' is 1.5 and"),
    (("features", 0, "dim"), 0, "'features[0].dim' is 0 and has to be a whole number of 1 or more"),
    (("features", 0, "key"), "../../x", "'features[0].key' is '../../x' and has to be a name without a slash"),
    (("features", 0, "images_per_second"), "fast", "'features[0].images_per_second' is 'fast' and"),
    (("config", "requests"), [], "'config.requests' is empty"),
    (("config", "requests", 0, "dtype"), "object", "'config.requests[0]' is an object and has to be a request"),
    (("config", "requests", 0, "size"), 10**9, "'config.requests[0]' is an object and has to be a request"),
    (("config", "requests", 0, "command"), "x", "'config.requests[0]' is an object and has to be a request"),
    (("config", "seed"), -1, "'config.seed' is -1 and has to be a seed"),
    (("config", "cache"), 7, "'config.cache' is 7 and has to be a text"),
    (("transfer",), [3], "'transfer[0]' is 3 and has to be a text"),
    (("shots",), [{}], "'shots[0].features' is missing"),
    (("finetune",), {"from": 3}, "is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "said"), CHANGES, ids=[f"{p[-1]}-{i}" for i, (p, *_) in enumerate(CHANGES)])
def test_a_field_of_another_kind_is_named_with_its_file(hostile, place, value, said):
    change(hostile, place, value)
    with pytest.raises(PipelineError) as raised:
        read_results(hostile)
    text = str(raised.value)
    assert text.startswith(f"'{hostile / 'results.json'}' is not what 'featurecache classify' writes: ")
    assert said in text
    assert text.endswith(". Classify again, or take a run that is whole.")
    assert "\n" not in text
    assert len(text) < 600


@pytest.mark.parametrize("command", ["predict", "report", "compare", "finetune"])
@pytest.mark.parametrize(
    ("place", "value", "said"),
    [CHANGES[0], CHANGES[3], CHANGES[8], CHANGES[25]],
    ids=["missing", "number", "text", "negative"],
)
def test_every_command_that_reads_a_run_says_so(
    hostile, digits_folder, filled_cache, capsys, command, place, value, said
):
    change(hostile, place, value)
    assert said in refusal(commands(hostile, digits_folder, filled_cache)[command], capsys)
    assert sorted(path.name for path in hostile.parent.iterdir()) == ["run"]


def test_fields_that_nobody_knows_pass(hostile):
    change(hostile, ("more",), [{"deeper": None}])
    change(hostile, (*FIRST, "later"), "field")
    assert len(read_results(hostile)["heads"]) == 2


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"heads": ' + "[" * 900 + "]" * 900 + "}", '{"heads": NaN}',
     '{"heads": Infinity}', '{"heads": 1e999}', '{"heads": ' + "9" * 5000 + "}", "\udcff", "", "[1]", "null"],
    ids=["deep", "deep too", "900", "NaN", "Infinity", "1e999", "digits", "no UTF-8", "empty", "list", "null"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["results.json", "config.json"])
def test_json_that_is_none_of_ours_is_one_sentence(hostile, digits_folder, capsys, text, name):
    (hostile / name).write_text(text, errors="surrogateescape")
    command = ["predict", str(hostile), str(digits_folder / "0" / "000.png"), "--quiet"]
    assert f"'{hostile / name}'" in refusal(command, capsys)


@pytest.mark.parametrize("command", ["report", "compare"])
@pytest.mark.parametrize("text", ["[" * 100_000, "", "a,b\n1,2\n", "path,label,split,digest\n\0\n", "\udcff,\n"])
def test_a_damaged_list_of_images_is_one_sentence(hostile, digits_folder, filled_cache, capsys, command, text):
    (hostile / "splits.csv").write_text(text, errors="surrogateescape")
    capsys.readouterr()
    code = run(commands(hostile, digits_folder, filled_cache)[command])
    assert code in (DONE, FAILED)  # without a single row there is none to stumble over
    assert "Traceback" not in capsys.readouterr().err


def test_an_audit_that_is_too_deep_is_a_note_on_the_page(hostile, digits_folder, filled_cache):
    (hostile / "audit.json").write_text('{"duplicates": ' + "[" * 100_000)
    assert run(commands(hostile, digits_folder, filled_cache)["report"]) == DONE
    assert "nested deeper" in (hostile.parent / "page.html").read_text()


def test_an_audit_of_other_kinds_is_shown_as_far_as_it_can_be(hostile, digits_folder, filled_cache):
    odd = {"path": {"a": 1}, "splits": 3, "label": None, "labels": [1], "x": [[[]]]}
    (hostile / "audit.json").write_text(json.dumps({"duplicates": [odd], "untrue": 1, "why": {}, "n_of_split": 3}))
    assert run(commands(hostile, digits_folder, filled_cache)["report"]) == DONE


# Heads, weights and caches that lie elsewhere


@pytest.mark.parametrize("command", ["predict", "compare", "finetune"])
@pytest.mark.parametrize("saved", ["../other", "heads/../../other", "/", ".", "", "heads/link", "absolute"])
def test_a_head_that_lies_outside_the_run_is_never_opened(
    hostile, finished, digits_folder, filled_cache, capsys, command, saved
):
    own = json.loads((hostile / "results.json").read_text())["heads"]
    outside = Path(shutil.copytree(finished / own[0]["saved"], hostile.parent / "other"))
    (hostile / "heads" / "link").symlink_to(outside)
    for number in range(len(own)):
        change(hostile, ("heads", number, "saved"), str(outside) if saved == "absolute" else saved)
    said = refusal(commands(hostile, digits_folder, filled_cache)[command], capsys)
    assert "leads out of the run folder" in said


def test_a_link_to_itself_as_a_head_is_refused(hostile):
    (hostile / "heads" / "loop").symlink_to("loop")
    with pytest.raises(PipelineError, match="leads out of the run folder"):
        saved_folder(hostile, {"name": "a", "saved": "heads/loop/x"})


@pytest.mark.parametrize("name", ["results.json", "config.json", "predictions.parquet", "splits.csv"])
def test_a_file_that_is_a_link_to_elsewhere_is_not_read(hostile, digits_folder, filled_cache, secret, capsys, name):
    (hostile / name).unlink()
    (hostile / name).symlink_to(secret)
    said = refusal(commands(hostile, digits_folder, filled_cache)["report"], capsys)
    assert "it is a link that leads out of its folder" in said


def test_weights_that_are_a_link_to_elsewhere_are_not_read(hostile, digits_folder, filled_cache, secret, capsys):
    (hostile / "weights.safetensors").symlink_to(secret)
    said = refusal(commands(hostile, digits_folder, filled_cache)["predict"], capsys)
    assert "it is a link that leads out of its folder" in said


@pytest.mark.parametrize("name", ["results.json", "config.json", "splits.csv", "predictions.parquet"])
def test_a_pipe_is_not_waited_for(hostile, name):
    """In a process of its own, which would wait for ever."""
    (hostile / name).unlink()
    os.mkfifo(hostile / name)
    command = [sys.executable, "-m", "featurecache", "report", str(hostile)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == FAILED
    assert "it is not an ordinary file" in done.stderr


def test_nothing_is_made_where_a_run_says_that_its_cache_is(hostile, digits_folder, tmp_path, monkeypatch, capsys):
    elsewhere = tmp_path / "home" / "of somebody"
    change(hostile, ("cache",), str(elsewhere), "config.json")
    monkeypatch.chdir(tmp_path)
    assert run(["predict", str(hostile), str(digits_folder / "0" / "000.png")]) == DONE
    assert f"The cache of the run, '{elsewhere}', is not here" in capsys.readouterr().err
    assert not elsewhere.exists()
    assert not elsewhere.parent.exists()
    assert list((tmp_path / "data" / "cache").glob("*/features.h5"))


# A run that is said to be on its way into its folder


def committed(folder: Path, note: Any) -> Path:
    """A work folder in a run folder without results.json, as of a process that was killed: readers complete it."""
    (folder / "results.json").unlink()
    work = folder / ".run-0123456789abcdef"
    (work / "fresh").mkdir(parents=True)
    (work / "into.json").write_text(note if isinstance(note, str) else json.dumps(note))
    return work


@pytest.mark.parametrize(
    "name", ["../../../secret.txt", "{secret}", "heads/../../../../secret.txt", "notes.txt", "heads/a/../../../x"]
)
def test_no_file_that_is_no_runs_is_moved_by_a_note(hostile, digits_folder, filled_cache, secret, capsys, name):
    note = {"into": ".", "files": ["results.json", name.format(secret=secret)], "replaces": True}
    work = committed(hostile, note)
    (work / "fresh" / "results.json").write_text("{}")
    capsys.readouterr()
    assert run(commands(hostile, digits_folder, filled_cache)["predict"]) != DONE
    assert SECRET[:8] not in "".join(capsys.readouterr())
    assert secret.read_text() == SECRET * 20
    assert (work / "fresh" / "results.json").exists()


@pytest.mark.parametrize("link", ["fresh", "fresh/heads", "fresh/config.json"])
def test_nothing_behind_a_link_is_moved_by_a_note(hostile, tmp_path, digits_folder, filled_cache, capsys, link):
    mine = tmp_path / "mine"
    (mine / "a--b").mkdir(parents=True)
    for name in ("results.json", "config.json", "a--b/head.json"):
        (mine / name).write_text("mine")
    note = {"into": ".", "files": ["results.json", "config.json", "heads/a--b/head.json"], "replaces": True}
    work = committed(hostile, note)
    (work / "fresh" / "results.json").write_text("{}")
    if link == "fresh":
        shutil.rmtree(work / "fresh")
    (work / link).symlink_to(mine / "config.json" if link.endswith("json") else mine)
    assert run(commands(hostile, digits_folder, filled_cache)["predict"]) != DONE
    assert all((mine / name).read_text() == "mine" for name in ("results.json", "config.json", "a--b/head.json"))


@pytest.mark.parametrize("note", ["[" * 100_000, "[]", "null", '{"into": 3}', '{"into": "..", "files": []}'])
def test_a_note_that_is_none_is_passed_over(hostile, digits_folder, filled_cache, capsys, note):
    committed(hostile, note)
    assert run(commands(hostile, digits_folder, filled_cache)["predict"]) == USAGE
    assert "it has no results.json" in capsys.readouterr().err


# What a head says of itself


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("request", {"backbone": "../x", "dtype": "int8"}, "'meta.request' is an object and has to be a request"),
        ("request", None, "'meta.request' is None"),
        ("spec", [], "'meta.spec' is a list and has to be an object"),
        ("spec", {"backbone": "../../x"}, "'meta.spec' is no feature spec"),
        ("classes", "abc", "'meta.classes' is 'abc' and has to be a list"),
        ("classes", [None], "'meta.classes[0]' is None and has to be a text"),
        ("tempering", -1, "'meta.tempering' is -1 and has to be above 0"),
        ("tempering", "1", "'meta.tempering' is '1' and"),
    ],
)
def test_a_head_with_an_impossible_meta_is_named(hostile, digits_folder, filled_cache, capsys, field, value, said):
    for path in hostile.glob("heads/*/head.json"):
        change(path.parent, ("meta", field), value, "head.json")
    refused = refusal(commands(hostile, digits_folder, filled_cache)["predict"], capsys)
    assert said in refused
    assert "head.json" in refused


@pytest.mark.parametrize("meta", [None, [], "text", {}])
def test_a_head_without_a_meta_is_named(tmp_path, meta):
    with pytest.raises(PipelineError, match=r"head\.json"):
        head_meta(tmp_path, meta)


# predictions.parquet


def other_type(table: pyarrow.Table, name: str, values: pyarrow.Array) -> pyarrow.Table:
    return table.set_column(table.column_names.index(name), name, values)


TABLES: dict[str, Callable[[pyarrow.Table], pyarrow.Table]] = {
    "numbers as names": lambda t: other_type(t, "head", pyarrow.array(range(len(t)))),
    "no probabilities": lambda t: t.drop_columns("probabilities"),
    "text as probabilities": lambda t: other_type(t, "probabilities", pyarrow.array([["a"]] * len(t))),
    "digests of no length": lambda t: other_type(t, "digest", pyarrow.array([""] * len(t))),
    "digests with a path": lambda t: other_type(t, "digest", pyarrow.array(["../" * 21 + "x"] * len(t))),
    "nothing as a label": lambda t: other_type(t, "label", pyarrow.array([None] * len(t), pyarrow.string())),
    "no rows": lambda t: t.slice(0, 0),
}


@pytest.mark.parametrize("command", ["report", "compare"])
@pytest.mark.parametrize("kind", TABLES)
def test_predictions_of_another_kind_are_one_sentence(hostile, digits_folder, filled_cache, capsys, command, kind):
    path = hostile / "predictions.parquet"
    pyarrow.parquet.write_table(TABLES[kind](pyarrow.parquet.read_table(path)), path)
    refusal(commands(hostile, digits_folder, filled_cache)[command], capsys)


@pytest.mark.parametrize("command", ["report", "compare"])
def test_predictions_of_more_rows_than_fit_are_not_unpacked(hostile, digits_folder, filled_cache, capsys, command):
    """Two million equal rows in some kilobytes."""
    path = hostile / "predictions.parquet"
    row = pyarrow.parquet.read_table(path).slice(0, 1)
    block = pyarrow.concat_tables([row] * 100_000).combine_chunks()
    with pyarrow.parquet.ParquetWriter(path, row.schema, compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(block)
    assert path.stat().st_size < 2_000_000
    said = refusal(commands(hostile, digits_folder, filled_cache)[command], capsys)
    assert "2,000,000 rows" in said


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\xff" * 200 + b"PAR1", SECRET.encode() * 9])
@pytest.mark.parametrize("command", ["report", "compare"])
def test_predictions_that_are_no_parquet_are_one_sentence(hostile, digits_folder, filled_cache, capsys, command, data):
    (hostile / "predictions.parquet").write_bytes(data)
    refusal(commands(hostile, digits_folder, filled_cache)[command], capsys)


def test_the_run_itself_is_read_by_all(finished, digits_folder, filled_cache, tmp_path):
    copied = Path(shutil.copytree(finished, tmp_path / "run"))
    read_config(copied)
    for name in ("predict", "report", "compare"):
        assert run(commands(copied, digits_folder, filled_cache)[name]) == DONE
