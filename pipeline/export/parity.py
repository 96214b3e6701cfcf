"""How far an exported file agrees with `predict`: on images of the run, and on files that programs read differently.

The file is run by itself, as another program runs it, on pixels that featurecache decodes. It disagrees where fewer
than LEAST_SAME of the images have the same label, or probabilities within the tolerance of its precision, or where its
resized pixels are others. Then the stages are compared one after the other, and the first that differs is named:

    decoded image -> resized and cropped pixels -> features -> probabilities

Another program decodes images by itself. What it reads can be compared, too: `load`, for instance that of the README.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.cores import count_cores
from featurecache.base.errors import FeatureCacheError, PipelineError
from featurecache.base.text import printable
from featurecache.export.differences import describe_decoding, describe_resizing, fitted, is_known
from featurecache.extract.cache.spec import REDUCED, FeatureSpec
from featurecache.extract.images.decode import decode_pixels
from featurecache.extract.images.sources import read_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.export.exported_file import ExportedFile

    Image = NDArray[np.uint8]
    Load = Callable[[Path], Image]

MOST_IMAGES = 1000
# The share of images: a tree decides by thresholds, and one in a thousand may lie at one.
LEAST_SAME = 0.995
# The largest difference of a probability, by the precision of the features.
TOLERANCES = {"fp32": 1e-4, "int8": 0.05}
HALF_TOLERANCE = 0.02  # of features that are stored in float16
# Images of a set whose pixels are compared between the stages, too.
MOST_STAGES = 25
# Relative to the largest number of a vector: engines differ by 1e-4.
FEATURE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Reference:
    """What `predict` says of an image: the code of its label and its probabilities (C,)."""

    name: str
    path: Path
    code: int
    proba: NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Compared:
    """How an image compares: its label, its probabilities, of which `difference` is the largest, and its pixels."""

    reference: Reference
    is_same: bool
    is_close: bool
    difference: float
    is_read: bool
    is_resized: bool


@dataclass
class Agreement:
    """How far a file agrees on some images. n_same: of them with the same label; n_close: with the same probabilities.

    largest: difference of a probability; worst: the image that has it. differ: those that `load` reads to other pixels.
    other_pixels: those of the first MOST_STAGES that the file resizes to other pixels.
    """

    n: int = 0
    n_same: int = 0
    n_close: int = 0
    largest: float = 0.0
    worst: Reference | None = None
    differ: list[Reference] = field(default_factory=list)
    other_pixels: list[Reference] = field(default_factory=list)

    def add(self, one: Compared) -> None:
        """Count one more image."""
        self.n += 1
        self.n_same += one.is_same
        self.n_close += one.is_close
        if self.worst is None or one.difference > self.largest or isnan(one.difference):
            self.largest, self.worst = one.difference, one.reference
        if not one.is_read:
            self.differ.append(one.reference)
        if not one.is_resized:
            self.other_pixels.append(one.reference)

    def to_dict(self) -> dict[str, Any]:
        """Return what is kept of it."""
        return {
            "n": self.n,
            "n_same": self.n_same,
            "n_close": self.n_close,
            "largest": self.largest,
            "worst": printable(self.worst.name if self.worst else ""),
        }


def tolerance_of(specs: Sequence[FeatureSpec]) -> float:
    """Return the largest difference of a probability that rounding explains."""
    halves = [HALF_TOLERANCE for spec in specs if spec.dtype != "float32"]
    return max([TOLERANCES[spec.precision] for spec in specs] + halves)


class Comparison:
    """The comparison of a file with the references of images.

    specs: of the features, in the order of the file's stages. is_fixed: whether the file takes images of one size.
    load: how another program reads a file; None for featurecache's own decoding. vectors: returns the features (D,) by
    key that `predict` has of a file.
    """

    def __init__(
        self,
        file: ExportedFile,
        specs: Sequence[FeatureSpec],
        *,
        is_fixed: bool,
        vectors: Callable[[Path], dict[str, NDArray[np.float32]]],
        load: Load | None = None,
    ) -> None:
        self.file, self.specs, self.is_fixed, self._vectors, self._load = file, specs, is_fixed, vectors, load

    def agreement(self, references: Sequence[Reference], *, report: Callable[[int, int], None]) -> Agreement:
        """Return how far the file agrees on these images. report: called with how many of them are done."""
        found = Agreement()
        with ThreadPoolExecutor(count_cores(), "parity") as pool:
            for number, one in enumerate(pool.map(self._compare, references, count()), start=1):
                found.add(one)
                report(number, len(references))
        return found

    def _compare(self, reference: Reference, number: int) -> Compared:
        image, own = self._images(reference.path)
        proba, label = self.file.answer(self._input(image))
        is_read = own is None or np.array_equal(own, image)
        is_resized = not (is_read and number < MOST_STAGES and self._resized_otherwise(image))
        difference = float(np.abs(proba - reference.proba).max())
        return Compared(
            reference, label == reference.code, difference <= tolerance_of(self.specs), difference,
            is_read=is_read, is_resized=is_resized,
        )  # fmt: skip

    def fault(self, found: Agreement) -> str:
        """Return sentences on how the file disagrees and the first stage that differs; empty if it agrees."""
        if found.differ:
            named = (each for each in found.differ if self._is_known(each))
            return (
                f"{len(found.differ):,} of {found.n:,} images are read to other pixels than predict's. "
                f"{self.first_difference(next(named, found.differ[0]))}"
            )
        if found.other_pixels:
            return (
                f"{len(found.other_pixels):,} of {min(found.n, MOST_STAGES):,} images are resized to other pixels than "
                f"predict's. {self.first_difference(found.other_pixels[0])}"
            )
        if min(found.n_same, found.n_close) >= LEAST_SAME * found.n:
            return ""
        assert found.worst is not None
        return (
            f"{found.n_same:,} of {found.n:,} labels are those of predict, and {found.n_close:,} have probabilities "
            f"within {tolerance_of(self.specs):g} of predict's; it has to be {LEAST_SAME:.1%}. "
            f"{self.first_difference(found.worst)}"
        )

    def first_difference(self, reference: Reference) -> str:
        """Return a sentence on the first stage in which the file and `predict` differ on an image."""
        name = f"'{printable(reference.name)}'"
        image, own = self._images(reference.path)
        expected = image if own is None else own
        if image.shape != expected.shape or not np.array_equal(image, expected):
            return f"The first difference is in the decoded image {name}: {describe_decoding(expected, image)}."
        if why := self._resized_otherwise(image):
            return f"The first difference is in the resized pixels of {name}: {why}."
        stages = self.file.stages(self._input(image))
        vectors = self._vectors(reference.path)
        for number, spec in enumerate(self.specs):
            vector = stages[f"features_{number}"][0]
            scale = float(np.abs(vectors[spec.key]).max()) or 1.0
            error = float(np.abs(vector - vectors[spec.key]).max()) / scale
            if not error <= FEATURE_TOLERANCE:
                return (
                    f"The first difference is in the features of {printable(spec.backbone)} of {name}: they differ by "
                    f"{error:.1e} of their largest number."
                )
        return f"The first difference is in the head: the features of {name} are the same, and its answers are not."

    def _is_known(self, reference: Reference) -> bool:
        image, own = self._images(reference.path)
        return own is not None and is_known(image, own)

    def _resized_otherwise(self, image: Image) -> str:
        """Return how the file resizes an image otherwise than `predict`, as a clause; empty where it does not."""
        stages = self.file.stages(self._input(image))
        for number, spec in enumerate(self.specs):
            pixels = stages[f"pixels_{number}"][0].transpose(1, 2, 0)
            if not np.array_equal(pixels, fitted(image, spec.transform)):
                return describe_resizing(image, spec.transform, pixels)
        return ""

    def _input(self, image: Image) -> Image:
        return fitted(image, self.specs[0].transform) if self.is_fixed else np.ascontiguousarray(image)

    def _images(self, path: Path) -> tuple[Image, Image | None]:
        """Return the image that the file gets, and, where another program reads it, what featurecache decodes."""
        own = decoded(path, self.specs[0])
        return (own, None) if self._load is None else (self._load(path), own)


def decoded(path: Path, spec: FeatureSpec) -> Image:
    """Return the pixels of an image file, uint8 (H, W, 3), as the features of a spec are made of them."""
    at_least = spec.transform.resize if spec.decode == REDUCED else None
    pixels = decode_pixels(read_sample(path), at_least=at_least, levels=spec.range)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def read_plainly(path: Path) -> Image:
    """Read an image file with Pillow alone, as the example of the README does: uint8 (H, W, 3)."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))


def read_otherwise(paths: Sequence[Path], spec: FeatureSpec) -> list[str]:
    """Return the names of those files that Pillow alone reads to other pixels than featurecache."""
    differ = []
    for path in paths:
        try:
            if not np.array_equal(read_plainly(path), decoded(path, spec)):
                differ.append(printable(path.name))
        except (OSError, ValueError, FeatureCacheError):
            differ.append(printable(path.name))
    return differ


def check(comparison: Comparison, found: Agreement) -> None:
    """Raise PipelineError where the file disagrees."""
    if fault := comparison.fault(found):
        raise PipelineError(f"The exported file does not agree with predict, so it is not written. {fault}")
