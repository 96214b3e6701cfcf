"""The list of backbones is torchvision's own, read without importing it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from featurecache.extract.backbones import listing
from featurecache.extract.backbones.listing import list_backbones
from featurecache.extract.backbones.registry import network_names
from featurecache.extract.backbones.weights import named_weights


def test_the_list_holds_every_name_and_starts_with_the_one_from_pip():
    listed = list_backbones()
    assert [info.name for info in listed] == network_names()
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
