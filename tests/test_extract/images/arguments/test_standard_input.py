"""Standard input is paths, or one image that its first bytes tell."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from featurecache.base.errors import ManifestError, NoSuchImages
from featurecache.extract.images.arguments.standard_input import read_standard_input

PATHS = {
    "lines": (b"a.jpg\nb c.jpg\n", False, ["a.jpg", "b c.jpg"]),
    "the last line without an end": (b"a.jpg\nb.jpg", False, ["a.jpg", "b.jpg"]),
    "lines of Windows": (b"a.jpg\r\n\r\nb.jpg\r\n", False, ["a.jpg", "b.jpg"]),
    "UTF-8 with a mark": ("\ufeffä.jpg\n".encode(), False, ["ä.jpg"]),
    "UTF-16 of PowerShell": ("ä.jpg\r\n".encode("utf-16"), False, ["ä.jpg"]),
    "bytes that are no UTF-8": (b"\xe4.jpg\n", False, ["\udce4.jpg"]),
    "a name that begins like UTF-16, and NUL": (b"\xff\xfea.jpg\0", True, ["\udcff\udcfea.jpg"]),
    "NUL": (b"a\nb.jpg\0c.jpg\0", True, ["a\nb.jpg", "c.jpg"]),
    "spaces at the end of a name": (b"a.jpg \n", False, ["a.jpg "]),
    "a name like the first bytes of a bitmap": (b"BM_01.jpg\n", False, ["BM_01.jpg"]),
}


@pytest.mark.parametrize(("data", "null", "paths"), PATHS.values(), ids=PATHS)
def test_paths(tmp_path, data, null, paths):
    found = read_standard_input(io.BytesIO(data), tmp_path, null=null)
    assert (found.paths, found.image) == (paths, None)
    assert found.in_place_of(["x", "-", "y"]) == ["x", *paths, "y"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_an_image(tmp_path, kind):
    written = io.BytesIO()
    Image.new("RGB", (300, 300), (1, 2, 3)).save(written, kind)
    found = read_standard_input(io.BytesIO(written.getvalue()), tmp_path)
    assert found.image is not None
    with open(found.image, "rb") as file:
        assert file.read() == written.getvalue()


@pytest.mark.parametrize(
    ("data", "kind", "sentence"),
    [
        (b"", NoSuchImages, "Standard input is empty"),
        (b"\n\n", NoSuchImages, "Standard input is empty"),
        (b"a.jpg\0b.jpg\0", ManifestError, "add --null"),
        (b"\xff\xfea.jpg", ManifestError, "begins as text in UTF-16 and is none"),
        (b"\x93NUMPY\0\0", ManifestError, "neither an image"),
        (b"\xff\x0a" + b"\0" * 40, ManifestError, "cannot be read"),
    ],
)
def test_anything_else_is_a_sentence(tmp_path, data, kind, sentence):
    with pytest.raises(kind, match=sentence):
        read_standard_input(io.BytesIO(data), tmp_path)
