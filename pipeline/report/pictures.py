"""Image files as small pictures inside the page.

A file that changed since the run would be shown under a label that it never had, so each is checked against its digest.
"""

from __future__ import annotations

import base64
import contextlib
import io
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from PIL import Image, ImageOps

from featurecache.base.errors import ImageRefused
from featurecache.base.text import count
from featurecache.extract.cache.spec import IMAGE_RANGE, image_digest
from featurecache.extract.images.loader import are_small
from featurecache.extract.images.sources import read_sample

# Decoding releases the interpreter's lock; more threads than that do not help on the machines reports are made on.
N_THREADS = 4
JPEG_QUALITY = 75
# Up to this side a PNG is no larger than a JPEG, and sharp.
TINY_SIDE = 40
# What shows where a picture does not fill its square: it must go with a light and a dark page.
MAT = (136, 136, 136)
PLAIN_FORMATS, PLAIN_MODES = frozenset({"JPEG", "PNG"}), frozenset({"L", "RGB"})
GONE, CHANGED, BROKEN, LATE = "gone", "changed", "broken", "late"


@dataclass
class Thumbnails:
    """Small pictures by the name of their image, and why others are absent."""

    pictures: dict[str, Image.Image] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def notes(self, seconds: float) -> list[str]:
        """A sentence for every reason why a picture is absent."""
        n = Counter(self.absent.values())
        reasons = {
            GONE: "is not where it was when the run was made|are not where they were when the run was made",
            CHANGED: "changed since the run|changed since the run",
            BROKEN: "cannot be read|cannot be read",
            LATE: f"was not read: pictures take at most {seconds:.0f} s|"
            f"were not read: pictures take at most {seconds:.0f} s",
        }
        return [
            f"{count(n[reason], 'picture')} left out: the file {text.split('|')[0]}."
            if n[reason] == 1
            else f"{count(n[reason], 'picture')} left out: the files {text.split('|')[1]}."
            for reason, text in reasons.items()
            if n[reason]
        ]


def read_thumbnails(
    names: Sequence[str], files: Mapping[str, str], digests: Mapping[str, str], *, side: int, deadline: float
) -> Thumbnails:
    """Pictures of at most `side` pixels for these names, in their order until time.monotonic() passes `deadline`.

    files: the path of each name; digests: its SHA-256 in hexadecimal digits.
    """
    names = list(dict.fromkeys(names))
    read = partial(_read, files=files, digests=digests, side=side, deadline=deadline)
    if are_small([files[name] for name in names if name in files]):
        found = list(map(read, names))
    else:
        with ThreadPoolExecutor(N_THREADS) as pool:
            found = list(pool.map(read, names))
    thumbnails = Thumbnails()
    for name, picture in zip(names, found, strict=True):
        if isinstance(picture, str):
            thumbnails.absent[name] = picture
        else:
            thumbnails.pictures[name] = picture
    return thumbnails


def _read(
    name: str, *, files: Mapping[str, str], digests: Mapping[str, str], side: int, deadline: float
) -> Image.Image | str:
    if time.monotonic() > deadline:
        return LATE
    if name not in files:
        return GONE
    try:
        data = read_sample(files[name])
    except OSError:
        return GONE
    if name in digests and image_digest(data).hex() != digests[name]:
        return CHANGED
    try:
        picture = _decode(data, side)
    except ImageRefused:
        return BROKEN
    picture.thumbnail((side, side))
    return picture


def _decode(data: bytes, side: int) -> Image.Image:
    """The image upright in RGB. A JPEG is decoded at a fraction of its size, many times faster.

    What is not plain 8-bit grey or colour is decoded as for the features.
    """
    unreadable = contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError)
    with unreadable, Image.open(io.BytesIO(data)) as image:
        if image.format in PLAIN_FORMATS and image.mode in PLAIN_MODES:
            image.draft("RGB", (2 * side, 2 * side))
            return ImageOps.exif_transpose(image.convert("RGB"))
    from featurecache.extract.images.decode import decode_array

    # A picture for people: the values that the image uses, where it has more than 8 bits.
    return Image.fromarray(decode_array(data, levels=IMAGE_RANGE)).convert("RGB")


def data_uri(picture: Image.Image) -> str:
    """A picture as the source of an <img>."""
    buffer, tiny = io.BytesIO(), max(picture.size) <= TINY_SIDE
    picture.save(buffer, "PNG" if tiny else "JPEG", quality=JPEG_QUALITY)
    return f"data:image/{'png' if tiny else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class Sheet:
    """Many pictures on one, `columns` squares of `tile` pixels wide; places: the square of each name, -1 for none."""

    source: str
    tile: int
    columns: int
    rows: int
    places: list[int]


def contact_sheet(names: Sequence[str], thumbnails: Thumbnails) -> Sheet | None:
    """All pictures of `names` on one sheet: one JPEG header instead of thousands. None where there is no picture."""
    drawn = [name for name in dict.fromkeys(names) if name in thumbnails.pictures]
    if not drawn:
        return None
    place = {name: i for i, name in enumerate(drawn)}
    tile = max(max(thumbnails.pictures[name].size) for name in drawn)
    columns = max(1, round(len(drawn) ** 0.5))
    rows = -(-len(drawn) // columns)
    sheet = Image.new("RGB", (columns * tile, rows * tile), MAT)
    for name, i in place.items():
        picture = thumbnails.pictures[name]
        left, top = (tile - picture.width) // 2, (tile - picture.height) // 2
        sheet.paste(picture, (i % columns * tile + left, i // columns * tile + top))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=JPEG_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Sheet(source, tile, columns, rows, [place.get(name, -1) for name in names])
