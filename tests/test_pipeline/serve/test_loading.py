"""A run as a service: the answers of `predict` to the last bit, and its training images."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import form, respond

from featurecache.cli.main import DONE, USAGE, run
from featurecache.predictor import Predictor
from featurecache.serve.limits import Limits
from featurecache.serve.loading import Service, prepare_few
from featurecache.serve.metrics import Metrics

HEADS = ("logistic", "knn", "mlp")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits_folder) -> Path:
    root = tmp_path_factory.mktemp("served")
    words = ["run", str(digits_folder), "--backbone", "pixels", "--size", "12", "--heads", ",".join(HEADS), "--quiet"]
    words += ["--param", "mlp.hidden=16"]
    assert run([*words, "--cache", str(root / "cache"), "--out", str(root / "run")]) == DONE
    return root / "run"


def application(trained, **how):
    """The application of a run with its training images, which come in a thread otherwise."""
    service = Service(trained, **how)
    app = service.application(Metrics())
    predictor = Predictor.load(trained, head=service.head)
    app.neighbours, why = service.neighbours(predictor)
    app.batcher.start()
    return app, why


def post(app, path, body, kind="image/png"):
    return asyncio.run(respond(app, "POST", path, body, [(b"content-type", kind.encode())]))


@pytest.mark.parametrize("head", HEADS)
def test_answers_are_those_of_predict_to_the_last_bit(trained, digits_folder, head, capsys):
    assert run(["predict", str(trained), str(digits_folder), "--head", head, "--json", "--quiet"]) == DONE
    expected = {each["path"]: each for each in json.loads(capsys.readouterr().out)["images"]}
    app, _ = application(trained, head=head, has_nearest=False)
    paths = sorted(digits_folder.rglob("*.png"))[:24]
    alone = [post(app, "/predict", path.read_bytes()).json["images"][0] for path in paths[:5]]
    together = post(app, "/predict", *form(*[(path.name, path.read_bytes()) for path in paths])).json["images"]
    app.batcher.stop()
    by_name = {Path(path).relative_to(digits_folder) if Path(path).is_absolute() else Path(path): each
               for path, each in expected.items()}  # fmt: skip
    for path, found in [*zip(paths, alone, strict=False), *zip(paths, together, strict=True)]:
        wanted = by_name[path.relative_to(digits_folder)]
        assert (found["label"], found["probability"]) == (wanted["label"], wanted["probability"])
        assert found["probabilities"] == wanted["probabilities"]


def test_an_exported_file_is_served_with_its_own_answers(trained, digits_folder, tmp_path, capsys):
    file = tmp_path / "digits.onnx"
    assert run(["export", str(trained), "--head", "logistic", "--out", str(file), "--quiet"]) == DONE
    paths = sorted(digits_folder.rglob("*.png"))[:6]
    capsys.readouterr()
    assert run(["predict", str(file), *map(str, paths), "--json", "--quiet"]) == DONE
    expected = json.loads(capsys.readouterr().out)["images"]
    app = Service(file).application(Metrics())
    app.batcher.start()
    together = post(app, "/predict?nearest=3", *form(*[(path.name, path.read_bytes()) for path in paths]))
    alone = post(app, "/predict", paths[0].read_bytes())
    app.batcher.stop()
    wanted = [(each["label"], each["probability"], each["probabilities"], []) for each in expected]
    names = ("label", "probability", "probabilities", "nearest")
    assert [tuple(each[name] for name in names) for each in together.json["images"]] == wanted
    assert tuple(alone.json["images"][0][name] for name in names) == wanted[0]


def test_what_lone_images_cost_is_said_where_it_is_that_of_a_batch(caplog):
    class Slow:
        def prepare_few(self):
            return ["pixels computes a lone image as a batch of 4: the graph for one image gives other bits."]

    prepare_few(Slow())
    assert caplog.messages == Slow().prepare_few()


def test_training_images_are_found_by_their_features_and_shown_by_their_number(trained, digits_folder):
    app, why = application(trained)
    assert why == ""
    train = app.neighbours._images[7]
    found = post(app, "/predict?nearest=3", (digits_folder / train.path).read_bytes()).json["images"][0]["nearest"]
    assert (found[0]["label"], found[0]["distance"]) == (train.label, 0.0)
    assert [each["distance"] for each in found] == sorted(each["distance"] for each in found)
    shown = asyncio.run(respond(app, "GET", f"/training/{found[0]['id']}/thumbnail"))
    assert (shown.status, shown.headers["content-type"]) == (200, "image/jpeg")
    assert max(Image.open(io.BytesIO(shown.body)).size) <= 96
    assert asyncio.run(respond(app, "GET", "/training/999999/thumbnail")).status == 404
    app.batcher.stop()


def test_a_training_image_that_has_changed_is_not_shown(trained, digits_folder, tmp_path):
    app, _ = application(trained)
    number = 3
    other = tmp_path / "other.png"
    Image.new("L", (8, 8)).save(other)
    app.neighbours._pictures[app.neighbours._images[number].path] = str(other)
    assert asyncio.run(respond(app, "GET", f"/training/{number}/thumbnail")).status == 404
    app.batcher.stop()


def test_without_its_cache_a_run_is_served_without_training_images(trained, tmp_path):
    app, why = application(trained, cache_root=tmp_path / "empty")
    service = Service(trained, cache_root=tmp_path / "empty")
    found, why = service.neighbours(Predictor.load(trained, cache_root=tmp_path / "empty"))
    assert found is None
    assert why == "There are no nearest training images: their features are not in the cache of the run."
    app.batcher.stop()


def test_images_that_are_damaged_or_too_large_are_refused_with_the_reason(trained):
    app, _ = application(trained, limits=Limits(pixels=1000), has_nearest=False)
    large = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(large, "PNG")
    service = Service(trained, has_nearest=False)
    small = replace(service, settings=replace(service.settings, max_pixels=1000)).application(Metrics())
    small.batcher.start()
    found = post(small, "/predict", large.getvalue())
    assert found.status == 422
    assert "40 x 40 pixels are more than the limit of 1,000" in found.json["error"]
    for garbage in (b"hello", large.getvalue()[:800], b"\xff\xd8\xff\xe0" + b"\0" * 100):
        assert post(app, "/predict", garbage).status == 422
    app.batcher.stop()
    small.batcher.stop()


def test_the_command_refuses_what_cannot_be_served(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FEATURECACHE_TOKEN", raising=False)
    cases = {
        ("--host", "0.0.0.0"): "requests need a token",
        ("--token", "secret"): "at least 16 ASCII characters",
        ("--max-image-mb", "100"): "--max-request-mb",
        ("--host", "203.0.113.7", "--token", "x" * 16): "cannot be listened on",
    }
    for words, message in cases.items():
        assert run(["serve", str(trained), "--port", "0", *words]) == USAGE
        assert message in capsys.readouterr().err
    assert run(["serve", str(tmp_path / "none"), "--port", "0"]) == USAGE
    assert "There is no folder" in capsys.readouterr().err
