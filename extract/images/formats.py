"""Image formats by the suffixes and first bytes of files, and what each needs to be read.

A file is read by its content, whatever its name. The suffix decides whether it is taken for an image without a look;
where it says nothing, or names a format that this machine does not read, the first bytes decide.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from typing import NamedTuple

from featurecache.extract.images.left_out import NEEDS_DICOM, NEEDS_HEIF, NO_DECODER, RAW, Reason

# Suffixes of the formats that Pillow reads without an external program or a plug-in, but for TIFF. Importing Pillow
# would cost 0.2 s at every start, so they are listed here, and a test compares the list with Pillow's registry.
_PILLOW = """
    .apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico .iim
    .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr
    .qoi .ras .rgb .rgba .sgi .tga .vda .vst .webp .xbm .xpm
"""
_HEIF = ".heic .heics .heif .heifs .hif"
_DICOM = ".dcm .dicom"
_RAW = """
    .3fr .arw .bay .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2
    .rwl .sr2 .srf .srw .x3f
"""
_OTHERS = ".ai .bpg .emf .eps .exr .hdp .hdr .jxl .jxr .ndpi .ps .psb .svg .svgz .svs .wdp .wmf .xcf"
# Suffixes that say that a file is something else: it is not opened.
_NO_IMAGES = """
    .7z .aac .avi .bat .bib .bz2 .c .cc .cfg .cmd .conf .cpp .css .csv .db .db-shm
    .db-wal .dll .doc .docx .egg .env .exe .feather .flac .flv .git .gpx .gz .h .h5 .hdf5 .hpp .htm .html .ini
    .ipynb .iso .jar .java .js .json .jsonl .kml .lmdb .lnk .lock .log .lst .m4a .m4v .mat .md .mid .mkv .mov .mp3 .mp4
    .mpeg .mpg .msi .npy .npz .numbers .odp .ods .odt .ogg .ogv .onnx .opus .otf .pages .parquet
    .pb .pbtxt .pdf .pickle .pkl .ppt .pptx .properties .pt .pth .py .pyc .pyd .pyi .qml .r .rar .rb .rst .rtf
    .safetensors .sh .so .sql .sqlite .sqlite3 .srt .swp .tar .tex .tfrecord .tfrecords .tgz .tmp .toml .torrent .ts
    .tsv .ttf .txt .url .vtt .wav .webm .wma .wmv .woff .woff2 .xls .xlsx .xml .xmp .xsd .xsl .xz .yaml .yml .zip .zst
