"""The engine torch on CUDA: its vectors are the CPU's, in every precision and lane. `make gpu` runs these."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from featurecache.extract.backbones.registry import load_backbone
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.device_check import TOLERANCES
from featurecache.extract.engines.protocol import source_of
from featurecache.extract.images.read import read_images
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import Settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
SIDE, N_IMAGES = 96, 11


@pytest.fixture(scope="module")
def source():
    return source_of(load_backbone("efficientnet_lite0", size=SIDE))


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (N_IMAGES, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def expected(source, images):
    return build_engine(source, engine="torch", device="cpu").run(images)


def largest(found: np.ndarray, expected: np.ndarray) -> float:
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_vectors_on_cuda_are_those_of_the_cpu(source, images, expected, precision):
    found = build_engine(source, device="cuda", precision=precision, batch_size=4).run(images)
    assert largest(found, expected) < (1e-4 if precision == "fp32" else TOLERANCES[precision])


def test_on_cuda_fp32_stays_exact_next_to_tf32(source, images):
    exact, fast = (build_engine(source, device="cuda", precision=each, batch_size=4) for each in ("fp32", "tf32"))
    alone = exact.run(images)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda engine: engine.run(images), [exact, fast] * 8))
    assert all(largest(each, alone) < 1e-5 for each in found[::2])


def test_on_cuda_page_locked_images_and_all_lanes_give_the_same(source, images):
    engine = build_engine(source, device="cuda", batch_size=4)
    once = engine.run(images)
    with ThreadPoolExecutor(engine.n_lanes) as pool:
        found = list(pool.map(engine.run, [images, images.pin_memory()] * 4))
    assert all(largest(each, once) < 1e-5 for each in found)


@pytest.mark.parametrize("device", ["cuda:0", "cuda:all"])
def test_a_cuda_device_by_number_and_all_of_them_give_the_same(source, images, expected, device):
    engine = build_engine(source, device=device, batch_size=4)
    assert largest(engine.run(images), expected) < 1e-4


def test_an_extraction_on_cuda_gives_the_features_of_the_cpu(digits_folder, tmp_path):
    request, found = FeatureRequest("efficientnet_lite0", size=SIDE), {}
    for device in ("cpu", "cuda"):
        report = extract_features(
            read_images(digits_folder), [request], tmp_path / device, settings=Settings(device=device)
        )
        found[device] = report.filled[0].cache.lookup(report.digests)
    assert largest(found["cuda"], found["cpu"]) < 1e-3
