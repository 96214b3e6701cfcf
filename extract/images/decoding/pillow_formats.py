"""The formats that Pillow may open: those of the suffixes that are read (formats.py), and no others.

Pillow draws EPS and WMF by other programs, and takes nearly any bytes for some formats of few users.
"""

from __future__ import annotations

from functools import cache

# The most frequent first: Pillow tries them in this order. JPEG has MPO in it.
READ = (
    "JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO", "PSD", "DIB", "BLP", "CUR", "DCX",
    "DDS", "FITS", "FLI", "FTEX", "GBR", "ICNS", "IM", "IPTC", "MSP", "PCD", "PCX", "PIXAR", "QOI", "SGI", "SUN",
    "TGA", "XBM", "XPM",
)  # fmt: skip


@cache
def readable_formats() -> tuple[str, ...]:
    """Return those of them that the installed Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in READ if name in Image.OPEN)
