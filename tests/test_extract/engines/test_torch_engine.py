import ctypes
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from featurecache.base.errors import EngineError, OutOfMemory
from featurecache.extract.backbones.registry import load_backbone
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.folding import fold_batch_norms
from featurecache.extract.engines.protocol import source_of
from featurecache.extract.engines.torch_engine import (
    KEPT_BYTES,
    LARGEST_OLD_THRESHOLD,
    M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD,
    choose_device,
    gpus_of,
    reuse_freed_memory,
)

N_IMAGES, SIDE = 11, 96


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("efficientnet_lite0", size=SIDE)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (N_IMAGES, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def engine(backbone):
    return build_engine(source_of(backbone), engine="torch", device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def vectors(engine, images):
    return engine.run(images)


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def test_vectors_are_those_of_the_module(backbone, images, vectors):
    assert (vectors.dtype, vectors.shape) == (np.float32, (N_IMAGES, 1280))
    assert relative_error(vectors, backbone.module(images).numpy()) < 1e-5


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5])
def test_vectors_are_the_same_bits_in_groups_of_any_size(engine, images, vectors, n_rows):
    grouped = np.concatenate([engine.run(group) for group in torch.split(images, n_rows)])
    assert np.array_equal(grouped, vectors)


@pytest.mark.parametrize("seed", range(3))
def test_vectors_are_the_same_bits_in_any_order(engine, images, vectors, seed):
    order = torch.randperm(N_IMAGES, generator=torch.Generator().manual_seed(seed))
    assert np.array_equal(engine.run(images[order]), vectors[order.numpy()])


def test_vectors_are_the_same_bits_from_another_thread(engine, images, vectors):
    found = []
    thread = threading.Thread(target=lambda: found.append(engine.run(images)))
    thread.start()
    thread.join()
    assert np.array_equal(found[0], vectors)


def test_another_batch_size_agrees_to_rounding(backbone, images, vectors):
    assert (
        relative_error(
            build_engine(source_of(backbone), engine="torch", device="cpu", batch_size=7).run(images), vectors
        )
        < 1e-6
    )


def test_no_images_are_no_vectors(engine, images):
    assert engine.run(images[:0]).shape == (0, 1280)


def test_bf16_stays_near_fp32(backbone, images, vectors):
    rough = build_engine(source_of(backbone), device="cpu", precision="bf16", batch_size=4).run(images[:3])
    assert rough.dtype == np.float32
    assert 1e-5 < relative_error(rough, vectors[:3]) < 0.1


def test_the_backbone_is_left_as_it_was(backbone, engine):
    norms = [part for part in backbone.module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == 49
    assert engine.name == "torch"


@pytest.mark.parametrize("name", ["efficientnet_b0", "densenet121", "googlenet", "shufflenet_v2_x0_5"])
def test_folding_removes_batch_norms_and_changes_only_rounding(name, tmp_path):
    torch.manual_seed(0)
    network = models.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.uniform_(-0.2, 0.2)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    module = load_backbone(name, weights=str(tmp_path / "weights.pth")).module

    folded = fold_batch_norms(module)
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)

    def n_norms(part: nn.Module) -> int:
        return sum(isinstance(inner, nn.BatchNorm2d) for inner in part.modules())

    # DenseNet normalises before it convolves: only the norms inside its layers follow a convolution.
    assert n_norms(folded) == (62 if name == "densenet121" else 0)
    assert n_norms(module) > 40
    with torch.inference_mode():
        assert relative_error(folded(images).numpy(), module(images).numpy()) < 1e-5


def test_the_reason_names_device_and_precision(backbone, engine):
    assert engine.reason == "torch on cpu in fp32: asked for"
    bf16 = build_engine(source_of(backbone), precision="bf16", batch_size=1)
    assert re.fullmatch(r"torch on \w+ in bf16: (no GPU here|the fastest device here)", bf16.reason)


