"""TIFF files of 16 bits a channel in planes, one channel behind the other, which Pillow takes for 8 bits.

That is so where they are not compressed. Pillow has the right unpackers and takes them when they are named.
"""

from __future__ import annotations

from typing import Any

from featurecache.base.errors import ImageRefused

BITS, PLANAR = 258, 284
IN_PLANES = 2
ORDERS = {b"II": "L", b"MM": "B"}
# The modes whose planes of 16 bits Pillow can unpack.
UNPACKED = {"RGB", "RGBA"}


def has_wide_planes(image: Any) -> bool:
    """Whether an opened image is such a TIFF."""
    if image.format != "TIFF":
        return False
    bits, layout = image.tag_v2.get(BITS, ()), image.tag_v2.get(PLANAR)
    return bool(layout == IN_PLANES and set(bits) == {16} and all(codec == "raw" for codec, *_ in image.tile))


def name_wide_planes(image: Any) -> None:
    """Let Pillow unpack such a TIFF, which is opened and not loaded, as what it is. Raises ImageRefused."""
    if image.mode.startswith("I;16"):  # one plane
        image.tile = [tile._replace(args=(image.mode, *tile.args[1:])) for tile in image.tile]
        return
    if image.mode not in UNPACKED:
        raise ImageRefused(f"16 bits a channel of {image.mode} in planes; save it as RGB, or with 8 bits a channel")
    order = ORDERS[image.tag_v2.prefix]
    image.tile = [
        tile if ";16" in tile.args[0] else tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))
        for tile in image.tile
    ]
