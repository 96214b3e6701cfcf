"""Bytes to pixels: uint8 RGB (3, H, W), upright. The only file that knows image formats.

One policy, whose version is part of every feature key (raise `decode_rules.DECODE_VERSION` when a rule below changes a
pixel):

    upright           turned as the EXIF orientation says
    grey, bilevel     the value three times
    palette           its colours
    transparent       over white
    CMYK, YCbCr, LAB  converted to RGB, embedded profiles not applied
    16 bits a channel the high byte
    32-bit, float     refused: nothing says which value is white
    animated, paged   the first frame
    truncated         refused, also where a part could be shown

A JPEG may be decoded at a fraction of its size where that is asked for, which changes the pixels and so is in the key.
JPEG goes through torchvision's decoder, twice as fast as Pillow's; everything else, and whatever that refuses, goes
through Pillow, whose reading of the same file is the reference in the tests. Both release the interpreter lock.
torchvision's PNG decoder is a quarter faster too, but one flipped bit in a PNG makes it end the process (torchvision
0.29: segmentation fault where libpng reports an error); of 12,000 damaged JPEGs none did.
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

# What Pillow would ask an outside program to draw: no file may start one.
DRAWN_OUTSIDE = {"EPS", "WMF"}
FAST_MODES = {"L", "RGB", "CMYK"}
GREY_STEPS: dict[object, int] = {"L;2": 85, "L;4": 17}
EXIF_ORIENTATION = 0x0112

# Pillow's warning would come before our refusal, which names the file; its error at twice the size stays in force.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> torch.Tensor:
    """Decode one encoded image, whatever its format: bytes -> uint8 (3, H, W), RGB, upright.

    at_least: lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, from fewer coefficients of every block, as long as
    its shortest side keeps this many pixels; None for all of it.
    Raises ImageRefused with the reason when the bytes are no image, are damaged, or hold more than `max_pixels`.
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
    """Have Pillow decode a JPEG at the smallest scale that leaves its shortest side `at_least`; say if one does."""
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
    """The reading of torchvision, or None where it has none: Pillow then decides, and words the refusal."""
    import torch

    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:  # torchvision has announced that a later release comes without them
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
        # Pillow spreads 2 and 4 bits over 0 to 255, but not the grey that is declared transparent.
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
