"""A plain JPEG is read without Pillow to the same pixels; any other file is left to Pillow, with the same refusal."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image

from featurecache.base.errors import ImageRefused
from featurecache.extract.images import decode
from featurecache.extract.images.decode import decode_image
from featurecache.extract.images.decoding import plain_jpeg
from featurecache.extract.images.decoding.plain_jpeg import RecentHeaders, read_header

WIDTH, HEIGHT = 24, 16
N_MUTATIONS = 600


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def behind_start(*segments: bytes, data: bytes | None = None) -> bytes:
    data = data or jpeg()
    return data[:2] + b"".join(segments) + data[2:]


def exif(*entries: tuple[int, int, int, int], order: str = "<", more: bytes = bytes(16)) -> bytes:
    """EXIF with entries (tag, type, count, value or offset)."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}IH", 8, len(entries)) + b"".join(
        struct.pack(f"{order}HHI", *each[:3])
        + (struct.pack(f"{order}HH", each[3], 0) if each[1] == 3 else struct.pack(f"{order}I", each[3]))
        for each in entries
    )
    return segment(0xE1, b"Exif\0\0" + start + directory + bytes(4) + more)


def xmp(text: bytes) -> bytes:
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text)


def twelve_bits(data: bytes) -> bytes:
    at = data.index(b"\xff\xc0") + 4
    return data[:at] + b"\x0c" + data[at + 1 :]


TURN, UNIT, DENSITY = (0x0112, 3, 1, 6), (0x0128, 3, 1, 2), (0x011A, 5, 1, 10)
PLAIN = {
    "baseline": jpeg(),
    "grey": jpeg("L"),
    "progressive": jpeg(progressive=True),
    "4:4:4": jpeg(subsampling=0),
    "RGB inside": jpeg(keep_rgb=True),
    "restarts": jpeg(restart_marker_blocks=1),
    "colour profile": jpeg(icc_profile=bytes(range(256)) * 2),
    "comment": jpeg(comment=b"a comment"),
    "tables in one segment": jpeg(optimize=True),
    "turned": behind_start(exif(TURN)),
    "turned, the other byte order": behind_start(exif(TURN, order=">")),
    "turned, with a resolution": behind_start(exif(TURN, DENSITY, UNIT)),
    "EXIF without a turn": behind_start(exif(DENSITY, UNIT)),
    "a turn that is none": behind_start(exif((0x0112, 3, 1, 9))),
    "XMP without a turn": behind_start(xmp(b"<x:xmpmeta/>")),
    "another picture behind it": jpeg() + jpeg("L"),
}
OTHERS = {
    "CMYK": jpeg("CMYK"),
    "12 bits": twelve_bits(jpeg()),
    "a turn in XMP": behind_start(xmp(b'tiff:Orientation="6"')),
    "a turn as a number of 32 bits": behind_start(exif((0x0112, 4, 1, 6))),
    "two turns": behind_start(exif(TURN, (0x0112, 3, 1, 8))),
    "EXIF in two segments": behind_start(exif(TURN), exif(UNIT)),
    "a value outside EXIF": behind_start(exif((0x011A, 5, 1, 9999), TURN)),
    "a resolution that is text": behind_start(exif((0x011A, 2, 1, 65), UNIT), data=jpeg()[:2] + jpeg()[20:]),
    "more entries than there are": behind_start(exif(TURN).replace(struct.pack("<IH", 8, 1), struct.pack("<IH", 8, 9))),
    "two frames": behind_start(segment(0xC0, b"\x08\0\x08\0\x08\x01\x01\x11\0")),
    "Photoshop": behind_start(segment(0xED, b"Photoshop 3.0\x008BIM\x04")),
    "a short profile": behind_start(segment(0xE2, b"ICC_PROFILE\0\x01")),
    "a short segment of Adobe": behind_start(segment(0xEE, b"Adobe")),
    "bytes between segments": jpeg()[:20] + b"\0\0" + jpeg()[20:],
    "fill bytes": jpeg()[:20] + b"\xff\xff" + jpeg()[20:],
    "cut in the header": jpeg()[:100],
    "no image data": jpeg()[: jpeg().index(b"\xff\xda")],
    "a table that is cut": behind_start(segment(0xDB, bytes(64))),
    "an image of zero rows": jpeg().replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 0, WIDTH), 1),
}


