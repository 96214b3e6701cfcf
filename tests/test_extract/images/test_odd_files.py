"""Odd and hostile files of real folders: each is read as a person would, or refused in one sentence and counted."""

from __future__ import annotations

import io
import os
import socket

import numpy as np
import pytest
from PIL import Image

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.memo import Memo
from featurecache.extract.images.decode import decode_image
from featurecache.extract.images.digests import digest_samples
from featurecache.extract.images.folders.scan import scan_folder

LEFT, RIGHT, OTHER = (200, 40, 10), (20, 60, 220), (0, 255, 0)


def picture() -> Image.Image:
    """Two halves, 32 x 24 pixels."""
    image = Image.new("RGB", (32, 24), LEFT)
    image.paste(RIGHT, (16, 0, 32, 24))
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def later_frames() -> dict[str, object]:
    return {"save_all": True, "append_images": [Image.new("RGB", (32, 24), OTHER)]}


def with_marker(data: bytes, marker: int) -> bytes:
    """A JPEG whose frame is of another process: 0xC3 lossless, 0xC9 arithmetic."""
    place = data.index(b"\xff\xc0")
    return data[: place + 1] + bytes([marker]) + data[place + 2 :]


READ = {
    "animated WebP": saved(picture(), "WEBP", lossless=True, **later_frames()),
    "animated PNG": saved(picture(), "PNG", **later_frames()),
    "PNG with frames behind its picture": saved(picture(), "PNG", default_image=True, **later_frames()),
    "animated GIF": saved(picture().quantize(4), "GIF", save_all=True, append_images=[Image.new("P", (32, 24))]),
    "pages of a TIFF": saved(picture(), "TIFF", **later_frames()),
    "MPO": saved(picture(), "MPO", **later_frames()),
    "BigTIFF": saved(picture(), "TIFF", big_tiff=True),
    "LZW": saved(picture(), "TIFF", compression="tiff_lzw"),
    "palette in a TIFF": saved(picture().quantize(4), "TIFF"),
    "CMYK in a TIFF": saved(picture().convert("CMYK"), "TIFF"),
    "two JPEGs in one file": saved(picture(), "JPEG", quality=95) + saved(Image.new("RGB", (9, 9)), "JPEG"),
    "a film behind a JPEG": saved(picture(), "JPEG", quality=95) + b"\0\0\0\x18ftypmp42" + bytes(9000),
    "PNG without its end": saved(picture(), "PNG")[:-12],
    "PNG with text behind it": saved(picture(), "PNG") + b"more",
    "JPEG 2000": saved(picture(), "JPEG2000"),
    "TGA": saved(picture(), "TGA"),
    "QOI": saved(picture(), "QOI"),
    "AVIF": saved(picture(), "AVIF", quality=95),
}


@pytest.mark.parametrize("kind", READ)
def test_the_first_picture_is_read(kind):
    pixels = decode_image(READ[kind]).numpy().astype(int)
    assert pixels.shape == (3, 24, 32)
    for column, colour in ((4, LEFT), (28, RIGHT)):
        assert np.abs(pixels[:, 12, column] - colour).max() <= 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_the_orientation_of_any_format_is_turned(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"tiffinfo": {0x0112: 6}} if kind == "TIFF" else {"exif": exif.tobytes()}
    pixels = decode_image(saved(picture(), kind, **options)).numpy().astype(int)
    assert pixels.shape == (3, 32, 24)
    assert np.abs(pixels[:, 4, 12] - LEFT).max() <= 40
    assert np.abs(pixels[:, 28, 12] - RIGHT).max() <= 40


@pytest.mark.parametrize(("size", "kind"), [((65500, 4), "JPEG"), ((2, 65500), "PNG"), ((1, 1), "GIF")])
def test_extreme_sizes_are_read(size, kind):
    assert decode_image(saved(Image.new("L", size, 9), kind)).shape == (3, size[1], size[0])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
REFUSED = {
    "git": (LFS, "a pointer of Git LFS in place of the image; run 'git lfs pull'"),
    "web page": (b"\n<!DOCTYPE HTML><html>404</html>", "a web page in place of the image; download it again"),
    "web page with a mark": (b"\xef\xbb\xbf<html>", "a web page in place of the image; download it again"),
    "resource fork": (b"\0\x05\x16\x07\0\x02\0\0Mac OS X        " + bytes(60), "no image format that can be read"),
    "zeros": (bytes(5000), "no image format that can be read"),
    "film": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(50), "no image format that can be read"),
    "archive": (b"PK\3\4" + bytes(60), "no image format that can be read"),
    "drawing": (saved(picture(), "EPS"), "no image format that can be read"),
    "JPEG XL": (b"\xff\x0a" + bytes(50), "image of a format that cannot be read. Save them as JPEG, PNG or TIFF"),
    "RAW": (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "RAW image of a camera. Export them as JPEG, PNG or TIFF"),
    "TIFF without a directory": (
        b"II*\0\x08\0\0\0\0\0",
        "damaged, or of a kind of its format that is not read; save it as",
    ),
    "JPEG without its end": (saved(picture(), "JPEG")[:-2], "damaged: premature end of JPEG file"),
    "lossless JPEG": (with_marker(saved(picture(), "JPEG"), 0xC3), "damaged: "),
    "float TIFF": (saved(Image.new("F", (4, 4)), "TIFF"), "32-bit or float pixels, whose white is not known"),
    "float map": (saved(Image.new("F", (4, 4)), "PPM"), "32-bit or float pixels, whose white is not known"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(kind):
    data, reason = REFUSED[kind]
    with pytest.raises(ImageRefused) as refused:
        decode_image(data)
    assert str(refused.value).startswith(reason)
    assert str(refused.value).isprintable()


@pytest.fixture
def odd_folder(tmp_path, monkeypatch):
    """Files that are no files, links of all kinds, and names that shells and tools stumble over."""
    folder = tmp_path / "cat"
    (folder / "folder.jpg").mkdir(parents=True)
    names = [
        " in front.png",
        "line\nbreak.png",
        "tab\t.png",
        "-rf.png",
        "behind.png ",
        "dot.png.",
        os.fsdecode(b"\xe9.png"),
    ]
    names += ["gpj.\u202eexe.png", "x" * 251 + ".png", "a.png?size=large", "a.png~", "a.PNG-1", "folder.jpg/in.png"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(saved(Image.new("RGB", (3, 3), (number, 0, 0)), "PNG"))
    for name, target in {
        "nowhere.jpg": "there is no such file.jpg", "itself.jpg": "itself.jpg", "loop": "..", "here": ".",
        "zeros.jpg": "/dev/zero", "link.png": "-rf.png",
    }.items():  # fmt: skip
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        yield tmp_path, names


def test_odd_names_links_and_pipes_are_used_or_named(odd_folder):
    root, names = odd_folder
    manifest = scan_folder(root)
    with Memo(root / "cache") as memo:
        digested = digest_samples(manifest.samples, memo)
    assert {sample.name for sample in digested.samples} == {f"cat/{name}" for name in (*names, "link.png")}
    reasons = {refusal.name: refusal.reason for refusal in digested.refusals}
    assert reasons == {
        "cat/nowhere.jpg": "cannot be read: No such file or directory",
        "cat/itself.jpg": "cannot be read: Too many levels of symbolic links",
        "cat/zeros.jpg": "not a regular file",
        "cat/pipe.jpg": "not a regular file",
        "cat/socket.jpg": "not a regular file",
    }
    document = manifest.left_out.to_dict()
    assert document["folders"] == {"link_back": 2}
    assert document["by_reason"] == [{"reason": "no_image", "suffix": "", "n": 1}]
