"""Programs in which no image may wait for torch resize by numpy until it is loaded by a thread of its own."""

import sys
from types import SimpleNamespace

import pytest

from featurecache.extract.images.decoding import resizing


@pytest.fixture
def loading(monkeypatch):
    """Numpy has computed enough, and torch is being imported by another thread."""
    begun = []
    monkeypatch.setattr(resizing.Aside, "is_wanted", False)
    monkeypatch.setattr(resizing.Aside, "begin", lambda: begun.append(True))
    monkeypatch.setattr(resizing.Spent, "products", resizing.MOST_PRODUCTS)
    torch = SimpleNamespace(__spec__=SimpleNamespace(_initializing=True))
    monkeypatch.setitem(sys.modules, "torch", torch)
    return begun, torch


def test_numpy_goes_on_while_torch_is_loaded_aside(loading):
    begun, torch = loading
    assert not resizing.is_by_numpy("bilinear", antialias=True)
    resizing.load_torch_aside()
    assert resizing.is_by_numpy("bilinear", antialias=True)
    assert begun == [True]
    torch.__spec__._initializing = False
    assert resizing.torch_is_loaded()
    assert not resizing.is_by_numpy("bilinear", antialias=True)


def test_little_work_is_no_reason_to_load_torch(loading, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(resizing.Spent, "products", 0)
    resizing.load_torch_aside()
    assert resizing.is_by_numpy("bilinear", antialias=True)
    assert loading[0] == []
