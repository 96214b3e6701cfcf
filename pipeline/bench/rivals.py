"""What a user would otherwise run, for the table of `featurecache bench extract`, in a process without our settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from featurecache.base.versions import installed_version
from featurecache.extract.job.request import FeatureRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH, WORKERS = 64, 2
PLAIN, CHANNELS_LAST, IMG2VEC = "plain loop", "plain channels_last", "img2vec"
IMG2VEC_NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@dataclass(frozen=True)
class Job:
    """The first n images of a folder of class folders, the network whose weights are in `hub`, and where it runs.

    precision: fp32 as torch has it by default, tf32 for all products, or bf16 by autocast; of the plain loop.
    """

    backbone: str
    root: str
    n: int
    hub: str
    device: str
    workers: int = WORKERS
    batch: int = BATCH
    precision: str = "fp32"
    size: int | None = None


def elsewhere() -> ProcessPoolExecutor:
    """One fresh process, to be used again and again; what it has loaded stays loaded."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def ways_of_others(name: str) -> tuple[str, ...]:
    """Those that can run this network here."""
    has_tool = name in IMG2VEC_NETWORKS and installed_version("img2vec-pytorch") is not None
    return (PLAIN, CHANNELS_LAST, IMG2VEC) if has_tool else (PLAIN, CHANNELS_LAST)


def go_through(way: str, job: Job) -> tuple[float, NDArray[np.float32] | None]:
    """Seconds to go through the images once, loading left out; vectors (n, D) where they are comparable with ours."""
    go = _img2vec(job) if way == IMG2VEC else _plain_loop(job, way == CHANNELS_LAST)
    started = time.perf_counter()
    vectors = go()
    return time.perf_counter() - started, vectors


@cache
def _plain_loop(job: Job, channels_last: bool) -> Callable[[], NDArray[np.float32]]:
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    torch.hub.set_dir(job.hub)
    backbone = FeatureRequest(job.backbone, size=job.size).load()
    spec = backbone.transform
    transform = ImageClassification(
        crop_size=spec.crop,
        resize_size=spec.resize,
        mean=spec.mean,
        std=spec.std,
        interpolation=InterpolationMode(spec.interpolation),
        antialias=spec.antialias,
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    # The module takes uint8 and normalises; the loop's network takes what the transform gives.
    network: Any = backbone.module.network
    network = network.to(job.device).to(memory_format=layout)

    if job.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    is_half = job.precision == "bf16"

    def run(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast(job.device.partition(":")[0], dtype=torch.bfloat16, enabled=is_half):
            vectors: torch.Tensor = network(batch.to(job.device, memory_format=layout)).float().cpu()
        return vectors

    # What is prepared for this shape of batch, once, is no part of the rate.
    with torch.inference_mode():
        run(torch.zeros(job.batch, 3, spec.crop, spec.crop))

    def go() -> NDArray[np.float32]:
        folder = Subset(ImageFolder(job.root, transform), range(job.n))
        loader = DataLoader(folder, batch_size=job.batch, num_workers=job.workers)
        with torch.inference_mode():
            vectors = [run(batch) for batch, _ in loader]
        found: NDArray[np.float32] = torch.cat(vectors).numpy()
        return found

    return go


@cache
def _img2vec(job: Job) -> Callable[[], None]:
    import torch
    from img2vec_pytorch import Img2Vec
    from PIL import Image

    from featurecache.extract.images.folders.scan import scan_folder

    torch.hub.set_dir(job.hub)
    tool = Img2Vec(
        cuda=job.device == "cuda", model=job.backbone, layer_output_size=Img2Vec.RESNET_OUTPUT_SIZES[job.backbone]
    )
    paths = [sample.path for sample in scan_folder(job.root).samples[: job.n]]

    def go() -> None:
        rest = iter(paths)
        while chunk := list(islice(rest, BATCH)):
            tool.get_vec([Image.open(path).convert("RGB") for path in chunk])

    return go
