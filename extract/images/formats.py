"""Image formats by the suffixes of their files, and what each needs to be read."""

from __future__ import annotations

import functools
import importlib.util
from typing import NamedTuple

from featurecache.extract.images.left_out import NEEDS_DICOM, NEEDS_HEIF, NO_DECODER, RAW, Reason

# Suffixes of the formats that Pillow reads without an external program or a plug-in. Importing Pillow would cost 0.2 s
# at every start, so they are listed here, and a test compares the list with Pillow's registry.
_PILLOW = """
    .apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico .iim
    .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr
    .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm
"""
_HEIF = ".heic .heics .heif .heifs .hif"
_DICOM = ".dcm .dicom"
_RAW = """
    .3fr .arw .bay .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2
    .rwl .sr2 .srf .srw .x3f
"""
_OTHERS = ".ai .emf .eps .exr .hdp .hdr .jxl .jxr .ndpi .ps .psb .svg .svgz .svs .wdp .wmf .xcf"


class Format(NamedTuple):
    """A kind of image files.

    suffixes: in lower case. package: what has to be installed to read them, empty where nothing has to be, None where
    nothing helps. without: the reason for which they are left out otherwise.
    """

    suffixes: frozenset[str]
    package: str | None
    without: Reason

    def is_readable(self) -> bool:
        """Return whether such files can be decoded on this machine."""
        return self.package is not None and (not self.package or _is_installed(self.package))


PILLOW = Format(frozenset(_PILLOW.split()), "", NO_DECODER)
FORMATS = (
    PILLOW,
    Format(frozenset(_HEIF.split()), "pillow_heif", NEEDS_HEIF),
    Format(frozenset(_DICOM.split()), "pydicom", NEEDS_DICOM),
    Format(frozenset(_RAW.split()), None, RAW),
    Format(frozenset(_OTHERS.split()), None, NO_DECODER),
)
IMAGE_SUFFIXES = PILLOW.suffixes


@functools.cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def format_of(suffix: str) -> Format | None:
    """Return the format of a suffix, in lower case with its dot; None where it is that of no image."""
    return next((each for each in FORMATS if suffix in each.suffixes), None)
