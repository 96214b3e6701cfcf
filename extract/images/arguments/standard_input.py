"""Images from standard input: one path a line, paths with NUL behind each, or the bytes of one image."""

from __future__ import annotations

import codecs
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from featurecache.base.errors import ManifestError, NoSuchImages
from featurecache.extract.images.formats import N_FIRST_BYTES, format_of_bytes
from featurecache.extract.images.manifest import Manifest

# The argument that stands for standard input, and what an image from there is called.
STANDARD_INPUT = "-"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class StandardInput:
    """What standard input held: paths; or one image, whose temporary file is then the only path and `image`."""

    paths: Sequence[str]
    image: str | None = None

    def in_place_of(self, arguments: Sequence[str]) -> list[str]:
        """Return arguments with these paths in place of `-`."""
        return [path for each in arguments for path in (self.paths if each == STANDARD_INPUT else [each])]

    def named(self, images: Manifest) -> Manifest:
        """Return a data set whose image from standard input is called `-`."""
        if self.image is None:
            return images
        samples = (replace(s, name=STANDARD_INPUT) if s.path == self.image else s for s in images.samples)
        return replace(images, samples=tuple(samples))


def read_standard_input(stream: BinaryIO, folder: Path, *, null: bool = False) -> StandardInput:
    """Read all of a stream. An image, which is recognised by its first bytes, is kept in a new file in `folder`.

    null: whether each path ends in NUL, as names with line breaks need it; then no image is looked for. Raises
    NoSuchImages where there is nothing, ManifestError for what is neither an image that can be read nor paths.
    """
    start = stream.read(N_FIRST_BYTES)
    found = None if null else format_of_bytes(start)
    if found is not None:
        if not found.is_readable():
            raise ManifestError(f"The image on standard input cannot be read: {found.without.text()}.")
        place = folder / "standard_input"
        with place.open("wb") as file:
            file.write(start)
            shutil.copyfileobj(stream, file)
        return StandardInput([str(place)], str(place))
    paths = _paths(start + stream.read(), null=null)
    if not paths:
        raise NoSuchImages(
            "Standard input is empty. Give it the paths of images, one a line, or the bytes of one image."
        )
    return StandardInput(paths)


def _paths(data: bytes, *, null: bool) -> list[str]:
    if null:
        return [os.fsdecode(path) for path in data.removeprefix(codecs.BOM_UTF8).split(b"\0") if path]
    if data.startswith(_UTF16):  # of Windows PowerShell
        try:
            data = data.decode("utf-16", "surrogatepass").encode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise ManifestError(
                "Standard input begins as text in UTF-16 and is none. Give it paths in UTF-8, one a line, or the bytes "
                "of one image."
            ) from None
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        raise ManifestError(
            "Standard input is neither an image, by its first bytes, nor one path a line: it has NUL bytes. "
            "For paths with NUL behind each, as 'find -print0' writes them, add --null."
        )
    # Only the line feed ends a line, and a return before it: a name may have one too.
    lines = (line.removesuffix(b"\r") for line in data.split(b"\n"))
    return [os.fsdecode(line) for line in lines if line.strip()]