def test_images_of_another_size_or_type_are_refused(engine):
    with pytest.raises(EngineError) as refused:
        engine.run(torch.zeros((1, 3, 32, 32), dtype=torch.uint8))
    assert str(refused.value) == "The backbone takes uint8 (B, 3, 96, 96), not torch.uint8 (1, 3, 32, 32)."
    with pytest.raises(EngineError, match=r"not torch\.float32 \(1, 3, 96, 96\)\.$"):
        engine.run(torch.zeros((1, 3, SIDE, SIDE)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"engine": "tensorrt"}, "There is no engine 'tensorrt': choose from auto, onnxruntime, torch."),
        ({"device": "xla"}, "There is no device 'xla': choose from auto, cpu, cuda, mps."),
        ({"precision": "double"}, "There is no precision 'double': choose from fp32, fp16, bf16, int8, tf32."),
        ({"batch_size": 0}, "The batch size is 0 and has to be a whole number of 1 or more."),
        (
            {"device": "cpu", "precision": "fp16"},
            "On a CPU fp16 is slower than fp32, and less exact. Use fp32 or bf16, or --device cuda.",
        ),
        (
            {"device": "gpu"},
            "There is no device 'gpu': use cuda, cuda:1 for the second GPU, cuda:all, or mps on a Mac.",
        ),
        ({"device": "cuda:one"}, "There is no device 'cuda:one': use cuda, cuda:1 for the second GPU, or cuda:all."),
        ({"device": "cuda:01"}, "There is no device 'cuda:01': use cuda, cuda:1 for the second GPU, or cuda:all."),
        (
            {"device": "cpu", "precision": "tf32"},
            "tf32 is a precision of NVIDIA GPUs since 2020, which cpu is not. "
            "Use --precision fp32 or bf16, or --device cuda on a machine with such a GPU.",
        ),
    ],
)
def test_what_there_is_not_is_refused_in_a_sentence(backbone, arguments, sentence):
    with pytest.raises(EngineError) as refused:
        build_engine(source_of(backbone), **arguments)
    assert str(refused.value) == sentence


def test_a_gpu_is_one_all_or_the_one_that_was_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [choose_device(name) for name in ("cuda", "cuda:2", "cuda:all")] == ["cuda", "cuda:2", "cuda:all"]
    assert [gpus_of(name) for name in ("cuda", "cuda:2")] == [["cuda"], ["cuda:2"]]
    assert gpus_of("cuda:all") == ["cuda:0", "cuda:1", "cuda:2"]
    with pytest.raises(EngineError, match=r"^There is no device .cuda:3. on this machine as torch sees it; the last"):
        choose_device("cuda:3")


def test_next_to_an_engine_with_more_lanes_it_runs_as_many_batches_at_once(engine, images, monkeypatch):
    both, module = threading.Barrier(2), engine.module

    def meeting(batch):
        both.wait(timeout=20)
        return module(batch)

    monkeypatch.setattr(engine, "module", meeting)
    monkeypatch.setattr(engine, "_lanes", engine._lanes)
    engine.allow_lanes(2)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(engine.run, [images[:2], images[:2]])
    assert np.array_equal(first, second)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_here_is_refused(backbone):
    with pytest.raises(EngineError, match=r"^There is no device 'cuda' on this machine as torch sees it; there is "):
        build_engine(source_of(backbone), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_the_cpu(backbone, images, vectors):
    assert relative_error(build_engine(source_of(backbone), device="cuda", batch_size=4).run(images), vectors) < 1e-4


def test_without_glibc_the_allocator_is_left_alone(monkeypatch):
    def no_library(_):
        raise OSError("no libc")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert reuse_freed_memory() is False


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_with_glibc_the_allocator_takes_the_setting():
    assert reuse_freed_memory() is True


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, other allocations: 9 GB, max allowed: 9 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("Invalid buffer size: 9.00 GB"),
        MemoryError(),
    ],
)
def test_want_of_memory_is_one_sentence_that_names_the_batch(engine, images, monkeypatch, error):
    def too_large(_):
        raise error

    monkeypatch.setattr(engine, "module", too_large)
    with pytest.raises(OutOfMemory) as refused:
        engine.run(images)
    assert str(refused.value) == (
        "A batch of 4 images needs more memory than there is; take a smaller --batch-size. What was extracted is kept."
    )


