"""Where a suffix says nothing, the first bytes decide whether a file is an image, and they are read once."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image

from featurecache.base.errors import ManifestError
from featurecache.extract.images import first_bytes, formats
from featurecache.extract.images.first_bytes import read_formats
from featurecache.extract.images.folders.scan import scan_any_layout, scan_folder
from featurecache.extract.images.formats import (
    FORMATS,
    N_FIRST_BYTES,
    NO_IMAGE_SUFFIXES,
    UNFINISHED_SUFFIXES,
    format_of_bytes,
)
from featurecache.extract.images.left_out import NO_IMAGE
from featurecache.extract.images.read import read_images

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def encoded(kind):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, kind)
    return file.getvalue()


JPEG, PNG = encoded("JPEG"), encoded("PNG")


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(formats, "_is_installed", lambda _: False)


def write(root, **files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize(
    ("data", "name"),
    [
        *((encoded(kind), "pillow") for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "JPEG2000", "PPM", "DDS", "QOI")),
        (encoded("TIFF"), "tiff"),
        (HEIC, "heif"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "pillow"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "pillow"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw"),
        (bytes(128) + b"DICM", "dicom"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw"),
        (b"FUJIFILMCCD-RAW 0201", "raw"),
        (b"\xff\x0a\x00", "other"),
        (b"", None),
        (b"BM is how this text begins", None),
        (b"P1 is how this text begins", None),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", None),
        (b"<!DOCTYPE html>", None),
    ],
)
def test_formats_are_known_by_their_first_bytes(data, name):
    found = format_of_bytes(data[:N_FIRST_BYTES])
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    "name", ["noext", "f.pjp", "photo.jpg_large", "g.JPG.1", "h.jpg?w=640", "a.jpg~", "x.nef", "y.svg"]
)
def test_an_image_is_read_whatever_its_name(tmp_path, name):
    root = write(tmp_path, **{"cat/0.png": PNG, f"cat/{name}": JPEG})
    assert sorted(sample.name for sample in scan_folder(root).samples) == sorted(["cat/0.png", f"cat/{name}"])
    assert len(read_images(root / "cat" / name)) == 1


def test_what_a_name_and_the_bytes_say_decide_together(tmp_path, nothing_installed):
    files = {"jpeg.heic": JPEG, "real.heic": HEIC, "noext": HEIC, "tiff.nef": encoded("TIFF"), "text": b"text"}
    root = write(tmp_path, **{f"cat/{name}": data for name, data in files.items()})
    manifest = scan_folder(root)
    assert [sample.name for sample in manifest.samples] == ["cat/jpeg.heic"]
    assert manifest.left_out.counts == {
        ("needs_heif", ".heic"): 1,
        ("needs_heif", ""): 1,
        ("raw", ".nef"): 1,
        ("no_image", ""): 1,
    }
    for name in ("real.heic", "noext", "tiff.nef"):
        with pytest.raises(ManifestError, match="cannot be read: "):
            read_images(root / "cat" / name)


@pytest.mark.parametrize("scan", [scan_folder, scan_any_layout])
def test_unfinished_downloads_are_missed_where_they_begin_as_images_do(tmp_path, scan):
    files = {f"cat/x.jpg{suffix}": JPEG[:200] for suffix in UNFINISHED_SUFFIXES}
    root = write(tmp_path, **files, **{"cat/0.png": PNG, "cat/film.mp4.part": b"film", "cat/y.PART": HEIC})
    manifest = scan(root)
    assert [sample.name for sample in manifest.samples] == ["cat/0.png"]
    assert manifest.left_out.counts.pop(("no_image", ".part")) == 1
    assert {each.name for each in manifest.left_out.missed} == {*files, "cat/y.PART"}
    assert {each.reason for each in manifest.left_out.missed} == {
        "unfinished download of an image. Download them again"
    }


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "DICOMDIR.;1"])
@pytest.mark.parametrize("is_installed", [True, False])
def test_the_index_of_a_set_of_dicom_files_is_no_image(tmp_path, monkeypatch, name, is_installed):
    monkeypatch.setattr(formats, "_is_installed", lambda _: is_installed)
    root = write(tmp_path, **{"cat/0.png": PNG, "dog/1.png": PNG, name: bytes(128) + b"DICM"})
    manifest = scan_folder(root)
    assert len(manifest) == 2
    assert manifest.left_out.n(NO_IMAGE) == 1
    assert manifest.left_out.missed == ()


def test_files_that_are_something_else_by_their_suffix_are_not_opened(tmp_path, monkeypatch):
    root = write(tmp_path, **{"cat/0.png": b"", **{f"cat/x{suffix}": JPEG for suffix in NO_IMAGE_SUFFIXES}})
    monkeypatch.setattr(first_bytes, "_read_format", None)
    assert len(scan_folder(root)) == 1
    for kind in FORMATS:
        assert not kind.suffixes & NO_IMAGE_SUFFIXES


@pytest.mark.parametrize("scan", [scan_folder, scan_any_layout])
def test_first_bytes_are_read_once(tmp_path, monkeypatch, scan):
    root = write(tmp_path / "set", **{"cat/a": JPEG, "cat/b": PNG, "cat/LICENSE": b"text"})
    for path in (root / "cat").iterdir():
        os.utime(path, (1, 1))
    later = first_bytes.time.time_ns() + 10**10
    monkeypatch.setattr(first_bytes.time, "time_ns", lambda: later)
    first = scan(root, cache_root=tmp_path / "cache")
    read = []
    inner = first_bytes._read_format
    monkeypatch.setattr(first_bytes, "_read_format", lambda path: read.append(path) or inner(path))
    assert scan(root, cache_root=tmp_path / "cache") == first
    assert read == []
    (root / "cat" / "LICENSE").write_bytes(PNG)
    assert len(scan(root, cache_root=tmp_path / "cache")) == 3
    assert len(read) == 1


def test_a_file_that_may_not_be_read_is_listed(tmp_path, monkeypatch):
    root = write(tmp_path, **{"cat/0.png": PNG, "cat/closed": PNG})
    monkeypatch.setattr(first_bytes, "_read_format", lambda _: (PermissionError(13, "Permission denied"), None))
    (missed,) = scan_folder(root).left_out.missed
    assert missed.reason.startswith("file that cannot be read, perhaps an image (Permission denied)")


def test_a_pipe_is_not_waited_for(tmp_path):
    root = write(tmp_path, **{"cat/0.png": PNG})
    os.mkfifo(root / "cat" / "pipe")
    assert scan_folder(root).left_out.n_files == 1


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path):
    root = write(tmp_path, **{"cat/a": JPEG, "file": b""})
    assert len(read_formats([str(root / "cat" / "a")], tmp_path / "file" / "cache")) == 1
