"""Decoding: image file to uint8 RGB pixels (3, H, W), upright. All rules for image formats are here.

The version of these rules is part of every feature key (increase `decode_rules.DECODE_VERSION` when one of them changes
a pixel):

    orientation       rotated upright by EXIF
    grey, bilevel     the value in all three channels
    palette           its colours
    transparent       on white
    CMYK, YCbCr, LAB  converted to RGB, embedded profiles not applied
    16 bits a channel the high byte
    32-bit, float     refused: the value of white is unknown
    animated, paged   the first frame
    truncated         refused, even if a part could be decoded

On request a large JPEG is decoded at a fraction of its size, which changes the pixels and so is part of the key. JPEG
is decoded by torchvision, twice as fast as by Pillow; other formats, and files that torchvision refuses, are decoded by
Pillow, which is the reference in the tests. Both release the interpreter lock. torchvision's PNG decoder is a quarter
faster too, but one flipped bit in a PNG can crash the process (torchvision 0.29: segmentation fault when libpng reports
an error); of 12,000 damaged JPEGs none did.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from featurecache.base.errors import ImageRefused
from featurecache.extract.images.decode_rules import MAX_PIXELS

if TYPE_CHECKING:
    import torch

# Formats that Pillow renders by an external program, which no file may start.
DRAWN_OUTSIDE = {"EPS", "WMF"}
FAST_MODES = {"L", "RGB", "CMYK"}
GREY_STEPS: dict[object, int] = {"L;2": 85, "L;4": 17}
EXIF_ORIENTATION = 0x0112

# Pillow's warning at this size is replaced by ImageRefused, which names the file; its error at twice the size remains.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> torch.Tensor:
    """Decode an image file of any format: bytes -> uint8 (3, H, W), RGB, upright.

    at_least: decode a JPEG at 1/2, 1/4 or 1/8 of its size, from fewer DCT coefficients, if its shortest side still has
    this many pixels; None for full size.
    Raises ImageRefused with the reason if the bytes are not an image, are damaged, or have more than `max_pixels`.
    """
    if not data:
        raise ImageRefused("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format in DRAWN_OUTSIDE:
                raise ImageRefused(f"{image.format} is a drawing, not an image; save it as PNG")
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height} pixels"
                raise ImageRefused(f"{size} are more than the limit of {max_pixels:,} (see --max-pixels)")
            if at_least is not None and _reduce(image, at_least):
                return _from_pillow(image)
            if _is_plain(image):
                fast = _decode_fast(data)
                if fast is not None:
                    return fast
            return _from_pillow(image)
    except ImageRefused:
        raise
    except UnidentifiedImageError:
        raise ImageRefused("no image format that can be read") from None
    except Image.DecompressionBombError:
        raise ImageRefused(f"more than {2 * MAX_PIXELS:,} pixels, which no limit allows") from None
    except MemoryError:
        raise ImageRefused("decoding it needs more memory than there is") from None
    except Exception as error:  # noqa: BLE001  (Pillow's plug-ins raise anything on damaged files)
        raise ImageRefused(f"damaged: {_one_line(error)}") from None


def _reduce(image: ImageFile.ImageFile, at_least: int) -> bool:
    """Let Pillow decode a JPEG at the smallest scale with a shortest side of `at_least`; return whether one has it."""
    whole = image.size
    if image.format == "JPEG":
        image.draft(None, (at_least * whole[0] // min(whole), at_least * whole[1] // min(whole)))
    return image.size != whole


def _is_plain(image: Image.Image) -> bool:
    if image.format != "JPEG" or image.mode not in FAST_MODES:
        return False
    # torchvision reads the orientation from EXIF alone, Pillow also from XMP.
    return not ("xmp" in image.info and _is_turned(image))


def _decode_fast(data: bytes) -> torch.Tensor | None:
    """Return the pixels as decoded by torchvision, or None if it refuses: then Pillow decodes or gives the reason."""
    import torch

    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:  # a later release of torchvision will not have decoders
        return None
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        pixels: torch.Tensor = decode_jpeg(raw, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError:
        return None
    return pixels


def _from_pillow(image: ImageFile.ImageFile) -> torch.Tensor:
    import torch

    if image.format == "PNG" and image.mode == "L" and "transparency" in image.info:
        # Pillow scales 2 and 4 bits to 0..255, but not the grey value that is declared transparent.
        image.info["transparency"] *= GREY_STEPS.get(image.tile[0].args, 1)
    image.load()
    upright = ImageOps.exif_transpose(image) if _is_turned(image) else image
    pixels = np.array(_to_rgb(upright, image.format or ""), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _is_turned(image: Image.Image) -> bool:
    try:
        return bool(image.getexif().get(EXIF_ORIENTATION, 1) != 1)
    except Exception:  # noqa: BLE001  (damaged metadata next to good pixels: the pixels count)
        return False


def _to_rgb(image: Image.Image, file_format: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in {"PNG", "PPM"}):
        values = np.asarray(image).astype(np.int64)
        high_byte = (values >> 8).clip(0, 255).astype(np.uint8)
        high_byte[values == image.info.get("transparency", -1)] = 255
        return Image.fromarray(high_byte).convert("RGB")
    if image.mode in {"I", "F"}:
        raise ImageRefused("32-bit or float pixels, whose white is not known; save it with 8 or 16 bits a channel")
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    lab: Any = ImageCms.createProfile("LAB")
    srgb: Any = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # only None when asked to work in place
    return converted


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
