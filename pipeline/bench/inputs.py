"""What the benches run on: photographs made here, and weights for every network, random ones where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SIZE = (500, 375)
N_PHOTOS = 1000


def write_photos(folder: Path, count: int) -> None:
    """Write `count` JPEG files of 500 x 375, cut and mirrored from scikit-learn's two sample photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(array) for array in load_sample_images().images]
    rng = np.random.default_rng(0)
    (folder / "photo").mkdir(parents=True)
    for i in range(count):
        photo = photos[i % len(photos)]
        scale = rng.uniform(0.6, 1.0)
        width, height = int(photo.width * scale), int(photo.height * scale)
        left, top = (int(rng.integers(0, rest + 1)) for rest in (photo.width - width, photo.height - height))
        cut = photo.crop((left, top, left + width, top + height)).resize(SIZE, Image.Resampling.BICUBIC)
        if i % 4 > 1:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        cut.save(folder / "photo" / f"{i:05d}.jpg", quality=90)


@contextmanager
def weights_for(name: str, scratch: Path) -> Iterator[None]:
    """Weights where torch looks for them: those of this machine, else random ones in a folder of their own."""
    import torch
    from torchvision import models

    from featurecache.extract.backbones.weights import find_weights

    source = find_weights(name)
    if source.path is None or source.is_local:
        yield
        return
    usual, hub = torch.hub.get_dir(), scratch / "hub"
    (hub / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(models.get_model(name, weights=None).state_dict(), hub / "checkpoints" / source.path.name)
    torch.hub.set_dir(str(hub))
    try:
        yield
    finally:
        torch.hub.set_dir(usual)
