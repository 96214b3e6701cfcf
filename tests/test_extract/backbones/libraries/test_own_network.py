"""Networks of the user: called only where they are named, keyed by tensors and source text, and run as they are."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from featurecache import FeatureRequest, own_network
from featurecache.base.errors import BackboneError, UnknownBackbone, UnknownLayer
from featurecache.cli.main import run
from featurecache.extract.backbones.libraries import own_network as room
from featurecache.extract.backbones.libraries.own_source import source_digest
from featurecache.extract.backbones.registry import load_backbone
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.job.request import resolve
from featurecache.runs.folder import RESULTS_FILE

SOURCE = """
import torch

MARK = {mark}


def build():
    torch.manual_seed(3)
    network = torch.nn.Sequential()
    network.add_module("conv", torch.nn.Conv2d(3, 6, 4, stride=4))
    network.add_module("relu", torch.nn.ReLU(inplace=True))
    return network, dict(resize=16, crop=16, interpolation="bilinear", antialias=True, mean=[0.5] * 3, std=[0.5] * 3)


def alone():
    return torch.nn.Identity()


def failing():
    raise ValueError("no weights here")
"""
NUMBERS = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the working folder that nothing has imported."""
    name = f"my_networks_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(SOURCE.format(mark=1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(room, "NAMED", {})
    room.build_own.cache_clear()
    yield name
    sys.modules.pop(name, None)
    room.build_own.cache_clear()


def permitted(name: str) -> str:
    room.permit([name])
    return name


def test_a_module_that_cannot_be_imported_ends_in_a_sentence(module, tmp_path):
    (tmp_path / f"{module}.py").write_text("def build(:")
    with pytest.raises(BackboneError, match=rf"^The module of '{module}:build' cannot be imported: SyntaxError: "):
        load_backbone(permitted(f"{module}:build"))


def test_its_map_is_pooled_and_its_layers_have_names(module):
    backbone = load_backbone(permitted(f"{module}:build"))
    assert (backbone.feature_dim, backbone.layer, backbone.pooling) == (6, "output", "avg")
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network, _ = sys.modules[module].build()
    with torch.inference_mode():
        theirs = network((pixels / 255 - 0.5) / 0.5).mean((2, 3))
        before = network.conv((pixels / 255 - 0.5) / 0.5).mean((2, 3))
    assert torch.allclose(backbone.module(pixels), theirs, atol=1e-5)
    at_conv = load_backbone(f"{module}:build", layer="conv")
    assert torch.allclose(at_conv.module(pixels), before, atol=1e-5)
    with pytest.raises(UnknownLayer, match="has no layer 'convs'; nearest: conv"):
        load_backbone(f"{module}:build", layer="convs")


def test_what_nobody_named_is_not_imported(module):
    with pytest.raises(BackboneError, match=f"it is called only if you name it: add --backbone {module}:build"):
        load_backbone(f"{module}:build")
    assert module not in sys.modules


def test_other_source_text_is_another_key(module, tmp_path):
    name = permitted(f"{module}:build")
    first = resolve(FeatureRequest(name), load_backbone(name)).spec
    (tmp_path / f"{module}.py").write_text(SOURCE.format(mark=2))
    sys.modules.pop(module)
    room.build_own.cache_clear()
    assert first.differences(resolve(FeatureRequest(name), load_backbone(name)).spec) == ["network"]


def test_modules_that_it_imports_from_next_to_it_are_in_its_digest(tmp_path):
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    files = {
        "net.py": "import torch\nimport blocks\nfrom parts import deep\n",
        "blocks.py": "from parts.deep.layers import Layer\n",
        "parts/deep/layers.py": "from . import more\nfrom .. import above\n",
        "parts/deep/more.py": "import net\n",
        "parts/above.py": "",
        "other.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    before = source_digest(tmp_path / "net.py")
    for name in files:
        (tmp_path / name).write_text(files[name] + "MARK = 2\n")
        after = source_digest(tmp_path / "net.py")
        assert (after != before) == (name != "other.py"), name
        before = after


@pytest.mark.parametrize("place", ["alone", "site-packages"])
def test_a_module_that_imports_nothing_of_its_own_has_the_digest_of_its_text(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir()
    (folder / "helper.py").write_text("")
    text = "import torch\n" if place == "alone" else "import helper\n"
    (folder / "net.py").write_text(text)
    own = hashlib.sha256(text.encode()).hexdigest()
    assert source_digest(folder / "net.py") == hashlib.sha256(own.encode()).hexdigest()


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("nothing", UnknownBackbone, "There is no function"),
        ("alone", BackboneError, "returns no transform next to its module"),
        ("failing", BackboneError, "failed: ValueError: no weights here"),
        ("MARK", UnknownBackbone, "is no function"),
    ],
)
def test_what_is_no_network_is_refused_in_one_sentence(module, function, kind, message):
    with pytest.raises(kind, match=message):
        load_backbone(permitted(f"{module}:{function}"))


def build_here():
    spec = TransformSpec(8, 8, "bilinear", True, (0.0,) * 3, (1.0,) * 3)
    return torch.nn.Flatten(), spec


def test_a_function_of_a_program_is_named_by_its_place(module):
    name = own_network(build_here)
    assert name.endswith(":build_here")
    assert load_backbone(name).feature_dim == 3 * 8 * 8
    with pytest.raises(BackboneError, match="cannot be named"):
        own_network(lambda: None)


def test_predict_asks_for_the_name_again(module, tmp_path, capsys):
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 120)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            pixels = random.integers(low, low + 120, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    named = ["--backbone", f"{module}:build"]
    command = ["run", "images", *named, "--heads", "centroid", "--engine", "torch", "--out", "made"]
    assert run(command) == 0
    (features,) = json.loads((tmp_path / "made" / RESULTS_FILE).read_text())["features"]
    assert features["backbone"] == f"{module}:build"
    assert run(["classify", "images", *named, "--heads", "centroid", "--out", "again"]) == 0
    Image.new("RGB", (16, 16), (210, 200, 190)).save(tmp_path / "new.png")
    room.NAMED.clear()
    room.build_own.cache_clear()
    assert run(["predict", "made", "new.png", "--engine", "torch"]) != 0
    assert f"add --backbone {module}:build" in capsys.readouterr().err
    assert run(["predict", "made", "new.png", "--engine", "torch", *named, "--json"]) == 0
    assert '"bright"' in capsys.readouterr().out
