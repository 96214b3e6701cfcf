"""Plain JPEGs of a few sizes, and all that is not decoded together with them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from featurecache.extract.cache.spec import image_digest
from featurecache.extract.images.manifest import Sample
from featurecache.extract.job.decoding.decoder import Item

REFUSED = ["large", "cut", "closed", "none", "empty"]


def jpeg(size: tuple[int, int], mode: str = "RGB", seed: int = 0, **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def turned(size: tuple[int, int]) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(size, exif=exif)


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[Item]:
    """Files with the digests that are known of them."""
    files = {f"{i}": jpeg((16, 12), seed=i) for i in range(5)}
    files |= {f"grey {i}": jpeg((12, 17), "L", seed=i) for i in range(3)}
    files |= {"other": jpeg((12, 12)), "as resized": jpeg((20, 20)), "progressive": jpeg((16, 12), progressive=True)}
    files |= {"turned": turned((16, 12)), "cmyk": jpeg((16, 12), "CMYK"), "line": jpeg((16, 1)), "long": jpeg((200, 2))}
    files |= {"large": jpeg((21, 20)), "cut": jpeg((16, 12))[:-40], "closed": jpeg((16, 12))[:-60] + b"\xff\xd9"}
    png = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(png, "PNG")
    files |= {"png": png.getvalue(), "none": b"no image", "empty": b"", "last": jpeg((16, 12), seed=9)}
    folder, found = tmp_path_factory.mktemp("images"), list[Item]()
    for name, data in files.items():
        (folder / name).write_bytes(data)
        found.append((image_digest(data), Sample(str(folder / name), name)))
    return found
