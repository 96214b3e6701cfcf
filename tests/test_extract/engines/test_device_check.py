"""A device computes what the CPU does, cut by cut, or is not used; and the process is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featurecache.base.errors import EngineFailed, OutOfMemory
from featurecache.extract.engines import torch_engine
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.device_check import check_images, largest_difference
from featurecache.extract.engines.protocol import Source
from featurecache.extract.engines.torch_settings import restored_settings

SIDE = 8
D = 6
CUTS = {"cuts": [["layer3", "avg"], ["layer4", "max"]]}
SOURCE = Source(CUTS, SIDE, lambda: torch.nn.Identity(), D, (slice(0, 4), slice(4, 6)))


class FakeEngine:
    """An engine of a device; `wrong` is added to the last two columns of its vectors."""

    name, batch_size, n_lanes = "torch", 2, 1

    def __init__(self, device: str, precision: str = "fp32", wrong: float = 0.0, why: str = "") -> None:
        self.device, self.precision, self.wrong = device, precision, wrong
        self.reason = f"torch on {device} in {precision}: {why}"

    def run(self, batch: torch.Tensor) -> np.ndarray:
        vectors = np.zeros((len(batch), D), dtype=np.float32)
        vectors[:, :4] = 1000.0
        vectors[:, 4:] = batch.float().mean((1, 2, 3)).numpy()[:, None] / 1000
        vectors[:, 4:] *= 1 + self.wrong
        return vectors


@pytest.fixture
def machine(monkeypatch):
    """A machine with a device that is wrong by so much in channels_last and in contiguous memory."""

    def make(device: str, *wrong: float) -> list[tuple[str, bool]]:
        built = []

        def build(source, *, device, precision, batch_size, why, channels_last=True):
            built.append((device, channels_last))
            return FakeEngine(device, precision, 0.0 if device == "cpu" else wrong[not channels_last], why)

        monkeypatch.setattr(torch_engine, "build_torch_engine", build)
        monkeypatch.setattr(torch_engine, "choose_device", lambda _: device)
        return built

    return make


def built(device: str = "auto", precision: str = "fp32") -> tuple[str, list[str]]:
    said: list[str] = []
    engine = build_engine(SOURCE, engine="torch", device=device, precision=precision, say=said.append)
    return engine.reason, said


def test_a_device_that_agrees_is_used_without_a_word(machine):
    tried = machine("cuda", 1e-5, 0.0)
    assert built() == ("torch on cuda in fp32: asked for", [])
    assert tried == [("cpu", True), ("cuda", True)]


def test_where_channels_last_is_wrong_contiguous_memory_is_used(machine):
    machine("mps", 0.3, 1e-6)
    reason, said = built("mps")
    assert reason.startswith("torch on mps in fp32")
    assert said == [
        "Vectors of layer4 (max) on mps differ from the CPU's by 0.3, where at most 0.001 is expected in channels_last "
        "memory: contiguous memory is used, slower."
    ]


def test_where_both_are_wrong_the_cpu_is_used_unless_the_device_was_asked_for(machine):
    machine("mps", 0.3, 0.2)
    reason, said = built()
    assert reason == "torch on cpu in fp32: mps gives other features here"
    assert said == [
        "Vectors of layer4 (max) on mps differ from the CPU's by 0.3, where at most 0.001 is expected: the CPU is used."
    ]
    with pytest.raises(EngineFailed) as refused:
        built("mps")
    assert str(refused.value) == (
        "Vectors of layer4 (max) on mps differ from the CPU's by 0.3, where at most 0.001 is expected. "
        "Use --device cpu, or another version of torch or of the device's driver."
    )


@pytest.mark.parametrize(("precision", "fine", "wrong"), [("fp16", 0.01, 0.2), ("bf16", 0.1, 0.5)])
def test_lower_precisions_may_differ_by_their_rounding(machine, precision, fine, wrong):
    machine("cuda", fine, fine)
    assert built(precision=precision)[1] == []
    machine("cuda", wrong, wrong)
    with pytest.raises(EngineFailed, match=r"^Vectors of layer4 \(max\) on cuda differ"):
        built(precision=precision)


def test_a_network_that_is_too_large_for_the_cpu_is_not_compared(machine, monkeypatch):
    machine("cuda", 0.5, 0.5)

    def too_large(engine, batch):
        raise OutOfMemory("A batch of 2 images")

    monkeypatch.setattr(FakeEngine, "run", too_large)
    assert built()[1] == ["The device is not compared with the CPU: the network needs more memory than there is."]


def test_the_cpu_is_not_compared_with_itself(machine):
    tried = machine("cpu", 0.0, 0.0)
    assert built("cpu") == ("torch on cpu in fp32: asked for", [])
    assert tried == [("cpu", True)]


def test_a_cut_of_small_numbers_counts_as_much_as_one_of_large():
    vectors, expected = (FakeEngine("cuda", wrong=wrong).run(check_images(SIDE)) for wrong in (0.5, 0.0))
    whole = Source(CUTS, SIDE, lambda: torch.nn.Identity())
    assert largest_difference(vectors, expected, whole).error < 1e-3
    assert largest_difference(vectors, expected, SOURCE) == (pytest.approx(0.5), "layer4 (max)")


def test_rows_of_zeros_agree_and_vectors_that_are_not_numbers_do_not():
    zeros, nans = np.zeros((2, D), np.float32), np.full((2, D), np.nan, np.float32)
    assert largest_difference(zeros, zeros, SOURCE).error == 0
    assert largest_difference(nans, zeros + 1, SOURCE).error == np.inf
    assert largest_difference(nans, zeros + 1, SOURCE, judge_overflow=False).error == 0


def test_the_images_are_a_picture_and_noise():
    images = check_images(16)
    assert (images.shape, images.dtype) == ((2, 3, 16, 16), torch.uint8)
    assert len(images[0].unique()) > 100
    assert torch.equal(images[1, 0, 0], images[1, 0, 15])


def test_settings_of_torch_are_as_they_were_when_an_extraction_is_over():
    from torch.backends import cuda, cudnn

    before = (cudnn.allow_tf32, cuda.matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark)
    with restored_settings():
        cudnn.allow_tf32, cuda.matmul.allow_tf32 = not before[0], not before[1]
        cudnn.deterministic, cudnn.benchmark = not before[2], not before[3]
    assert (cudnn.allow_tf32, cuda.matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark) == before
