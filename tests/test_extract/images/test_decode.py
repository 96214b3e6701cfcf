"""Every kind of image becomes the pixels that Pillow shows, or is refused with a reason."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, features
from prepared import run_program

from featurecache.base.errors import ImageRefused
from featurecache.extract.images import decode
from featurecache.extract.images.decode import MAX_PIXELS, decode_image
from featurecache.extract.images.decoding.orientation import EXIF_ORIENTATION
from featurecache.extract.images.decoding.revisions import last_revision, reads_otherwise

HEIGHT, WIDTH = 11, 13  # odd, so that bits do not fill bytes and Adam7 passes have ragged edges
RANDOM = np.random.default_rng(7)
COLOURS = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
SMOOTH = np.stack([np.add.outer(5 * np.arange(HEIGHT), 7 * np.arange(WIDTH)) + 30 * c for c in range(3)], axis=-1)
SMOOTH = SMOOTH.astype(np.uint8)
ALPHA = RANDOM.choice(np.array([0, 1, 128, 254, 255], dtype=np.uint8), (HEIGHT, WIDTH, 1))
WIDE = RANDOM.integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
PALETTE = RANDOM.integers(0, 256, (256, 3), dtype=np.uint8)
GREY, RGB, INDEXED, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, INDEXED: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), INDEXED: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
PNG_KINDS = [(colour, depth) for colour, depths in DEPTHS.items() for depth in depths]
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def decoded(data: bytes) -> np.ndarray:
    """The pixels (H, W, 3), after the promises that hold for every image have been checked."""
    pixels = decode_image(data)
    assert pixels.dtype == torch.uint8
    assert pixels.ndim == 3
    assert pixels.shape[0] == 3
    return pixels.permute(1, 2, 0).numpy()


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(ImageRefused) as refused:
        decode_image(data, **options)
    text = str(refused.value)
    assert text
    assert "\n" not in text
    return text


def pillow_reading(data: bytes) -> np.ndarray:
    """The first frame as Pillow shows it: upright, and over white where it is transparent."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            layer = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return np.asarray(upright.convert("RGB"))


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(np.float64) / 255
    return np.round(colours * share + 255 * (1 - share))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(samples: np.ndarray, depth: int) -> bytes:
    """The rows of one PNG pass, unfiltered: samples (h, w, channels)."""
    rows = samples.reshape(len(samples), -1)
    if depth == 16:
        rows = rows.astype(">u2").view(np.uint8).reshape(len(rows), -1)
    elif depth < 8:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(len(rows), -1), axis=-1)
    return b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in rows)