"""
NO_IMAGE_SUFFIXES = frozenset(_NO_IMAGES.split())
# Suffixes that browsers and other programs give to a file until they have all of it.
UNFINISHED_SUFFIXES = frozenset({".crdownload", ".download", ".filepart", ".opdownload", ".part", ".partial"})
# The index of a set of DICOM files: DICOM by its first bytes, and no image.
DICOM_INDEX = "dicomdir"
# The most bytes by which a format is recognised: those of DICOM are at 128.
N_FIRST_BYTES = 132


class Format(NamedTuple):
    """A kind of image files.

    suffixes: in lower case. package: what has to be installed to read them, empty where nothing has to be, None where
    nothing helps. without: the reason for which they are left out otherwise.
    """

    name: str
    suffixes: frozenset[str]
    package: str | None
    without: Reason

    def is_readable(self) -> bool:
        """Return whether such files can be decoded on this machine."""
        return self.package is not None and (not self.package or _is_installed(self.package))


PILLOW = Format("pillow", frozenset(_PILLOW.split()), "", NO_DECODER)
TIFF = Format("tiff", frozenset({".tif", ".tiff"}), "", NO_DECODER)
HEIF = Format("heif", frozenset(_HEIF.split()), "pillow_heif", NEEDS_HEIF)
DICOM = Format("dicom", frozenset(_DICOM.split()), "pydicom", NEEDS_DICOM)
CAMERA = Format("raw", frozenset(_RAW.split()), None, RAW)
OTHER = Format("other", frozenset(_OTHERS.split()), None, NO_DECODER)
FORMATS = (PILLOW, TIFF, HEIF, DICOM, CAMERA, OTHER)
BY_SUFFIX = {suffix: each for each in FORMATS for suffix in each.suffixes}
IMAGE_SUFFIXES = PILLOW.suffixes | TIFF.suffixes

_STARTS = {
    b"\xff\xd8\xff": PILLOW,
    b"\x89PNG\r\n\x1a\n": PILLOW,
    b"GIF87a": PILLOW,
    b"GIF89a": PILLOW,
    b"\xff\x4f\xff\x51": PILLOW,
    b"\0\0\0\x0cjP  \r\n\x87\n": PILLOW,
    b"8BPS\0\x01": PILLOW,
    b"qoif": PILLOW,
    b"DDS |\0\0\0": PILLOW,
    b"SIMPLE  =": PILLOW,
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,
    b"MM\0+": TIFF,
    b"II*\0\x10\0\0\0CR": CAMERA,
    b"IIU\0": CAMERA,
    b"IIRO": CAMERA,
    b"IIRS": CAMERA,
    b"MMOR": CAMERA,
    b"\0MRM": CAMERA,
    b"FUJIFILMCCD-RAW": CAMERA,
    b"II\x1a\0\0\0HEAPCCDR": CAMERA,
    b"FOVb": CAMERA,
    b"\xff\x0a": OTHER,
    b"\0\0\0\x0cJXL \r\n\x87\n": OTHER,
    b"8BPS\0\x02": OTHER,
    b"\x76\x2f\x31\x01": OTHER,
    b"gimp xcf ": OTHER,
}
_LONGEST_FIRST = sorted(_STARTS, key=len, reverse=True)
# What a download or a checkout leaves in place of an image, in lower case.
_INSTEAD = {
    b"version https://git-lfs": "a pointer of Git LFS in place of the image; run 'git lfs pull'",
    b"<!doctype html": "a web page in place of the image; download it again",
    b"<html": "a web page in place of the image; download it again",
}
_BRANDS = {b"avif": PILLOW, b"avis": PILLOW, b"crx ": CAMERA} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"), HEIF
)
_NETPBM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s")
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}


@functools.cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def format_of(suffix: str) -> Format | None:
    """Return the format of a suffix, in lower case with its dot; None where it is that of no image."""
    return BY_SUFFIX.get(suffix)


def format_of_bytes(start: bytes) -> Format | None:
    """Return the format of a file by its first N_FIRST_BYTES; None where it is none of an image."""
    for each in _LONGEST_FIRST:
        if start.startswith(each):
            return _STARTS[each]
    if start[4:8] == b"ftyp":
        return _format_of_brands(start)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return PILLOW
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return PILLOW
    if _NETPBM.match(start):
        return PILLOW
    return DICOM if start[128:132] == b"DICM" else None


def why_unread(start: bytes) -> str:
    """Return why a file that nothing here opens as an image is refused, by its first N_FIRST_BYTES."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for begin, why in _INSTEAD.items():
        if text.startswith(begin):
            return why
    found = format_of_bytes(start)
    if found is None:
        return "no image format that can be read"
    if found.package is None:
        return found.without.text()
    return "damaged, or of a kind of its format that is not read; save it as JPEG, PNG or TIFF of 8 bits"


def _format_of_brands(start: bytes) -> Format | None:
    """Return the format of an ISO media file by its major brand, or the first compatible one that is of an image."""
    size = min(int.from_bytes(start[:4], "big"), len(start))
    brands = [start[8:12], *(start[place : place + 4] for place in range(16, size, 4))]
    if brands[0] in {b"mif1", b"msf1"} and any(_BRANDS.get(brand) is PILLOW for brand in brands):
        return PILLOW
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def may_be_read(named: Format | None, seen: Format) -> bool:
    """Return whether a file of a format by its suffix and one by its first bytes can be decoded.

    RAW files and slides are TIFF by their first bytes, and what Pillow reads of them is a thumbnail.
    """
    return seen.is_readable() and not (seen is TIFF and named in {CAMERA, OTHER})
