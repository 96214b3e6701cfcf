"""Which images another revision of the decode rules reads otherwise, or did not refuse.

    1   the orientation of a JPEG that is decoded at full size was read from its first APP1 segment alone, as 16 bits;
        a JPEG that was cut and closed again, or has a hole, was filled with grey or garbage
    2   one reading of the orientation for all formats (orientation.py); damaged JPEGs are refused (jpeg.py)
    3   uncompressed TIFFs of 16 bits a channel in planes are no longer taken for 8 bits (tiff.py); JPEGs with a hole of
        zeros that the decoder does not notice are refused (jpeg_holes.py)
    4   damaged JPEGs with odd headers are refused too (jpeg.py)
    5   where large JPEGs are decoded at a fraction of their size, those with more pictures behind them (MPO) are too

All is judged by the header, but for damage, which shows in the image data only: a JPEG of a row of revision 1 is
decoded at an eighth of its size for that, the data of a later one is searched.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.spec import REDUCED
from featurecache.extract.images.decode_rules import DECODE_REVISION, FULL_REVISION
from featurecache.extract.images.decoding.jpeg import check_jpeg, has_odd_headers, read_jpeg, refuse_hole
from featurecache.extract.images.decoding.memory import DECODING
from featurecache.extract.images.decoding.orientation import EXIF_ORIENTATION, TURNED, UPRIGHT, orientation_of
from featurecache.extract.images.decoding.tiff import has_wide_planes

if TYPE_CHECKING:
    from PIL import Image

Found = TypeVar("Found")
START_OF_JPEG, STARTS_OF_TIFF = b"\xff\xd8", (b"II", b"MM")
APP1, START_OF_SCAN, ALONE = 0xE1, 0xDA, {0x01, *range(0xD0, 0xD9)}
EXIF_HEADER_BYTES = 6
TIFF_MARK = 42
# What holds the headers of nearly all JPEGs.
HEAD_BYTES = 1 << 16
# A directory of EXIF has a dozen entries; a damaged one may claim thousands.
MOST_ENTRIES = 1000


def last_revision(decode: str) -> int:
    """Return the last revision that concerns features whose images are decoded this way, `full` or `reduced`."""
    return DECODE_REVISION if decode == REDUCED else FULL_REVISION


def reads_otherwise(file: BinaryIO, since: int, until: int) -> bool:
    """Whether revision `until` of the rules may give other pixels of an open file than `since`. Raises OSError."""
    return (
        (since < 2 and _is_turned_otherwise(file))
        or (since < 3 and _has_wide_planes(file))
        or (since < 5 <= until and _is_mpo(file))
    )


def refusal_since(file: BinaryIO, since: int) -> str:
    """Return why the present rules refuse an open file that revision `since` read; empty if they do not.

    Raises OSError.
    """
    if since >= 4:
        return ""
    with DECODING.reservation() as reservation:
        if (size := _size_of_jpeg(file)) is None:
            return ""
        file.seek(0)
        is_odd = has_odd_headers(file.read(HEAD_BYTES))
        if since >= 3 and not is_odd:
            return ""
        check = check_jpeg if since < 2 or is_odd else refuse_hole
        reservation.reserve(size[0] * size[1])
        try:
            check(read_jpeg(file, *size))
        except ImageRefused as error:
            return str(error)
    return ""


def _has_wide_planes(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(2) in STARTS_OF_TIFF and _of_opened(file, "TIFF", has_wide_planes, otherwise=False)


def _is_mpo(file: BinaryIO) -> bool:
    file.seek(0)
    is_jpeg = file.read(len(START_OF_JPEG)) == START_OF_JPEG
    return is_jpeg and _of_opened(file, "JPEG", _has_more_pictures, otherwise=False)


def _has_more_pictures(image: Image.Image) -> bool:
    return image.format == "MPO"


def _is_turned_otherwise(file: BinaryIO) -> bool:
    file.seek(0)
    if file.read(len(START_OF_JPEG)) != START_OF_JPEG:
        return False
    before = _orientation_of_revision_1(_first_app1(file))
    return _of_opened(file, "JPEG", partial(_is_turned_since, before), otherwise=False)


def _is_turned_since(before: int, image: Image.Image) -> bool:
    now = orientation_of(image)
    # Pillow decoded these: others than JPEG, and those that are turned and have XMP.
    is_pillows = image.format != "JPEG" or ("xmp" in image.info and now != UPRIGHT)
    return not is_pillows and before != now


def _size_of_jpeg(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(0)
    if file.read(len(START_OF_JPEG)) != START_OF_JPEG:
        return None
    return _of_opened(file, "JPEG", _size_of, otherwise=None)


def _size_of(image: Image.Image) -> tuple[int, int] | None:
    return image.size


def _of_opened(file: BinaryIO, kind: str, read: Callable[[Image.Image], Found], *, otherwise: Found) -> Found:
    """Return what is read of an image of this format; `otherwise` where its header is damaged. Raises OSError."""
    from PIL import Image

    file.seek(0)
    try:
        with Image.open(file, formats=(kind,)) as image:
            return read(image)
    except OSError as error:
        if error.errno is not None:
            raise
    except Exception:  # noqa: BLE001  (Pillow raises anything on damaged files, which the decoder refuses)
        pass
    return otherwise


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
