"""Features of one kind are never taken for those of another: what differs is named, and the command to run printed."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from featurecache.cli.declare import picked
from featurecache.cli.main import DONE, FAILED, run
from featurecache.cli.options import FeatureOptions
from featurecache.extract.cache.memo import FILE_NAME, Memo
from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.digests import digest_samples
from featurecache.extract.images.read import read_images
from featurecache.extract.job.request import FeatureRequest, recall
from featurecache.runs.command_lines import extract_commands

# For every field another value, and how it is shown.
OTHER_VALUES = {
    "backbone": "efficientnet_lite1",
    "source": "elsewhere",
    "weights_digest": "cd" * 32,
    "layer": "_blocks.4",
    "pooling": "max",
    "feature_dim": 40,
    "decode_version": 99,
    "precision": "bf16",
    "dtype": "float16",
    "decode": "reduced",
    "range": "0:4095",
    "view": "light-v1:0:1",
    "transform.resize": 300,
    "transform.crop": 200,
    "transform.interpolation": "bilinear",
    "transform.antialias": False,
    "transform.mean": (0.5, 0.5, 0.25),
    "transform.std": (0.25, 0.25, 0.125),
    "transform.fit": "squash",
    "transform.fill": (124, 116, 104),
    "network": '{"architecture":"other"}',
}


def with_other(spec: FeatureSpec, field: str) -> FeatureSpec:
    value, (outer, _, inner) = OTHER_VALUES[field], field.partition(".")
    return replace(spec, **{outer: replace(spec.transform, **{inner: value}) if inner else value})


def spec_of(cache: Path, request: FeatureRequest | None = None) -> FeatureSpec:
    with Memo(cache) as memo:
        resolved = recall(request or FeatureRequest(), memo)
    assert resolved is not None
    return resolved.spec


def fill(cache: Path, spec: FeatureSpec, images: Path) -> None:
    """Random rows for all images."""
    with Memo(cache) as memo:
        digests = digest_samples(read_images(images).samples, memo).digests
    features = np.random.default_rng(0).normal(size=(len(digests), spec.feature_dim)).astype(spec.dtype)
    FeatureCache(cache, spec).add(ShardRows(features, digests, [str(i) for i in range(len(digests))]), {"seconds": 1.0})


def classify(images: Path, cache: Path, out: Path, *options: str) -> int:
    command = ["classify", str(images), "--cache", str(cache), "--heads", "ridge", "--out", str(out), "--quiet"]
    return run([*command, *options])


def test_every_field_of_a_spec_is_tried_below():
    flat = [field.name for field in fields(FeatureSpec) if field.name not in ("transform", "about")]
    others = {*OTHER_VALUES, "ranges"}  # those of int8 alone: `test_int8`
    assert others == {*flat, *(f"transform.{field.name}" for field in fields(TransformSpec))}


@pytest.mark.parametrize("field", OTHER_VALUES)
def test_features_that_differ_in_one_field_only_are_refused_by_its_name(field, digits_folder, cache, tmp_path, capsys):
    asked = spec_of(cache)
    other = with_other(asked, field)
    assert other.key != asked.key
    shutil.rmtree(cache / asked.folder_name)
    fill(cache, other, digits_folder)
    assert classify(digits_folder, cache, tmp_path / "run") == FAILED
    there = str(OTHER_VALUES[field])[: 12 if field == "weights_digest" else None]
    said = capsys.readouterr().err
    assert f"another {field} ({there}; asked: " in said
    assert "the two are never mixed" in said
    assert said.endswith(f"Run first:\nfeaturecache extract {digits_folder} --cache {cache}\n")
    assert not (tmp_path / "run").exists()


def test_the_nearest_features_are_named_with_all_that_differs(digits_folder, cache, tmp_path, capsys):
    asked = spec_of(cache)
    shutil.rmtree(cache / asked.folder_name)
    near = replace(asked, pooling="max", dtype="float16")
    for other in (near, replace(near, precision="bf16"), with_other(asked, "backbone")):
        fill(cache, other, digits_folder)
    assert classify(digits_folder, cache, tmp_path / "run") == FAILED
    assert (
        "There are features of efficientnet_lite0 with another pooling (max; asked: avg) "
        "and another dtype (float16; asked: float32), and the two are never mixed. Run first:"
    ) in capsys.readouterr().err


def test_features_of_other_images_and_damaged_caches_are_no_alternative(digits_folder, cache, tmp_path, capsys):
    asked = spec_of(cache)
    shutil.rmtree(cache / asked.folder_name)
    stranger = replace(asked, pooling="max")
    rows = ShardRows(np.ones((1, 1280), dtype=np.float32), np.zeros((1, 32), dtype=np.uint8), ["x"])
    FeatureCache(cache, stranger).add(rows, {})
    fill(cache, replace(asked, pooling="gem"), digits_folder)
    (cache / replace(asked, pooling="gem").folder_name / "spec.json").write_text("nothing")
    assert classify(digits_folder, cache, tmp_path / "run") == FAILED
    assert f"in '{cache}'. Run first:\n" in capsys.readouterr().err


def test_where_only_some_images_are_missing_nothing_else_is_offered(images, cache, tmp_path, capsys):
    fill(cache, replace(spec_of(cache), pooling="max"), images)
    shutil.copytree(images / "0", images / "3")
    (images / "3" / "new.png").write_bytes(_png())
    assert classify(images, cache, tmp_path / "run") == FAILED
    assert f"in '{cache}'. Run first:\n" in capsys.readouterr().err


# Layers, extracted and compared for real


@pytest.fixture(scope="module")
def layered(tmp_path_factory, digits_folder) -> Path:
    """A cache with two layers of the default backbone, and without its default features."""
    root = tmp_path_factory.mktemp("layers") / "cache"
    layers = ["--layer", "stages", "--layer", "_blocks.4"]
    assert run(["extract", str(digits_folder), "--cache", str(root), *layers, "--engine", "torch", "--quiet"]) == DONE
    return root


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ((), "layer (stages or _blocks.4; asked: the default)"),
        (("--layer", "_blocks.3"), "layer (stages or _blocks.4; asked: _blocks.3)"),
        (("--layer", "stages", "--pooling", "max"), "pooling (the default; asked: max)"),
        (("--layer", "stages", "--precision", "bf16"), "precision (fp32; asked: bf16)"),
        (("--layer", "stages", "--dtype", "float16"), "dtype (float32; asked: float16)"),
    ],
)
def test_what_was_never_extracted_is_compared_with_what_was_asked_for_then(
    options, difference, digits_folder, layered, tmp_path, capsys
):
    assert classify(digits_folder, layered, tmp_path / "run", *options) == FAILED
    said = capsys.readouterr().err
    assert f"There are features of efficientnet_lite0 with another {difference}, and the two are never mixed." in said


def test_another_backbone_goes_without_further_details(digits_folder, layered, tmp_path, capsys):
    assert classify(digits_folder, layered, tmp_path / "run", "--backbone", "resnet18", "--pooling", "max") == FAILED
    said = capsys.readouterr().err
    assert "There are features with another backbone (efficientnet_lite0; asked: resnet18), and" in said


def test_without_a_memory_the_specs_themselves_are_compared(digits_folder, layered, tmp_path, capsys):
    cache = Path(shutil.copytree(layered, tmp_path / "cache"))
    (cache / FILE_NAME).unlink()
    assert classify(digits_folder, cache, tmp_path / "run", "--layer", "stages", "--pooling", "max") == FAILED
    assert "with another pooling (avg; asked: max), and" in capsys.readouterr().err
    assert classify(digits_folder, cache, tmp_path / "run") == FAILED
    assert "with another layer (stages or _blocks.4; asked: the default), and" in capsys.readouterr().err


def test_weights_that_are_named_are_those_that_were_the_default(digits_folder, layered, tmp_path):
    options = ("--layer", "stages", "--weights", "IMAGENET1K")
    assert classify(digits_folder, layered, tmp_path / "run", *options) == DONE


def test_the_command_for_several_missing_layers_is_one_and_asks_for_them_again(
    digits_folder, layered, tmp_path, capsys
):
    layers = ("--layer", "_blocks.4,_blocks.3", "--layer", "default")
    assert classify(digits_folder, layered, tmp_path / "run", *layers) == FAILED
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"featurecache extract {digits_folder} --layer _blocks.3 --layer default --cache {layered}"


def test_commands_to_run_give_the_same_requests_again(parsed):
    asked = [
        FeatureRequest("vgg16", layer="features.4", pooling="gem"),
        FeatureRequest("vgg16", pooling="gem"),
        FeatureRequest("vgg16", layer="stages", pooling="gem"),
        FeatureRequest("vgg16"),
        FeatureRequest(dtype="float16", precision="bf16"),
    ]
    commands = extract_commands("my photos", asked, Path("data/cache"))
    assert len(commands) == 3
    found = [picked(FeatureOptions, parsed(shlex.split(command)[1:])).requests() for command in commands]
    assert [request for requests in found for request in requests] == asked


@pytest.fixture(scope="module")
def compared(tmp_path_factory, digits_folder, layered) -> Path:
    out = tmp_path_factory.mktemp("runs") / "layers"
    assert classify(digits_folder, layered, out, "--layer", "stages", "--layer", "_blocks.4") == DONE
    return out


def test_layers_are_compared_as_features_of_their_own(compared, layered):
    import json

    results = json.loads((compared / "results.json").read_text())
    names = ["efficientnet_lite0@stages", "efficientnet_lite0@_blocks.4"]
    rows = {row["name"]: row for row in results["features"]}
    assert list(rows) == names
    assert [row["dim"] for row in rows.values()] == [2064, 40]
    assert {row["backbone"] for row in rows.values()} == {"efficientnet_lite0"}
    assert rows[names[0]]["layer"] == spec_of(layered, FeatureRequest(layer="stages")).layer
    assert rows[names[0]]["layer"].startswith("stages:_blocks.0+_blocks.2+")
    assert sorted(head["features"] for head in results["heads"]) == sorted(names)
    assert {path.name for path in (compared / "heads").iterdir()} == {f"{name}--ridge" for name in names}


def test_a_head_is_asked_for_by_its_layer_and_predicts_from_it(compared, digits_folder, capsys):
    command = ["predict", str(compared), str(digits_folder / "0"), "--quiet"]
    assert run([*command, "--head", "efficientnet_lite0@_blocks.4--ridge"]) == DONE
    assert len(capsys.readouterr().out.splitlines()) == 32
    assert run([*command, "--head", "ridge"]) != DONE
    said = capsys.readouterr().err
    assert "more than one head 'ridge'" in said
    assert "efficientnet_lite0@stages--ridge" in said


def test_a_single_layer_goes_by_the_name_of_its_backbone(digits_folder, layered, tmp_path):
    assert classify(digits_folder, layered, tmp_path / "run", "--layer", "stages") == DONE
    assert [path.name for path in (tmp_path / "run" / "heads").iterdir()] == ["efficientnet_lite0--ridge"]


def test_the_report_of_an_extraction_says_what_each_cache_holds_and_where_the_time_went(
    digits_folder, tmp_path, capsys
):
    import json

    words = ["--cache", str(tmp_path / "cache"), "--size", "64", "--engine", "torch", "--quiet"]
    command = ["extract", str(digits_folder / "0"), *words]
    assert run([*command, "--layer", "_blocks.0", "--layer", "_blocks.1", "--json"]) == DONE
    values = json.loads(capsys.readouterr().out)
    assert [(row["layer"], row["pooling"], row["dim"]) for row in values["caches"]] == [
        ("_blocks.0", "avg", 16),
        ("_blocks.1", "avg", 24),
    ]
    assert set(values["seconds"]) == {"read", "decode", "forward", "write", "total", "digest", "load", "wait"}
    assert run([*command, "--layer", "_blocks.2"]) == DONE
    said = capsys.readouterr().out
    assert "efficientnet_lite0 (IMAGENET1K, _blocks.2): 30 images" in said
    for part in ("digests", "loading", "computing", "network", "write", "read", "decode"):
        assert f"{part} " in said.splitlines()[-1]


def _png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (8, 8), 100).save(buffer, "PNG")
    return buffer.getvalue()
