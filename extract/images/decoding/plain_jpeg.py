"""The header of a plain JPEG, read without Pillow: its size, its colours and its EXIF orientation.

Plain is a file of which every part up to the image data is as cameras and programs usually write it: 8 bits, grey or
three colours, baseline or progressive, whole segments one after another, and either no EXIF or one whose entries are
all within it. Pillow reads the same from such a header, and refuses none. All else (CMYK, several pictures in a file,
Photoshop's segments, an orientation in XMP, anything odd) is None: Pillow then decides whether and how it is read.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.decoding.dicom import is_dicom
from featurecache.extract.images.decoding.heif import is_heif
from featurecache.extract.images.decoding.orientation import EXIF_ORIENTATION, TURNED, UPRIGHT

START, FIRST_SEGMENT = b"\xff\xd8\xff", 2
MARKER, SCAN, QUANTISATION = 0xFF, 0xDA, 0xDB
FRAMES = {0xC0, 0xC1, 0xC2}
JFIF, EXIF_OR_XMP, PROFILE, ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
# Huffman tables, restart interval, comment, and segments of programs in which Pillow looks for nothing.
PASSED_OVER = {0xC4, 0xDD, 0xFE, *range(0xE3, 0xED), 0xEF}
# A table of 64 numbers of 8 bits, behind its number.
TABLE_BYTES, BYTE_TABLES = 65, 16
ORIENTATION_IN_XMP = b"Orientation"
EXIF = b"Exif\0\0"
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# Bytes of a value of each EXIF type.
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8}
SHORT, RATIONAL = 3, 5
# Entries that Pillow uses when it opens a file, and the type in which they are usual.
USED = {EXIF_ORIENTATION: SHORT, 0x011A: RATIONAL, 0x0128: SHORT}
# Headers that are kept, and the bytes of one: at least what decides that a file is of no other format.
N_RECENT, LEAST_OF_HEAD, MOST_OF_HEAD = 4, 132, 4096


class Header(NamedTuple):
    """What a decoder has to know of a JPEG before its image data: stored size in pixels, and EXIF orientation."""

    height: int
    width: int
    is_grey: bool
    orientation: int


NO_HEADER: tuple[None, int] = (None, 0)


class RecentHeaders:
    """The headers of the last few plain JPEGs by their bytes: those of one program and size often have the same."""

    def __init__(self) -> None:
        self._recent: list[tuple[bytes, Header]] = []

    def of(self, data: bytes) -> Header | None:
        """Return `read_header(data)`."""
        for head, header in self._recent:
            if data.startswith(head):
                return header
        found, end = _read_header(data)
        if found is not None and LEAST_OF_HEAD <= end <= MOST_OF_HEAD:
            self._recent = [(data[:end], found), *self._recent[: N_RECENT - 1]]
        return found


def read_header(data: bytes) -> Header | None:
    """Return the header of a plain JPEG, whose bytes these are; None for any other file."""
    return _read_header(data)[0]


def _read_header(data: bytes) -> tuple[Header | None, int]:
    """Return the header, and where it ends: it follows from the bytes before, if these are not fewer than 132."""
    if not data.startswith(START) or is_dicom(data[:132]) or is_heif(data[:132]):
        return NO_HEADER
    at, n = FIRST_SEGMENT, len(data)
    frame: tuple[int, int, bool] | None = None
    orientation: int | None = None
    while at + 4 <= n:
        mark, marker = data[at], data[at + 1]
        size = data[at + 2] << 8 | data[at + 3]
        start, at = at + 4, at + 2 + size
        if mark != MARKER or size < 2 or at > n:
            return NO_HEADER
        if marker == SCAN:
            return NO_HEADER if frame is None else (Header(*frame, orientation or UPRIGHT), at)
        if marker in FRAMES:
            if frame is not None or (frame := _frame(data[start:at])) is None:
                return NO_HEADER
        elif marker == QUANTISATION:
            if not _are_byte_tables(data, start, at):
                return NO_HEADER
        elif marker == EXIF_OR_XMP:
            segment = data[start:at]
            if segment.startswith(EXIF):
                if orientation is not None or (orientation := _orientation(segment[len(EXIF) :])) is None:
                    return NO_HEADER
            elif segment.startswith(b"Exif") or ORIENTATION_IN_XMP in segment:
                return NO_HEADER
        elif marker not in PASSED_OVER and not _is_usual(marker, data[start:at]):
            return NO_HEADER
    return NO_HEADER


def _frame(segment: bytes) -> tuple[int, int, bool] | None:
    """Return height, width, and whether it is grey."""
    if len(segment) < 6:
        return None
    bits, height, width, n_colours = struct.unpack_from(">BHHB", segment)
    is_plain = bits == 8 and n_colours in (1, 3) and len(segment) == 6 + 3 * n_colours
    return (height, width, n_colours == 1) if is_plain and 0 < height * width <= MAX_PIXELS else None


def _are_byte_tables(data: bytes, start: int, end: int) -> bool:
    return (end - start) % TABLE_BYTES == 0 and all(data[at] < BYTE_TABLES for at in range(start, end, TABLE_BYTES))


def _is_usual(marker: int, segment: bytes) -> bool:
    """Whether a segment of JFIF, a colour profile or Adobe is as long as Pillow expects, or is no such segment."""
    if marker == JFIF:
        return not segment.startswith(b"JFIF") or len(segment) >= 12
    if marker == PROFILE:
        is_short = segment.startswith(b"ICC_PROFILE\0") and len(segment) < 14
        return not is_short and not segment.startswith(b"MPF\0")
    return marker == ADOBE and (not segment.startswith(b"Adobe") or len(segment) >= 12)


def _orientation(tiff: bytes) -> int | None:
    """Return the orientation in an EXIF directory that is whole, upright where it has none; None for any other."""
    order = BYTE_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return None
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    if first + 2 > len(tiff):
        return None
    (n,) = struct.unpack_from(f"{order}H", tiff, first)
    if first + 2 + 12 * n + 4 > len(tiff):
        return None
    found: dict[int, int] = {}
    n_bytes = 0
    for tag, kind, count, place in struct.iter_unpack(f"{order}HHII", tiff[first + 2 : first + 2 + 12 * n]):
        size = TYPE_BYTES.get(kind, 0) * count
        is_used_oddly = tag in USED and (USED[tag] != kind or count != 1)
        n_bytes += size if size > 4 else 0
        if not size or tag in found or is_used_oddly or (size > 4 and place + size > len(tiff)) or n_bytes > len(tiff):
            return None
        found[tag] = place
    if EXIF_ORIENTATION not in found:
        return UPRIGHT
    # A value of two bytes is in the first half of the four.
    value = found[EXIF_ORIENTATION] & 0xFFFF if order == "<" else found[EXIF_ORIENTATION] >> 16
    return value if value in TURNED else UPRIGHT
