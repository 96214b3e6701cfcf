"""The program in Keras that the README shows, and our one command: the same accuracy, and the time of both."""

from __future__ import annotations

import json
import math
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F  # noqa: N812

from featurecache.cli.main import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

README = Path(__file__).parents[4] / "extract" / "README.md"
SIDE = 32  # the least that VGG16 takes
N_SAMPLE = 64


@pytest.fixture
def photos(tmp_path):
    """The 1,797 digits of scikit-learn, half to train on."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i, (scan, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = ("test", "val", "train", "train")[i % 4]
        path = tmp_path / "photos" / split / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((scan * 15.9).astype(np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def weights(keras_library, photos, tmp_path):
    """Random weights of VGG16, scaled layer by layer so that maps of images have mean 0 and variance 1."""
    keras = keras_library
    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    files = sorted(photos.glob("train/*/*"))[:: math.ceil(len(list(photos.glob("train/*/*"))) / N_SAMPLE)]
    read = [keras.utils.img_to_array(keras.utils.load_img(file, target_size=(SIDE, SIDE))) for file in files]
    images = keras.applications.vgg16.preprocess_input(np.stack(read))
    maps = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    for layer in model.layers[1:]:
        if not isinstance(layer, keras.layers.Conv2D):
            maps = F.max_pool2d(maps, 2)
            continue
        kernel = layer.kernel.value.detach()
        raw = F.conv2d(maps, kernel.permute(3, 2, 0, 1), padding=1)
        std, mean = torch.std_mean(raw, (0, 2, 3))
        std = std.clamp(min=1e-3)
        layer.kernel.assign(kernel / std)
        layer.bias.assign(-mean / std)
        maps = ((raw - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)).relu()
    path = tmp_path / "vgg16.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture
def keras_library(tmp_path, monkeypatch):
    """Keras on torch, with a home of its own."""
    os.environ.setdefault("KERAS_HOME", str(tmp_path / "keras"))
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="keras is an extra")


def interval(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's interval of 95 %."""
    z = 1.959964
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def test_the_program_in_keras_and_our_command_are_as_good(photos, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    usual = 'side, weights, epochs = 224, "imagenet", 10'
    programs = re.findall(r"```py\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    (program,) = (text for text in programs if usual in text)
    values: dict[str, object] = {}
    started = time.perf_counter()
    exec(program.replace(usual, f"side, weights, epochs = {SIDE}, {str(weights)!r}, 10"), values)
    keras_seconds = time.perf_counter() - started
    started = time.perf_counter()
    asked = ["--backbone", "keras/VGG16", "--weights", str(weights), "--size", str(SIDE), "--heads", "mlp"]
    assert run(["run", str(photos), *asked, "--cache", "cache", "--out", "ours"]) == 0
    our_seconds = time.perf_counter() - started
    results = json.loads(Path("ours/results.json").read_text(encoding="utf-8"))
    (head,) = results["heads"]
    n = results["dataset"]["n_test"]
    theirs = interval(float(values["accuracy"]), n)  # type: ignore[arg-type]
    low, high = head["test"]["accuracy_ci"]
    print(
        f"\nKeras: {values['accuracy']:.4f} ({theirs[0]:.4f}-{theirs[1]:.4f}) in {keras_seconds:.1f} s; featurecache: "
        f"{head['test']['accuracy']:.4f} ({low:.4f}-{high:.4f}) in {our_seconds:.1f} s; {n} test images"
    )
    assert theirs[0] <= high
    assert low <= theirs[1]
    assert float(values["accuracy"]) > 0.5  # type: ignore[arg-type]