def png(samples: np.ndarray, depth: int, colour: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A PNG file of samples (H, W, channels), written here because Pillow writes few of the kinds that there are."""
    height, width = samples.shape[:2]
    passes = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    raw = b"".join(packed(part, depth) for part in passes if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = chunk(b"PLTE", PALETTE[: 1 << min(depth, 8)].tobytes()) if colour == INDEXED else b""
    body = chunk(b"IHDR", header) + palette + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def samples_of(colour: int, depth: int) -> np.ndarray:
    return RANDOM.integers(0, 1 << depth, (HEIGHT, WIDTH, CHANNELS[colour]))


def shown(samples: np.ndarray, depth: int, colour: int) -> np.ndarray:
    """What those samples look like, from the PNG specification and not from a decoder."""
    if colour == INDEXED:
        return PALETTE[samples[..., 0]]
    eight_bit = samples >> 8 if depth == 16 else samples * (255 // ((1 << depth) - 1))
    if colour in (GREY_ALPHA, RGBA):
        eight_bit = over_white(eight_bit[..., :-1], eight_bit[..., -1:])
    return np.broadcast_to(eight_bit, (*samples.shape[:2], 3))


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize(("colour", "depth"), PNG_KINDS)
def test_every_png_colour_type_and_depth_shows_its_colours(colour, depth, interlaced):
    samples = samples_of(colour, depth)
    difference = decoded(png(samples, depth, colour, interlaced=interlaced)) - shown(samples, depth, colour)
    assert np.abs(difference).max() <= (1 if colour in (GREY_ALPHA, RGBA) else 0)


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize("depth", DEPTHS[GREY])
def test_the_transparent_grey_of_a_png_becomes_white(depth, interlaced):
    samples = samples_of(GREY, depth)
    transparent = int(samples[0, 0, 0])
    data = png(samples, depth, GREY, interlaced=interlaced, extra=chunk(b"tRNS", struct.pack(">H", transparent)))
    expected = np.where(samples == transparent, 255, shown(samples, depth, GREY))
    np.testing.assert_array_equal(decoded(data), expected)


def test_the_transparent_colour_of_a_png_becomes_white():
    samples = samples_of(RGB, 8)
    samples[3:5] = (17, 0, 200)
    data = png(samples, 8, RGB, extra=chunk(b"tRNS", struct.pack(">3H", 17, 0, 200)))
    samples[3:5] = 255
    np.testing.assert_array_equal(decoded(data), samples)


@pytest.mark.parametrize("depth", DEPTHS[INDEXED])
def test_transparent_palette_entries_of_a_png_are_laid_over_white(depth):
    samples = samples_of(INDEXED, depth)
    alphas = np.full(256, 255)
    alphas[:2] = (0, 100)
    data = png(samples, depth, INDEXED, extra=chunk(b"tRNS", bytes([0, 100])))
    expected = over_white(PALETTE[samples[..., 0]], alphas[samples])
    assert np.abs(decoded(data) - expected).max() <= 1


def animated(file_format: str, **options: object) -> bytes:
    frames = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS), Image.fromarray(COLOURS[::-1].copy())]
    return saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)


def with_alpha() -> Image.Image:
    return Image.fromarray(np.concatenate([COLOURS, ALPHA], axis=-1))


def tiff_16_bit_rgb() -> bytes:
    """Pillow writes none: a little-endian baseline TIFF of one strip."""
    pixels = WIDE.astype("<u2").tobytes()
    entries = [
        (256, 3, 1, WIDTH),
        (257, 3, 1, HEIGHT),
        (258, 3, 3, 8 + len(pixels)),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 3, 1, HEIGHT),
        (279, 4, 1, len(pixels)),
        (284, 3, 1, 1),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries) + b"\0\0\0\0"
    bits = struct.pack("<3H", 16, 16, 16)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels) + len(bits)) + pixels + bits + directory


def lossless_kinds() -> dict[str, bytes]:
    colours, grey = Image.fromarray(COLOURS), Image.fromarray(COLOURS[..., 0])
    bilevel = Image.fromarray(COLOURS[..., 0] > 127)
    indexed = colours.quantize(16)
    kinds = {
        "png written by pillow": saved(colours, "PNG"),
        "apng": animated("PNG"),
        "apng whose still is not in the animation": animated("PNG", default_image=True),
        "gif": saved(indexed, "GIF"),
        "gif transparent": saved(indexed, "GIF", transparency=3),
        "gif animated": animated("GIF"),
        "gif grey": saved(grey, "GIF"),
        "webp lossless": saved(colours, "WEBP", lossless=True),
        "webp alpha": saved(with_alpha(), "WEBP", lossless=True, exact=True),
        "webp animated": animated("WEBP", lossless=True),
        "tiff bilevel": saved(bilevel, "TIFF"),
        "tiff bilevel fax": saved(bilevel, "TIFF", compression="group4"),
        "tiff grey": saved(grey, "TIFF"),
        "tiff palette": saved(indexed, "TIFF"),
        "tiff": saved(colours, "TIFF"),
        "tiff lzw": saved(colours, "TIFF", compression="tiff_lzw"),
        "tiff deflate": saved(colours, "TIFF", compression="tiff_adobe_deflate"),
        "tiff cmyk": saved(colours.convert("CMYK"), "TIFF"),
        "tiff alpha": saved(with_alpha(), "TIFF"),
        "tiff pages": animated("TIFF"),
        "bmp": saved(colours, "BMP"),
        "bmp grey": saved(grey, "BMP"),
        "bmp bilevel": saved(bilevel, "BMP"),
        "bmp palette": saved(indexed, "BMP"),
        "dib": saved(colours, "DIB"),
        "tga": saved(colours, "TGA"),
        "tga alpha": saved(with_alpha(), "TGA"),
        "tga run-length": saved(colours, "TGA", compression="tga_rle"),
        "ppm": saved(colours, "PPM"),
        "pgm": saved(grey, "PPM"),
        "pbm": saved(bilevel, "PPM"),
        "ppm in words": b"P3 2 1 255 1 2 3 250 251 252",
        "pcx": saved(colours, "PCX"),
        "sgi": saved(colours, "SGI"),
        "dds": saved(with_alpha(), "DDS"),
        "ico": saved(with_alpha().resize((32, 32), Image.Resampling.NEAREST), "ICO", sizes=[(32, 32)]),
        "icns": saved(with_alpha().resize((32, 32), Image.Resampling.NEAREST), "ICNS"),
        "xbm": saved(bilevel, "XBM"),
        "msp": saved(bilevel, "MSP"),
        "qoi": saved(with_alpha(), "QOI"),
        "one pixel": saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"),
        "one row": saved(Image.fromarray(COLOURS[:1].repeat(50, axis=1)), "PNG"),
        "one column of ten thousand": saved(Image.new("RGB", (1, 10_000), (9, 8, 7)), "PNG"),
    }
    if features.check("jpg_2000"):
        kinds["jp2"] = saved(colours, "JPEG2000")
        kinds["jp2 alpha"] = saved(with_alpha(), "JPEG2000")
    if features.check("avif"):
        kinds["avif"] = saved(colours, "AVIF")
        kinds["avif alpha"] = saved(with_alpha(), "AVIF")
    return kinds


LOSSLESS = lossless_kinds()
RETURNS_WHAT_WENT_IN = {
    "png written by pillow",
    "apng",
    "webp lossless",
    "webp animated",
    "tiff",
    "tiff lzw",
    "tiff pages",
}
RETURNS_WHAT_WENT_IN |= {"bmp", "tga", "tga run-length", "ppm", "sgi", "jp2"}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_what_pillow_reads_comes_out_exactly(kind):
    np.testing.assert_array_equal(decoded(LOSSLESS[kind]), pillow_reading(LOSSLESS[kind]))


@pytest.mark.parametrize("kind", sorted(LOSSLESS.keys() & RETURNS_WHAT_WENT_IN))
def test_lossless_formats_return_the_pixels_that_went_in(kind):
    np.testing.assert_array_equal(decoded(LOSSLESS[kind]), COLOURS)


def jpeg_kinds() -> dict[str, bytes]:
    smooth = Image.fromarray(SMOOTH)
    return {
        "grey": saved(smooth.convert("L"), "JPEG"),
        "rgb": saved(smooth, "JPEG", quality=95),
        "subsampled": saved(smooth, "JPEG", subsampling=2),
        "full colour": saved(smooth, "JPEG", subsampling=0),
        "progressive": saved(smooth, "JPEG", progressive=True),
        "cmyk": saved(smooth.convert("CMYK"), "JPEG"),
        "stored as rgb": saved(smooth, "JPEG", keep_rgb=True),
        "two pictures": saved(smooth, "MPO", save_all=True, append_images=[ImageOps.invert(smooth)]),
        "one pixel": saved(Image.new("RGB", (1, 1), (200, 100, 50)), "JPEG"),
        "long": saved(Image.fromarray(SMOOTH).resize((3000, 2)), "JPEG"),
        "in a tiff": saved(smooth, "TIFF", compression="jpeg"),
        "webp": saved(smooth, "WEBP", quality=80),
    }


JPEGS = jpeg_kinds()


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_is_read_as_pillow_reads_it(kind):
    difference = decoded(JPEGS[kind]).astype(int) - pillow_reading(JPEGS[kind])
    assert np.abs(difference).max() <= 2


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "MPO"])
def test_every_exif_orientation_is_turned_upright(file_format, orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    lossless = {"lossless": True} if file_format == "WEBP" else {"quality": 95, "subsampling": 0}
    data = saved(Image.fromarray(SMOOTH), file_format, exif=exif, **(lossless if file_format != "TIFF" else {}))
    pixels = decoded(data).astype(int)
    expected = UPRIGHT[orientation](SMOOTH)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= (12 if file_format in {"JPEG", "MPO"} else 0)


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def turned_otherwise() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    profile = b"Exif\0\0" + exif.tobytes()[6:]
    text, xmp = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(profile):8}\n{profile.hex()}\n")
    xmp.add_itxt("XML:com.adobe.xmp", XMP.decode())
    image = Image.fromarray(SMOOTH)
    return {
        "jpeg": saved(image, "JPEG", quality=95, subsampling=0, xmp=XMP),
        "png xmp": saved(image, "PNG", pnginfo=xmp),
        "png text": saved(image, "PNG", pnginfo=text),
    }


@pytest.mark.parametrize("kind", turned_otherwise())
def test_an_orientation_outside_the_exif_block_counts_as_it_does_for_pillow(kind):
    data = turned_otherwise()[kind]
    pixels = decoded(data)
    assert pixels.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(pixels.astype(int) - UPRIGHT[6](SMOOTH)).max() <= 12
    assert np.abs(pixels.astype(int) - pillow_reading(data)).max() <= 2


def test_damaged_exif_beside_good_pixels_is_ignored():
    data = saved(Image.fromarray(SMOOTH), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decoded(data).shape == SMOOTH.shape


# Reduced: a JPEG at a fraction of its size, for who asks for it


def photo(width: int, height: int) -> Image.Image:
    """Smooth shapes and some texture, as cameras see them."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = [np.sin(9 * x + 4 * y), np.cos(7 * y), np.sin(5 * x * y)]
    noise = np.random.default_rng(0).normal(0, 0.05, (height, width, 3))
    return Image.fromarray(np.uint8((np.stack(waves, 2) / 2.5 + 0.5 + noise).clip(0, 1) * 255))


@pytest.mark.parametrize(
    ("size", "at_least", "found"),
    [
        ((800, 600), 300, (400, 300)),
        ((800, 600), 301, (800, 600)),
        ((1600, 600), 75, (200, 75)),
        ((600, 1600), 150, (150, 400)),
        ((803, 601), 100, (201, 151)),
        ((90, 70), 256, (90, 70)),
        ((2000, 1600), 10, (250, 200)),
    ],
)
def test_a_jpeg_is_reduced_as_far_as_its_shortest_side_allows(size, at_least, found):
    pixels = decode_image(saved(photo(*size), "JPEG"), at_least=at_least)
    assert (pixels.shape[2], pixels.shape[1]) == found


def test_reduced_pixels_are_near_those_of_the_whole_made_smaller():
    data = saved(photo(1600, 1200), "JPEG", quality=95)
    reduced = decode_image(data, at_least=300).permute(1, 2, 0).numpy().astype(float)
    whole = Image.fromarray(decoded(data)).resize((400, 300), Image.Resampling.BOX)
    assert np.abs(reduced - np.asarray(whole, dtype=float)).mean() < 2.0


def test_a_turned_jpeg_is_reduced_and_upright():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    pixels = decode_image(saved(photo(800, 600), "JPEG", exif=exif), at_least=300)
    assert pixels.shape == (3, 400, 300)


@pytest.mark.parametrize("data", [saved(photo(500, 400), "JPEG"), saved(photo(800, 600), "PNG")])
def test_what_is_not_far_too_large_or_no_jpeg_is_read_as_ever(data):
    assert torch.equal(decode_image(data, at_least=250), decode_image(data))


def test_a_jpeg_with_more_pictures_behind_it_is_reduced_as_it_is_alone():
    first, second = photo(800, 600), photo(400, 300)
    several = saved(first, "MPO", save_all=True, append_images=[second])
    assert torch.equal(decode_image(several, at_least=150), decode_image(saved(first, "JPEG"), at_least=150))
    assert not reads_otherwise(io.BytesIO(several), 4, last_revision("full"))
    assert reads_otherwise(io.BytesIO(several), 4, last_revision("reduced"))
    assert not reads_otherwise(io.BytesIO(several), 5, last_revision("reduced"))
    assert not reads_otherwise(io.BytesIO(saved(first, "JPEG")), 4, last_revision("reduced"))


def test_a_truncated_jpeg_is_refused_when_reduced_too():
    data = saved(photo(800, 600), "JPEG")
    assert reason(data[: len(data) // 2], at_least=100) == "damaged: premature end of JPEG file"


@pytest.mark.parametrize("file_format", ["TIFF", "PNG", "PPM"])
def test_16_bit_grey_is_its_high_byte(file_format):
    data = saved(Image.fromarray(WIDE[..., 0]), file_format)
    np.testing.assert_array_equal(decoded(data), np.repeat(WIDE[..., :1] >> 8, 3, axis=-1))


def test_16_bit_grey_tiff_of_the_other_byte_order_is_its_high_byte():
    little = saved(Image.fromarray(WIDE[..., 0]), "TIFF")
    big = io.BytesIO()
    image = Image.frombytes("I;16B", (WIDTH, HEIGHT), WIDE[..., 0].astype(">u2").tobytes())
    image.save(big, "TIFF")
    assert big.getvalue() != little
    np.testing.assert_array_equal(decoded(big.getvalue()), decoded(little))


def test_16_bit_colour_tiff_is_its_high_bytes():
    np.testing.assert_array_equal(decoded(tiff_16_bit_rgb()), WIDE >> 8)


def test_16_bit_colour_ppm_is_its_high_bytes_within_rounding():
    data = f"P6 {WIDTH} {HEIGHT} 65535\n".encode() + WIDE.astype(">u2").tobytes()
    assert np.abs(decoded(data).astype(int) - (WIDE >> 8)).max() <= 1


def test_lab_is_converted_to_the_colour_it_means():
    white, black, red = (255, 0, 0), (0, 0, 0), (138, 81, 70)
    image = Image.frombytes("LAB", (3, 1), bytes([*white, *black, *red]))
    pixels = decoded(saved(image, "TIFF"))[0].astype(int)
    assert np.abs(pixels - [(255, 255, 255), (0, 0, 0), (255, 0, 0)]).max() <= 6


def test_embedded_colour_profiles_are_not_applied():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    data = saved(Image.fromarray(COLOURS), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(decoded(data), COLOURS)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_known_white_are_refused(dtype):
    assert "32-bit or float" in reason(saved(Image.fromarray(WIDE[..., 0].astype(dtype)), "TIFF"))


def test_float_portable_maps_are_refused():
    data = b"Pf\n2 1\n-1.0\n" + np.array([0.5, 1.0], dtype="<f4").tobytes()
    assert "32-bit or float" in reason(data)


@pytest.mark.parametrize("n_bytes", [None, 8, 20, 45])
def test_a_png_is_read_without_the_plug_ins_of_other_formats_and_refused_like_any_file(monkeypatch, n_bytes):
    file = io.BytesIO()
    Image.new("RGB", (5, 4), "red").save(file, "PNG")
    data, asked = file.getvalue()[:n_bytes], []
    monkeypatch.setattr(decode, "readable_formats", lambda: asked.append("all") or ("PNG", "TIFF"))
    if n_bytes is None:
        assert decode_image(data).shape == (3, 4, 5)
        assert asked == []
        return
    with pytest.raises(ImageRefused) as now:
        decode_image(data)
    monkeypatch.setattr(decode, "START_OF_PNG", b"none")
    with pytest.raises(ImageRefused) as by_all:
        decode_image(data)
    assert str(now.value) == str(by_all.value)


def test_an_empty_file_is_refused():
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize(
    "data", [b"no picture at all", b"\0" * 100, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7"]
)
def test_what_is_no_image_is_refused(data):
    assert reason(data) == "no image format that can be read"


def test_no_file_starts_an_outside_program(monkeypatch):
    def started(*_: object, **__: object) -> None:
        pytest.fail("an image started a program")

    data = saved(Image.fromarray(COLOURS), "EPS")
    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "true")
    assert reason(data) == "no image format that can be read"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "JPEG grey", "PNG 16 bit"])
def test_truncated_images_are_refused_also_where_a_part_could_be_shown(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = Image.fromarray(noise[..., 0] if kind == "JPEG grey" else noise)
    data = png(noise.astype(int) * 257, 16, RGB) if kind == "PNG 16 bit" else saved(image, kind.split()[0])
    assert reason(data[: int(len(data) * share)])


def test_a_picture_larger_than_the_limit_is_refused_with_both_sizes():
    data = saved(Image.new("1", (300, 200)), "PNG")
    assert decode_image(data, max_pixels=60_000).shape == (3, 200, 300)
    assert reason(data, max_pixels=59_999).startswith("300 x 200 pixels are more than the limit of 59,999")


@pytest.mark.parametrize("side", [20_000, 65_000, 2**31 - 1])
def test_a_bomb_of_a_few_bytes_is_refused_before_it_is_unpacked(side):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, RGB, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    assert f"more than {2 * MAX_PIXELS:,} pixels" in reason(data)


def test_a_bomb_of_the_size_that_pillow_only_warns_of_is_refused_without_a_warning(tmp_path):
    """In a process that treats warnings as Python does where nobody asks for more."""
    code = (
        "import sys; from pathlib import Path; from featurecache.extract.images.decode import decode_image\n"
        "from featurecache.base.errors import ImageRefused\n"
        "try: decode_image(Path(sys.argv[1]).read_bytes())\n"
        "except ImageRefused as refused: print(refused)"
    )
    (tmp_path / "bomb.png").write_bytes(saved(Image.new("1", (10_000, 10_000)), "PNG"))
    done = run_program(code, tmp_path / "bomb.png")
    assert done.stdout.startswith("10000 x 10000 pixels are more than the limit of 89,478,485")
    assert done.stderr == ""


EVERY_KIND = {
    **LOSSLESS,
    **JPEGS,
    **{f"png {c} {d}": png(samples_of(c, d), d, c, interlaced=bool(d % 3)) for c, d in PNG_KINDS},
    "tiff 16": tiff_16_bit_rgb(),
    "eps": saved(Image.fromarray(COLOURS), "EPS"),
}


def test_no_mutation_of_any_kind_raises_anything_but_a_refusal():
    chance = random.Random(20)
    for kind, data in EVERY_KIND.items():
        for _ in range(25):
            mutated = bytearray(data)
            for _ in range(chance.choice((1, 3, 30))):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            if chance.random() < 0.2:
                del mutated[chance.randrange(len(mutated)) :]
            try:
                pixels = decode_image(bytes(mutated), max_pixels=1_000_000)
            except ImageRefused as refused:
                assert str(refused), kind
            else:
                assert pixels.shape[0] == 3, kind
                assert pixels.shape[1] * pixels.shape[2] <= 1_000_000, kind


@given(data=st.binary(max_size=200), kind=st.sampled_from(sorted(EVERY_KIND)), kept=st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_no_bytes_behind_any_header_raise_anything_but_a_refusal(data, kind, kept):
    try:
        pixels = decode_image(EVERY_KIND[kind][:kept] + data, max_pixels=1_000_000)
    except ImageRefused as refused:
        assert str(refused)
    else:
        assert pixels.shape[0] == 3