def found(data: bytes, monkeypatch: pytest.MonkeyPatch, *, by_pillow: bool, max_pixels: int = 10**6) -> bytes | str:
    """The pixels of an image, with its shape, or why it is refused."""
    with monkeypatch.context() as patched:
        if by_pillow:
            patched.setattr(decode, "read_header", lambda _: None)
        try:
            pixels = decode_image(data, max_pixels=max_pixels)
        except ImageRefused as error:
            return str(error)
    return bytes(pixels.shape) + pixels.numpy().tobytes()


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_jpeg_has_the_pixels_that_it_has_by_pillow(kind, monkeypatch):
    data = PLAIN[kind]
    assert read_header(data) is not None
    expected = found(data, monkeypatch, by_pillow=True)
    assert isinstance(expected, bytes)
    monkeypatch.setattr(decode, "_open", None)  # Pillow is not asked
    assert found(data, monkeypatch, by_pillow=False) == expected


@pytest.mark.parametrize("kind", OTHERS)
def test_a_jpeg_with_anything_unusual_is_left_to_pillow(kind, monkeypatch):
    data = OTHERS[kind]
    assert read_header(data) is None
    assert found(data, monkeypatch, by_pillow=False) == found(data, monkeypatch, by_pillow=True)


def damaged() -> dict[str, bytes]:
    whole = jpeg(quality=95)
    at = whole.index(b"\xff\xda") + 14
    return {
        "cut": whole[: len(whole) * 3 // 4],
        "cut and closed": whole[: len(whole) * 3 // 4] + b"\xff\xd9",
        "a hole": whole[:at] + bytes(200) + whole[at + 200 :],
        "no end": whole[:-2],
        "nothing behind the header": whole[:at],
    }


@pytest.mark.parametrize("kind", damaged())
def test_damage_behind_a_plain_header_is_refused_in_the_same_words(kind, monkeypatch):
    data = damaged()[kind]
    assert read_header(data) is not None
    assert found(data, monkeypatch, by_pillow=False) == found(data, monkeypatch, by_pillow=True)


def test_a_plain_jpeg_above_the_limit_is_refused_with_its_size(monkeypatch):
    few = WIDTH * HEIGHT - 1
    reason = found(jpeg(), monkeypatch, by_pillow=False, max_pixels=few)
    assert reason == f"{WIDTH} x {HEIGHT} pixels are more than the limit of {few} (see --max-pixels)"
    assert found(jpeg(), monkeypatch, by_pillow=True, max_pixels=few) == reason


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Another byte, a byte more, or some fewer, mostly in the header."""
    at = rng.randrange(2, min(len(data), 700))
    kind = rng.randrange(4)
    if kind == 0:
        return data[:at] + data[at + rng.randrange(1, 9) :]
    if kind == 1:
        return data[:at] + bytes([rng.choice([0, 1, 255, rng.randrange(256)])]) + data[at:]
    changed = bytearray(data)
    for _ in range(kind - 1):
        changed[rng.randrange(2, min(len(data), 700))] = rng.choice([0, 1, 2, 255, rng.randrange(256)])
    return bytes(changed)


def test_no_mutation_of_a_header_is_read_otherwise_than_by_pillow(monkeypatch):
    rng = random.Random(0)
    files = [*PLAIN.values(), *OTHERS.values()]
    for _ in range(N_MUTATIONS):
        data = mutated(rng.choice(files), rng)
        if read_header(data) is not None:
            assert found(data, monkeypatch, by_pillow=False) == found(data, monkeypatch, by_pillow=True), data.hex()


def test_recent_headers_are_those_of_the_bytes():
    """Also of mutations right after the file that they were made from, whose header is kept."""
    recent, rng = RecentHeaders(), random.Random(1)
    for data in [*PLAIN.values(), *OTHERS.values()]:
        for each in [data, *(mutated(data, rng) for _ in range(40)), data, data[:140], data[:20]]:
            assert recent.of(each) == read_header(each), each.hex()
    assert len(recent._recent) == plain_jpeg.N_RECENT
