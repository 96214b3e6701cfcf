"""What the doctor sees, also where libraries are missing or broken."""

from __future__ import annotations

import builtins
import json
import sys

import pytest

from featurecache.base.exits import DONE
from featurecache.cli.commands import doctor
from featurecache.cli.main import run


def found(capsys, tmp_path) -> dict[str, dict[str, str]]:
    assert run(["doctor", "--json", "--cache", str(tmp_path)]) == DONE
    return {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_the_engine_of_the_cpu_is_named_with_its_version(capsys, tmp_path):
    import onnxruntime

    seen = found(capsys, tmp_path)
    assert seen["onnxruntime"]["found"] == onnxruntime.__version__
    assert seen["engine on cpu"]["found"].startswith(f"onnxruntime {onnxruntime.__version__} or torch")
    assert seen["engine on cpu"]["advice"] == ""
    assert "device cpu" in seen


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'torch'"), OSError("libcudart.so: cannot open")]
)
def test_where_torch_cannot_be_imported_the_rest_is_still_shown(capsys, tmp_path, monkeypatch, error):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise error
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    seen = found(capsys, tmp_path)
    assert seen["devices"]["found"] == f"unknown: torch cannot be imported, {type(error).__name__}: {error}"
    assert "pip install" in seen["devices"]["advice"]
    assert "efficientnet_lite0" in seen["weights on this machine"]["found"]
    assert "GB free" in seen[f"cache '{tmp_path}'"]["found"]


def test_without_onnxruntime_the_engine_is_torch(monkeypatch):
    monkeypatch.setattr(doctor, "installed_version", lambda name: None)
    assert doctor._cpu_engine().advice.startswith("pip install onnxruntime")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert doctor._cpu_engine().found == "torch alone: ModuleNotFoundError"
