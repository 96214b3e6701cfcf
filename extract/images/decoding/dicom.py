"""DICOM files as grey or RGB pixels: the first frame, as its own window shows it.

    values       the stored ones, times the rescale slope, plus the intercept
    full         the first window of the file, by its VOI LUT function; without one, black to white are the stored bits
    image        the least and the greatest value of the frame are black and white
    LOW:HIGH     these values are, in the unit of the values, such as Hounsfield units
    MONOCHROME1  inverted: its least value is white
    colour       RGB, from YCbCr or a palette; of 16 bits a channel the high byte

Compressed frames are decoded by whichever plug-ins of pydicom are installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.spec import FULL_RANGE, bounds_of
from featurecache.extract.images.decoding.levels import Span, as_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC, MAGIC_AT = b"DICM", 128
GREY_KINDS = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins like this is DICOM."""
    return head[MAGIC_AT : MAGIC_AT + 4] == MAGIC


def decode_dicom(
    file: BinaryIO, levels: str, take: Callable[[int, int], None]
) -> tuple[NDArray[np.uint8], Span | None]:
    """Return the first frame as bytes (H, W) or (H, W, 3), and its values where the range is LOW:HIGH and it is grey.

    take: called with width and height before any pixel is decoded. Raises ImageRefused.
    """
    try:
        import pydicom
    except ImportError:
        raise ImageRefused("DICOM, which needs the package pydicom: pip install 'featurecache[dicom]'") from None
    data = pydicom.dcmread(file)
    if "PixelData" not in data:
        raise ImageRefused("DICOM without an image in it")
    take(int(data.Columns), int(data.Rows))
    frame = _first_frame(data)
    kind = str(data.get("PhotometricInterpretation", GREY_KINDS[1]))
    if kind not in GREY_KINDS:
        return _colours(frame, data, kind), None
    grey, span = _grey(frame, data, levels)
    return 255 - grey if kind == GREY_KINDS[0] else grey, span


def _grey(frame: NDArray[Any], data: Any, levels: str) -> tuple[NDArray[np.uint8], Span | None]:
    window = _first_window(data) if levels == FULL_RANGE else None
    if levels == FULL_RANGE and window is None:
        return as_bytes(frame, *_stored_range(data)), None
    slope, intercept = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
    values = frame if (slope, intercept) == (1.0, 0.0) else frame * slope + intercept
    if window is not None:
        return _windowed(values, *window), None
    span, bounds = Span.of(values), bounds_of(levels)
    return as_bytes(values, *(bounds or (span.least, span.greatest))), span if bounds else None


def _first_frame(data: Any) -> NDArray[Any]:
    from pydicom.pixels.utils import pixel_array

    syntax = data.file_meta.get("TransferSyntaxUID")
    try:
        return np.asarray(pixel_array(data, index=0))
    except (RuntimeError, NotImplementedError, ImportError) as error:
        name = getattr(syntax, "name", "") or "an unknown transfer syntax"
        raise ImageRefused(
            f"DICOM in {name} ({syntax}), which no installed plug-in of pydicom decodes; install "
            f"pylibjpeg[all], or save it uncompressed"
            if getattr(syntax, "is_compressed", False)
            else f"damaged: {' '.join(str(error).split())[:150]}"
        ) from None


def _first_window(data: Any) -> tuple[float, float, str] | None:
    """Return centre, width and function of the first window that the file has, or None."""
    centre, width = (_first_number(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or width <= 0:
        return None
    return centre, width, str(data.get("VOILUTFunction") or "LINEAR").upper()


def _first_number(value: Any) -> float | None:
    try:
        return float(value if isinstance(value, int | float | str) else value[0])
    except (TypeError, ValueError, IndexError):
        return None


def _windowed(values: NDArray[Any], centre: float, width: float, function: str) -> NDArray[np.uint8]:
    """Return values in a window as bytes (DICOM PS3.3, C.11.2.1)."""
    if function == "SIGMOID":
        share = 1 / (1 + np.exp(-4 * (values - centre) / width))
    elif function == "LINEAR_EXACT":
        share = (values - centre) / width + 0.5
    else:
        share = (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    scaled: NDArray[np.uint8] = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    return scaled


def _stored_range(data: Any) -> tuple[float, float]:
    n_values = 1 << int(data.get("BitsStored", 8))
    return (-n_values / 2, n_values / 2 - 1) if int(data.get("PixelRepresentation", 0)) else (0.0, n_values - 1.0)


def _colours(frame: NDArray[Any], data: Any, kind: str) -> NDArray[np.uint8]:
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        frame = apply_color_lut(frame, data)
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ImageRefused(f"DICOM with pixels of the kind {kind[:40]!r}, which is not grey, RGB, YCbCr or a palette")
    return (frame >> 8).astype(np.uint8) if frame.dtype.itemsize == 2 else frame.astype(np.uint8)
