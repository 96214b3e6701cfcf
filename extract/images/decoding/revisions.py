"""Which images another revision of the decode rules reads otherwise, judged by the header of their file.

    1   the orientation of a JPEG that is decoded at full size was read from its first APP1 segment alone, as 16 bits
    2   one reading of the orientation for all formats (orientation.py)

A rule that refuses more images is no revision: the features of an image that was accepted stay.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from featurecache.extract.images.decoding.orientation import EXIF_ORIENTATION, TURNED, UPRIGHT, orientation_of
from featurecache.extract.images.sources import open_sample

APP1, START_OF_SCAN, ALONE = 0xE1, 0xDA, {0x01, *range(0xD0, 0xD9)}
EXIF_HEADER_BYTES = 6
TIFF_MARK = 42
# A directory of EXIF has a dozen entries; a damaged one may claim thousands.
MOST_ENTRIES = 1000


def reads_otherwise(path: str | os.PathLike[str], since: int) -> bool:
    """Whether the present rules give other pixels of a file than revision `since`. Raises OSError."""
    if since >= 2:
        return False
    with open_sample(path) as file:
        return _is_turned_otherwise(file)


def _is_turned_otherwise(file: BinaryIO) -> bool:
    from PIL import Image, UnidentifiedImageError

    if file.read(2) != b"\xff\xd8":
        return False
    before = _orientation_of_revision_1(_first_app1(file))
    file.seek(0)
    try:
        with Image.open(file) as image:
            now = orientation_of(image)
            # Pillow decoded these: others than JPEG, and those that are turned and have XMP.
            is_pillows = image.format != "JPEG" or ("xmp" in image.info and now != UPRIGHT)
    except UnidentifiedImageError:
        return False
    except OSError:
        raise
    except Exception:  # noqa: BLE001  (Pillow raises anything on damaged files, which the decoder refuses)
        return False
    return not is_pillows and before != now


def _first_app1(file: BinaryIO) -> bytes:
    """Return the content of the first APP1 segment of a JPEG whose first two bytes were read; empty without one."""
    while True:
        byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if not byte or byte[0] == START_OF_SCAN:
            return b""
        if byte[0] in ALONE:
            continue
        size = file.read(2)
        if len(size) < 2:
            return b""
        n = int.from_bytes(size, "big") - 2
        if byte[0] == APP1:
            return file.read(max(0, n))
        file.seek(max(0, n), os.SEEK_CUR)


def _orientation_of_revision_1(segment: bytes) -> int:
    tiff = segment[EXIF_HEADER_BYTES:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return UPRIGHT
    try:
        mark, at = struct.unpack_from(f"{order}HI", tiff, 2)
        if mark != TIFF_MARK:
            return UPRIGHT
        (n,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * min(n, MOST_ENTRIES), 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == EXIF_ORIENTATION:
                return value if value in TURNED else UPRIGHT
    except struct.error:
        return UPRIGHT
    return UPRIGHT
