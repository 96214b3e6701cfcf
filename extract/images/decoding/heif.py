"""HEIC and HEIF, the pictures of many phones, by pillow-heif."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from featurecache.base.errors import ImageRefused

if TYPE_CHECKING:
    from PIL import ImageFile

# Brands at byte 8 of a file, after "ftyp"; those of AVIF are Pillow's. mif1 and msf1 may be of either codec.
HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}
EITHER_BRANDS, AVIF_BRANDS = {b"mif1", b"msf1", b"mif2", b"miaf"}, {b"avif", b"avis"}


def is_heif(head: bytes) -> bool:
    """Whether a file that begins like this is HEIC or HEIF, and not AVIF."""
    if head[4:8] != b"ftyp":
        return False
    brand = head[8:12]
    compatible = {head[i : i + 4] for i in range(16, min(len(head), int.from_bytes(head[:4], "big")) - 3, 4)}
    return brand in HEIC_BRANDS or (brand in EITHER_BRANDS and not compatible & AVIF_BRANDS)


def open_heif(file: BinaryIO) -> ImageFile.ImageFile:
    """Open a HEIC or HEIF file as Pillow opens others. Raises ImageRefused if pillow-heif is missing."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageRefused("HEIC, which needs the package pillow-heif: pip install 'featurecache[heif]'") from None
    opener: Any = pillow_heif.HeifImageFile
    opened: ImageFile.ImageFile = opener(file)
    return opened
