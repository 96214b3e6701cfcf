"""The orientation of an image, and turning its pixels upright: one reading for every decoder and format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

EXIF_ORIENTATION = 0x0112
UPRIGHT = 1
TURNED = range(2, 9)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, 1 to 8; from XMP where EXIF has none.

    It is Pillow's reading: EXIF may be in any APP1 segment of a JPEG, and the value may be stored as any number.
    Damaged metadata next to good pixels is ignored.
    """
    try:
        found = image.getexif().get(EXIF_ORIENTATION, UPRIGHT)
        return int(found) if found in TURNED else UPRIGHT
    except Exception:  # noqa: BLE001  (Pillow raises anything on damaged metadata)
        return UPRIGHT


def turned_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of pixels (H, W) or (H, W, channels) as an image of this orientation is shown."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
