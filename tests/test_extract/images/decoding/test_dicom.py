"""DICOM shows its first frame in its window; what cannot be decoded is refused by name."""

from __future__ import annotations

import io
import sys
from functools import partial

import numpy as np
import pytest

from featurecache.base.errors import ImageRefused
from featurecache.extract.images.decode import decode_image, decode_picture
from featurecache.extract.images.decoding.levels import Span
from featurecache.extract.images.decoding.memory import DECODING

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, SecondaryCaptureImageStorage  # noqa: E402

VALUES = np.arange(0, 4096, 2, dtype=np.int16).reshape(32, 64)


def dicom(values: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: object) -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3.4"
    data.Rows, data.Columns = values.shape[-2:] if values.shape[-1] != 3 else values.shape[-3:-1]
    data.SamplesPerPixel = 3 if values.shape[-1] == 3 else 1
    data.PhotometricInterpretation = "RGB" if values.shape[-1] == 3 else "MONOCHROME2"
    if values.shape[-1] == 3:
        data.PlanarConfiguration = 0
    elif values.ndim == 3:
        data.NumberOfFrames = len(values)
    data.BitsAllocated = 8 * values.itemsize
    data.BitsStored = 8 * values.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in elements.items():
        setattr(data, name, value)
    data.PixelData = values.tobytes()
    if syntax != ExplicitVRLittleEndian:
        data.compress(syntax)
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def grey(data: bytes, levels: str = "full") -> np.ndarray:
    pixels = decode_image(data, levels=levels).numpy()
    assert (pixels[0] == pixels[2]).all()
    return pixels[0]


WINDOWED = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": [40, 600], "WindowWidth": [400, 1600]}


def in_window(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """DICOM PS3.3 C.11.2.1.2.1, in its own words."""
    values = values.astype(float)
    inner = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.where(
        values <= centre - 0.5 - (width - 1) / 2, 0, np.where(values > centre - 0.5 + (width - 1) / 2, 255, inner)
    )


def test_the_first_window_of_the_rescaled_values_is_shown():
    pixels = grey(dicom(VALUES, **WINDOWED))
    assert np.abs(pixels - in_window(VALUES - 1024, 40, 400)).max() <= 0.5
    exact = grey(dicom(VALUES, **WINDOWED, VOILUTFunction="LINEAR_EXACT"))
    assert np.abs(exact.astype(int) - pixels).max() <= 1
    assert len(np.unique(grey(dicom(VALUES, **WINDOWED, VOILUTFunction="SIGMOID")))) > 100


def test_monochrome1_is_inverted():
    plain = grey(dicom(VALUES, **WINDOWED))
    np.testing.assert_array_equal(grey(dicom(VALUES, **WINDOWED, PhotometricInterpretation="MONOCHROME1")), 255 - plain)


def test_the_values_of_a_range_are_known():
    with DECODING.reservation() as reserved:
        read = partial(decode_picture, max_pixels=10**6, at_least=None, reserve=reserved.reserve)
        span = read(dicom(VALUES, **WINDOWED, PhotometricInterpretation="MONOCHROME1"), levels="0:100").span
        assert span == Span(VALUES.min() - 1024, VALUES.max() - 1024)
        assert read(dicom(VALUES, **WINDOWED), levels="full").span is None


def test_a_range_is_in_the_unit_of_the_values_and_overrides_the_window():
    data = dicom(VALUES, **WINDOWED)
    assert grey(data, "-1024:3071").max() == 255
    np.testing.assert_array_equal(grey(data, "-1024:3071"), VALUES >> 4)
    assert grey(data, "image").min() == 0


def test_without_a_window_the_stored_bits_are_black_to_white():
    np.testing.assert_array_equal(grey(dicom(VALUES.astype(np.uint16), BitsStored=12, HighBit=11)), VALUES >> 4)
    eight = (VALUES >> 4).astype(np.uint8)
    np.testing.assert_array_equal(grey(dicom(eight)), eight)


def test_the_first_frame_and_colours_are_read():
    frames = np.stack([VALUES, VALUES[::-1]])
    np.testing.assert_array_equal(grey(dicom(frames, **WINDOWED)), grey(dicom(VALUES, **WINDOWED)))
    colours = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(dicom(colours)).permute(1, 2, 0).numpy(), colours)


def test_a_compressed_syntax_is_decoded_or_refused_by_name(monkeypatch):
    data = dicom(VALUES, RLELossless, **WINDOWED)
    np.testing.assert_array_equal(grey(data), grey(dicom(VALUES, **WINDOWED)))
    renamed = data.replace(RLELossless.encode(), JPEG2000Lossless.encode()[: len(RLELossless)].ljust(len(RLELossless)))
    with pytest.raises(ImageRefused) as refused:
        decode_image(renamed)
    assert "DICOM" in str(refused.value) or "damaged" in str(refused.value)
    import pydicom.pixels.utils

    def cannot(*_: object, **__: object) -> None:
        raise RuntimeError("no plug-in")

    monkeypatch.setattr(pydicom.pixels.utils, "pixel_array", cannot)
    with pytest.raises(ImageRefused, match=r"DICOM in RLE Lossless \(1\.2\.840\.10008\.1\.2\.5\), which no installed"):
        decode_image(data)


def test_limits_and_missing_parts_are_refused(monkeypatch):
    with pytest.raises(ImageRefused, match="64 x 32 pixels are more than the limit of 2,000"):
        decode_image(dicom(VALUES), max_pixels=2000)
    with pytest.raises(ImageRefused, match="damaged"):
        decode_image(dicom(VALUES)[:-500])
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageRefused, match=r"pip install 'featurecache\[dicom\]'"):
        decode_image(dicom(VALUES))