def test_any_other_error_of_the_network_is_one_sentence_too(engine, images, monkeypatch):
    def wrong(_):
        raise RuntimeError("shapes do not fit\nException raised from somewhere")

    monkeypatch.setattr(engine, "module", wrong)
    with pytest.raises(EngineError) as refused:
        engine.run(images)
    assert str(refused.value) == "torch on cpu failed: shapes do not fit; try --engine onnxruntime"


@pytest.mark.parametrize(
    ("device", "precision", "instead"),
    [("cuda", "fp32", "--device cpu"), ("cpu", "bf16", "--precision fp32"), ("cpu", "fp32", "--engine onnxruntime")],
)
def test_what_to_try_instead_is_something_else(engine, monkeypatch, device, precision, instead):
    monkeypatch.setattr(engine, "device", device)
    monkeypatch.setattr(engine, "precision", precision)
    assert engine._alternative() == instead


def short_of_memory(run, most: int):
    """A network that takes no more than so many images at once."""

    def forward(images):
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return run(images)

    return forward


def test_a_batch_that_does_not_fit_is_halved_until_it_does(backbone, images, vectors, monkeypatch):
    engine = build_engine(source_of(backbone), engine="torch", device="cpu")
    assert engine.batch_size == 16
    monkeypatch.setattr(engine, "module", short_of_memory(engine.module, 5))
    assert relative_error(engine.run(images), vectors) < 1e-6
    assert engine.batch_size == 4


def test_one_image_that_does_not_fit_is_said(backbone, images, monkeypatch):
    engine = build_engine(source_of(backbone), engine="torch", device="cpu")
    monkeypatch.setattr(engine, "module", short_of_memory(engine.module, 0))
    with pytest.raises(OutOfMemory, match=r"^A batch of 1 images needs more memory than there is; "):
        engine.run(images)


def test_without_page_locked_memory_images_are_copied_from_ordinary_memory(engine, images, monkeypatch):
    def limited(*_: object, pin_memory: bool = False, **__: object) -> torch.Tensor:
        assert pin_memory
        asked.append(pin_memory)
        raise RuntimeError("CUDA error: OS call failed or operation not supported on this OS")

    asked: list[bool] = []
    monkeypatch.setattr(torch, "empty", limited)
    monkeypatch.setattr(engine, "_can_pin", True)
    assert [engine._pinned(images) for _ in range(2)] == [None, None]
    assert len(asked) == 1


def test_a_device_that_does_not_take_the_network_is_one_sentence(backbone, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(nn.Module, "to", full)
    with pytest.raises(OutOfMemory, match="needs more memory than there is"):
        build_engine(source_of(backbone), engine="torch", device="cpu")


def test_an_older_glibc_takes_the_largest_threshold_that_it_knows(monkeypatch):
    asked = []

    class Glibc:
        def __init__(self, _: None) -> None: ...

        def mallopt(self, setting: int, value: int) -> int:
            asked.append((setting, value))
            return int(setting != M_MMAP_THRESHOLD or value <= LARGEST_OLD_THRESHOLD)

    monkeypatch.setattr(ctypes, "CDLL", Glibc)
    assert reuse_freed_memory() is True
    assert asked == [
        (M_MMAP_THRESHOLD, KEPT_BYTES),
        (M_TRIM_THRESHOLD, KEPT_BYTES),
        (M_MMAP_THRESHOLD, LARGEST_OLD_THRESHOLD),
    ]
