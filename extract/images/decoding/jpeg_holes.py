"""Holes of zeros in the image data of a JPEG, as a bad disk or an interrupted copy leaves them.

The decoder finds most by itself, because what follows does not fit. The others are found by the Huffman tables: zero
bits are the first code of a table, again and again. Where that code ends a block, zeros are a plain area. Where it is
that of a coefficient, every coefficient of several blocks would have the same small negative value, which no picture
has.

Not looked for is a hole in the refining scans of a progressive JPEG, where zeros are plain areas too, in a scan with
nothing but DC coefficients, and in arithmetic coding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# 768 bits: with the usual tables, where the code of zeros has 3 bits a coefficient, four blocks of 64 coefficients.
HOLE = bytes(96)
OTHER_FRAMES = {0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
TABLES, SCAN, END = 0xC4, 0xDA, 0xD9
ALONE = {0x01, *range(0xD0, 0xD9)}
# What ends the data of a scan: a marker, but for restarts and 0xFF as a value.
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
AC, NO_END_OF_BLOCK = 0x10, 0xF0


class Segment(NamedTuple):
    """A marker with the content behind its length, and where that ends."""

    marker: int
    content: bytes
    end: int


def has_hole(data: bytes) -> bool:
    """Return whether the image data of a JPEG, whose bytes these are, has a run of zeros that no picture has."""
    if HOLE not in data:
        return False
    first_codes: dict[int, int] = {}
    for segment in segments(data):
        if segment.marker in OTHER_FRAMES:
            return False
        if segment.marker == TABLES:
            first_codes.update(_first_codes(segment.content))
        elif segment.marker == SCAN:
            ended = MARKER.search(data, segment.end)
            run = data.find(HOLE, segment.end, ended.start() if ended else len(data))
            if run >= 0 and _has_no_zeros(segment.content, first_codes):
                return True
    return False


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of a JPEG up to its end marker, as far as they are whole."""
    at = 0
    while (found := MARKER.search(data, at)) is not None:
        marker, at = data[found.start() + 1], found.end()
        if marker == END:
            return
        if marker in ALONE:
            continue
        size = int.from_bytes(data[at : at + 2], "big")
        yield Segment(marker, data[at + 2 : at + size], at + size)
        at += max(size, 2)


def _first_codes(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield class and number of each Huffman table, and the value of its code of zero bits."""
    at = 0
    while at + 17 < len(content):
        yield content[at], content[at + 17]
        at += 17 + sum(content[at + 1 : at + 17])


def _has_no_zeros(scan: bytes, first_codes: dict[int, int]) -> bool:
    """Return whether the code of zero bits is that of a coefficient in a component of a scan; scan: its header."""
    n = scan[0] if scan else 0
    if len(scan) != 4 + 2 * n:
        return False
    first, _, approximation = scan[1 + 2 * n :]
    is_refining, last = approximation >> 4, scan[2 + 2 * n]
    if is_refining or (first == 0 and last == 0):
        return False
    values = (first_codes.get(AC | (scan[2 + 2 * i] & 15)) for i in range(n))
    return any(value is not None and (value & 15 or value == NO_END_OF_BLOCK) for value in values)
