"""The list of backbones is torchvision's own, read without importing it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision import models

from featurecache.cli.main import run
from featurecache.extract.backbones import listing
from featurecache.extract.backbones.listing import (
    LITE_SIZES,
    PIXELS,
    list_backbones,
    list_library_backbones,
    network_names,
)
from featurecache.extract.backbones.weights import named_weights


def test_the_list_holds_every_name_and_starts_with_the_one_from_pip():
    listed = list_backbones()
    of_torchvision = models.list_models(module=models)
    assert [info.name for info in listed] == network_names() == [*LITE_SIZES, PIXELS, *of_torchvision]
    assert (listed[0].name, listed[0].source, listed[0].at_hand) == ("efficientnet_lite0", "efficientnet_lite", True)
    resnet50 = next(info for info in listed if info.name == "resnet50")
    assert (resnet50.weights, resnet50.default_weights) == (["IMAGENET1K_V2", "IMAGENET1K_V1"], "IMAGENET1K_V2")


def test_it_is_what_loading_knows_of_each():
    for info in list_backbones():
        sources = named_weights(info.name)
        expected = [source.name for source in sources], sources[0].name, sources[0].is_local
        assert (info.weights, info.default_weights, info.at_hand) == expected


def test_the_text_of_torchvision_reads_as_torchvision_is():
    assert listing._read_torchvision() == listing._ask_torchvision()


def test_torchvision_is_asked_where_its_text_does_not_read_so(monkeypatch):
    expected = list_backbones()
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: "@register_model()\ndef a(weights: A_Weights):\n")
    assert listing._read_torchvision() == []
    assert list_backbones() == expected


def test_the_text_of_torchvision_is_searched_once(monkeypatch):
    listing.check_name("resnet18")
    monkeypatch.setattr(listing, "_read_torchvision", pytest.fail)
    listing.check_name("resnet50")


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME"])
def test_weights_lie_where_torch_puts_them(monkeypatch, tmp_path, variable):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert listing.weights_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_nothing_heavy_is_imported_for_it():
    code = (
        "import sys, featurecache; featurecache.list_backbones(); "
        "print([name for name in ('torch', 'torchvision', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_there_is_not_is_refused_before_torch_is_imported(tmp_path):
    names = ["resnet51", "keras/VGG61", "hf-hub:net", f"local-dir:{tmp_path}/gone"]
    code = (
        "import sys\nfrom featurecache.base.errors import BackboneError\n"
        "from featurecache.extract.job.loading import load_together\n"
        "from featurecache.extract.job.matching import check_named\n"
        "from featurecache.extract.job.request import FeatureRequest\n"
        f"for name in {names!r}:\n"
        "    for check in (check_named, lambda request: load_together([request])):\n"
        "        try:\n            check(FeatureRequest(name))\n"
        "        except BackboneError as error:\n            print(error)\n"
        "print([name for name in ('torch', 'torchvision', 'timm', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *said, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert len(said) == 2 * 3 + 1  # where a folder is not there, its features may be all the same
    assert [text.split(".")[0] for text in said[::2]] == [
        "There is no backbone 'resnet51'",
        "Of Keras there is no 'VGG61'",
        "'hf-hub:net' names no folder of the hub: write hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION",
        f"The folder of local-dir:{tmp_path}/gone cannot be read: No such file or directory",
    ]


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A hub's cache with the default weights of one network of timm, and a folder that somebody else has written."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("FEATURECACHE_USER_CACHE", str(tmp_path / "user"))
    own, other = (
        tmp_path / f"models--{name}" / "snapshots" / ("a" * 40) for name in ("timm--resnet18.a1_in1k", "org--net")
    )
    for folder in (own, other, tmp_path / "models--org--text" / "snapshots" / "b"):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"")
    (other / "config.json").write_text('{"architecture": "resnet18", "pretrained_cfg": {"license": "mit"}}')
    return tmp_path


def test_networks_of_timm_are_listed_by_a_word_with_their_tags_and_licence(hub_cache, capsys):
    timm = pytest.importorskip("timm", reason="timm is an extra")
    assert run(["backbones", "TIMM/resnet18", "--json"]) == 0
    listed = {info["name"]: info for info in json.loads(capsys.readouterr().out)}
    resnet18 = listed["timm/resnet18"]
    assert (resnet18["at_hand"], resnet18["license"]) == (True, timm.get_pretrained_cfg("resnet18").license)
    assert set(resnet18["weights"]) <= {name.partition(".")[2] for name in timm.list_pretrained("resnet18.*")}
    assert resnet18["default_weights"] == timm.get_pretrained_cfg("resnet18").tag == resnet18["weights"][0]
    assert {info.name for info in list_library_backbones()} >= {
        f"timm/{name}" for name in ("resnet50", "convnext_tiny")
    }
    assert run(["backbones", "--here"]) == 0
    shown = capsys.readouterr().out
    assert "hf-hub:org/net" in shown
    assert "hf-hub:org/text" not in shown


def test_the_licence_of_a_strange_folder_is_escaped(hub_cache, capsys):
    pytest.importorskip("timm", reason="timm is an extra")
    config = {"architecture": "resnet18", "license": "\x1b[31mmit\n"}
    (config_file,) = hub_cache.glob("models--org--net/snapshots/*/config.json")
    config_file.write_text(json.dumps(config))
    assert run(["backbones", "org/net"]) == 0
    shown = capsys.readouterr().out
    assert "hf-hub:org/net" in shown
    assert "\x1b" not in shown


def test_a_second_listing_does_not_import_timm(hub_cache, monkeypatch):
    pytest.importorskip("timm", reason="timm is an extra")
    first = list_library_backbones()
    monkeypatch.setattr("featurecache.extract.backbones.libraries.timm_listing._ask_timm", None)
    assert list_library_backbones() == first


def test_without_timm_none_of_its_networks_is_listed(monkeypatch, capsys):
    monkeypatch.setattr("featurecache.extract.backbones.libraries.timm_listing.installed_version", lambda _: None)
    assert [info for info in list_library_backbones() if info.source != "keras"] == []
    assert run(["backbones", "resnet50"]) == 0
    assert "timm/" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "hidden", "expected"),
    [
        (["nothing"], (), "There is no backbone with 'nothing' in its name."),
        (
            ["DINOv2"],
            ("timm", "keras"),
            "There is no backbone with 'DINOv2' in its name. More are listed after "
            "`pip install 'featurecache[timm,keras]'`.",
        ),
        (["nothing", "--here"], (), "No backbone with 'nothing' in its name has its weights on this machine."),
    ],
)
def test_an_empty_list_is_a_sentence_with_the_extras_that_list_more(words, hidden, expected, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(listing, "list_library_backbones", list)
    installed = {"timm", "keras"} - set(hidden)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: (name in installed or None) if name in ("timm", "keras") else found(name, *rest),
    )
    assert run(["backbones", *words]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert run(["backbones", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
