"""Colours of 16 bits a channel: TIFFs in planes are read as what they are, and a range is for grey only."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from featurecache.base.errors import ImageRefused
from featurecache.extract.images.decode import decode_image
from featurecache.extract.images.decoding.revisions import reads_otherwise
from featurecache.extract.images.decoding.tiff import name_wide_planes

GREY, RGB, CMYK = 1, 2, 5
# Two rows of three pixels: the high bytes are tens, and the low bytes would be seen if they were taken for pixels.
HIGH = np.arange(24, dtype=np.uint16).reshape(4, 2, 3) * 10
WIDE = HIGH * 256 + 201


def tiff(planes: np.ndarray, photometric: int, *, order: str = "<", in_planes: bool = True) -> bytes:
    """An uncompressed TIFF of planes (n, H, W) of uint8 or uint16, one behind the other or interleaved."""
    n, height, width = planes.shape
    bits = 8 * planes.itemsize
    stored = planes if in_planes else np.moveaxis(planes, 0, -1)
    data = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    n_strips = n if in_planes else 1
    n_entries = 10
    behind = 8 + 2 + 12 * n_entries + 4
    more, entries = b"", b""
    start = behind + 64
    values = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * n), 259: (3, [1]), 262: (3, [photometric]),
        273: (4, [start + i * (len(data) // n_strips) for i in range(n_strips)]), 277: (3, [n]), 278: (4, [height]),
        279: (4, [len(data) // n_strips] * n_strips), 284: (3, [2 if in_planes else 1]),
    }  # fmt: skip
    for tag, (kind, numbers) in values.items():
        packed = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(packed) > 4:
            place, more = behind + len(more), more + packed
            packed = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HIH", 42, 8, n_entries) + entries + bytes(4) + more
    return head.ljust(start, b"\0") + data


@pytest.mark.parametrize("order", ["<", ">"])
def test_planes_of_16_bits_have_the_high_byte_of_every_channel(order):
    np.testing.assert_array_equal(decode_image(tiff(WIDE[:3], RGB, order=order)).numpy(), HIGH[:3])
    np.testing.assert_array_equal(decode_image(tiff(WIDE[:3], RGB, order=order, in_planes=False)).numpy(), HIGH[:3])
    opaque = np.concatenate([WIDE[:3], np.full((1, 2, 3), 65535, np.uint16)])
    np.testing.assert_array_equal(decode_image(tiff(opaque, RGB, order=order)).numpy(), HIGH[:3])


@pytest.mark.parametrize("order", ["<", ">"])
def test_planes_of_16_bits_that_are_named_already_stay(order):
    with Image.open(io.BytesIO(tiff(WIDE[:3], RGB, order=order))) as image:
        name_wide_planes(image)
        named = image.tile
        name_wide_planes(image)
        assert image.tile == named


@pytest.mark.parametrize("order", ["<", ">"])
def test_one_plane_of_16_bits_is_grey(order):
    pixels = decode_image(tiff(WIDE[:1], GREY, order=order)).numpy()
    np.testing.assert_array_equal(pixels, np.repeat(HIGH[:1], 3, axis=0))
    narrow = decode_image(tiff(WIDE[:1], GREY, order=order), levels="0:13055").numpy()
    np.testing.assert_array_equal(narrow[0], WIDE[0].astype(int) * 256 // 13056)


def test_planes_that_pillow_cannot_unpack_are_refused():
    with pytest.raises(ImageRefused, match="16 bits a channel of CMYK in planes; save it as RGB"):
        decode_image(tiff(WIDE, CMYK))


def test_planes_of_8_bits_are_read_as_before():
    narrow = (WIDE[:3] & 255).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(tiff(narrow, RGB)).numpy(), narrow)


def test_only_rows_of_wide_planes_are_computed_again():
    def judged(data: bytes, since: int) -> bool:
        return reads_otherwise(io.BytesIO(data), since, 4)

    wide = tiff(WIDE[:3], RGB, order=">")
    assert judged(wide, 1)
    assert judged(wide, 2)
    assert not judged(wide, 3)
    assert not judged(tiff(WIDE[:3], RGB, in_planes=False), 1)
    assert not judged(tiff((WIDE[:3] & 255).astype(np.uint8), RGB), 1)
    assert not judged(wide[:40], 1)


def wide_png(kind: int, values: np.ndarray) -> bytes:
    """A PNG of one row of 16 bits a channel. kind: 2 RGB, 4 grey and alpha, 6 RGB and alpha."""
    header = struct.pack(">IIBBBBB", len(values), 1, 16, kind, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + values.astype(">u2").tobytes())), (b"IEND", b"")
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# Two pixels, the high and low bytes of whose channels are 1 and 200, 2 and 201, and so on.
WIDE_COLOURS = np.array([[1 * 256 + 200, 2 * 256 + 201, 3 * 256 + 202], [4 * 256 + 203, 5 * 256 + 204, 6 * 256 + 205]])
OPAQUE = np.array([[65535], [65535]])
SGI_HEADER = struct.pack(">HBBHHHHII", 474, 0, 2, 3, 2, 1, 3, 0, 65535).ljust(512, b"\0")
WIDE_FILES = {
    "PNG RGB": wide_png(2, WIDE_COLOURS),
    "PNG RGBA": wide_png(6, np.hstack([WIDE_COLOURS, OPAQUE])),
    "TIFF": tiff(WIDE_COLOURS.T.reshape(3, 1, 2).astype(np.uint16), 2, in_planes=False),
    "TIFF planes": tiff(WIDE_COLOURS.T.reshape(3, 1, 2).astype(np.uint16), 2, order=">"),
    "SGI": SGI_HEADER + WIDE_COLOURS.T.astype(">u2").tobytes(),
}
ROUNDED = {
    "PPM": b"P6 2 1 65535\n" + WIDE_COLOURS.astype(">u2").tobytes(),
    "PPM in text": b"P3 2 1 65535\n" + b" ".join(b"%d" % value for value in WIDE_COLOURS.ravel()),
}


@pytest.mark.parametrize("kind", WIDE_FILES | ROUNDED)
def test_colours_of_16_bits_are_read_by_the_high_byte_and_refused_with_a_range(kind):
    data = (WIDE_FILES | ROUNDED)[kind]
    pixels = decode_image(data).numpy()[:, 0].T.astype(int)
    assert (pixels - [[1, 2, 3], [4, 5, 6]]).tolist() == [[kind in ROUNDED] * 3] * 2
    for levels in ("0:4095", "image"):
        with pytest.raises(ImageRefused, match="16 bits a channel in colour or with transparency, of which --range"):
            decode_image(data, levels=levels)


def test_other_files_of_16_bits_are_refused_with_a_range_too():
    with pytest.raises(ImageRefused, match="leave --range out"):
        decode_image(wide_png(4, np.array([[999, 65535]])), levels="0:4095")
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "JPEG2000")
    jpeg2000 = bytearray(file.getvalue())
    place = jpeg2000.index(b"\xff\x4f\xff\x51") + 42
    jpeg2000[place : place + 9 : 3] = bytes([15] * 3)  # 16 bits, less one
    with pytest.raises(ImageRefused, match="leave --range out"):
        decode_image(bytes(jpeg2000), levels="0:4095")
