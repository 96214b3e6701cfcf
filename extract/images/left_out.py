"""Files that are not samples: how many there are, by reason and suffix, and which of them somebody would miss.

A Reason is a row of the table below. Where it is `missed`, a person would count such files as images of the data set:
they are listed by name, for errors.csv and exit code 3. All others are counted only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypedDict

from featurecache.base.text import count, printable

# A suffix is one for these lengths; behind a longer or an unprintable one is the rest of a name.
MAX_SUFFIX = 12
# Files named by numbers (photo.1, photo.2, ...) would otherwise need a row each.
MAX_SUFFIXES = 500
OTHER_SUFFIX = "others"
# Names and suffixes that a sentence shows.
SHOWN = 3


class Reason(NamedTuple):
    """Why files are no samples.

    code: in JSON. one, many: a noun with its verb, before 'left out'. missed: whether somebody would count such a file
    as an image of the data set. advice: the next step. is_folder: it is about folders, which are no files.
    """

    code: str
    one: str
    many: str
    missed: bool = False
    advice: str = ""
    is_folder: bool = False

    def text(self, detail: str = "") -> str:
        """Return the reason for one file, as in a list of files; detail: of this one."""
        because = f" ({detail})" if detail else ""
        advice = f". {self.advice}" if self.advice else ""
        return f"{self.one.rsplit(' ', 1)[0].rstrip(',')}{because}{advice}".removesuffix(".")


REFUSED_IMAGE = Reason("refused", "image that cannot be read is", "images that cannot be read are", missed=True)
NO_LABEL = Reason("no_label", "image without a label is", "images without a label are")
RARE_CLASS = Reason("rare_class", "image of a class with too few is", "images of classes with too few are")
NOT_SAMPLED = Reason("not_sampled", "image outside the sample is", "images outside the sample are")
BAD_ARGUMENT = Reason(
    "bad_argument", "argument that cannot be read is", "arguments that cannot be read are", missed=True
)
NO_FILE = Reason(
    "no_file", "argument that leads to no image is", "arguments that lead to no image are", missed=True, is_folder=True,
)  # fmt: skip
NO_IMAGE = Reason("no_image", "file that is no image is", "files that are not images are")
HIDDEN = Reason("hidden", "hidden file is", "hidden files are")
SYSTEM = Reason("system", "file of the operating system is", "files of the operating system are")
OWN = Reason("own", "file of featurecache's own caches and runs is", "files of featurecache's own caches and runs are")
LINK_BACK = Reason(
    "link_back",
    "link that leads back to a folder above it is",
    "links that lead back to a folder above them are",
    is_folder=True,
)
CLOSED_SYSTEM = Reason(
    "closed_system", "hidden folder that cannot be read is", "hidden folders that cannot be read are", is_folder=True
)
LOOSE = Reason(
    "loose",
    "image outside the class folders is",
    "images outside the class folders are",
    missed=True,
    advice="Move each into the folder of its class.",
)
NEEDS_HEIF = Reason(
    "needs_heif",
    "HEIC image is",
    "HEIC images are",
    missed=True,
    advice="They can be read with the extra heif: pip install 'featurecache[heif]'.",
)
NEEDS_DICOM = Reason(
    "needs_dicom",
    "DICOM image is",
    "DICOM images are",
    missed=True,
    advice="They can be read with the extra dicom: pip install 'featurecache[dicom]'.",
)
RAW = Reason(
    "raw",
    "RAW image of a camera is",
    "RAW images of a camera are",
    missed=True,
    advice="Export them as JPEG, PNG or TIFF.",
)
NO_DECODER = Reason(
    "no_decoder",
    "image of a format that cannot be read is",
    "images of formats that cannot be read are",
    missed=True,
    advice="Save them as JPEG, PNG or TIFF.",
)
UNFINISHED = Reason(
    "unfinished",
    "unfinished download of an image is",
    "unfinished downloads of images are",
    missed=True,
    advice="Download them again.",
)
CLOSED_FILE = Reason(
    "closed_file",
    "file that cannot be read, perhaps an image, is",
    "files that cannot be read, perhaps images, are",
    missed=True,
    advice="Make them readable, or move them away.",
)
OUTSIDE_SPLITS = Reason(
    "outside_splits",
    "image outside the folders of the splits is",
    "images outside the folders of the splits are",
    missed=True,
    advice="Move each into the folder of its split.",
)
MISSING_FILE = Reason(
    "missing_file",
    "file that a table names and that is not there is",
    "files that a table names and that are not there are",
    missed=True,
    advice="Put them in place, or correct the paths.",
)
CLOSED_FOLDER = Reason(
    "closed_folder",
    "folder that cannot be read is",
    "folders that cannot be read are",
    missed=True,
    advice="Make them readable, or move them away.",
    is_folder=True,
)
EMPTY_CLASS = Reason(
    "empty_class",
    "class folder with files and no image that can be read is",
    "class folders with files and no image that can be read are",
    missed=True,
    is_folder=True,
)
IMAGE_NEXT_TO_VECTORS = Reason(
    "image_next_to_vectors", "image in a folder of vectors is", "images in a folder of vectors are", missed=True,
    advice="Move them into a folder of their own.",
)  # fmt: skip
REASONS = {
    reason.code: reason
    for reason in (
        REFUSED_IMAGE, BAD_ARGUMENT, NO_FILE, NO_LABEL, RARE_CLASS, NOT_SAMPLED,
        NO_IMAGE, HIDDEN, SYSTEM, OWN, LINK_BACK, CLOSED_SYSTEM, LOOSE, OUTSIDE_SPLITS, NEEDS_HEIF, NEEDS_DICOM, RAW,
        NO_DECODER, UNFINISHED, CLOSED_FILE, MISSING_FILE, CLOSED_FOLDER, EMPTY_CLASS, IMAGE_NEXT_TO_VECTORS,
    )
}  # fmt: skip


class Missed(NamedTuple):
    """A file or folder that somebody would miss: its name as that of a sample, and the code and text of the reason."""

    name: str
    code: str
    reason: str


class LeftOutRow(TypedDict):
    """How many files of one suffix are left out for one reason; suffix: in lower case, with its dot, or empty."""

    reason: str
    suffix: str
    n: int


class LeftOutDocument(TypedDict):
    """A LeftOut as JSON: the number of files in all, and by reason and suffix; that of folders by reason.

    n_missed: files and folders that somebody would miss.
    """

    n_files: int
    n_missed: int
    by_reason: list[LeftOutRow]
    folders: dict[str, int]
    empty_classes: list[str]


@dataclass(frozen=True)
class LeftOut:
    """What a folder or table holds that is not a sample.

    counts: {(code of the reason, suffix): number}. missed: the files and folders that somebody would miss, in order.
    """

    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    missed: tuple[Missed, ...] = ()

    @property
    def n_files(self) -> int:
        """The number of files that are not samples, folders not counted."""
        return sum(n for (code, _), n in self.counts.items() if not REASONS[code].is_folder)

    def n(self, reason: Reason) -> int:
        """Return the number of files or folders that are left out for this reason."""
        return sum(n for (code, _), n in self.counts.items() if code == reason.code)

    def names(self, reason: Reason) -> tuple[str, ...]:
        """Return the names of those that are left out for this reason; empty where the reason is not `missed`."""
        return tuple(each.name for each in self.missed if each.code == reason.code)

    def sentences(self) -> tuple[str, ...]:
        """Return one sentence for each reason, with the most frequent suffixes, or the first names of folders."""
        return tuple(self._sentence(reason) for reason in REASONS.values() if self.n(reason))

    def _sentence(self, reason: Reason) -> str:
        n = self.n(reason)
        shown = self._folders(reason) if reason.is_folder else self._suffixes(reason)
        advice = f" {reason.advice}" if reason.advice else ""
        return f"{count(n, reason.one, reason.many)} left out{shown}.{advice}"

    def _suffixes(self, reason: Reason) -> str:
        found = [(n, suffix) for (code, suffix), n in self.counts.items() if code == reason.code and suffix]
        found.sort(key=lambda row: (-row[0], row[1]))
        named = [f"{n:,} {suffix}" for n, suffix in found[:SHOWN]]
        return f" ({', '.join(named)}{', ...' if len(found) > SHOWN else ''})" if named else ""

    def _folders(self, reason: Reason) -> str:
        found = [each for each in self.missed if each.code == reason.code]
        named = [f"'{printable(each.name)}'" for each in found[:SHOWN]]
        return f": {', '.join(named)}{', ...' if len(found) > SHOWN else ''}" if named else ""

    def to_dict(self) -> LeftOutDocument:
        """Return the counts as JSON, in the order of the table of reasons."""
        places = {code: place for place, code in enumerate(REASONS)}
        rows = sorted(self.counts.items(), key=lambda row: (places[row[0][0]], -row[1], row[0][1]))
        files = [(row, n) for row, n in rows if not REASONS[row[0]].is_folder]
        return {
            "n_files": self.n_files,
            "n_missed": len(self.missed),
            "by_reason": [{"reason": code, "suffix": suffix, "n": n} for (code, suffix), n in files],
            "folders": {code: n for (code, _), n in rows if REASONS[code].is_folder},
            "empty_classes": [printable(name) for name in self.names(EMPTY_CLASS)],
        }

    def renamed(self, name: Callable[[str], str]) -> LeftOut:
        """Return the same with other names, as where several data sets are read as one."""
        return replace(self, missed=tuple(each._replace(name=name(each.name)) for each in self.missed))

    @classmethod
    def merge(cls, parts: Iterable[LeftOut]) -> LeftOut:
        """Return what several data sets leave out together."""
        tally = Tally()
        for part in parts:
            for (code, suffix), n in part.counts.items():
                tally.count(REASONS[code], suffix, n)
            tally.missed += part.missed
        return tally.left_out()


class Tally:
    """A LeftOut in the making."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self.missed: list[Missed] = []

    def add(self, reason: Reason, name: str, detail: str = "") -> None:
        """Count a file or folder by the suffix of its name; detail: why, for the text of this one."""
        self.count(reason, "" if reason.is_folder else suffix_of(name))
        if reason.missed:
            self.missed.append(Missed(name, reason.code, reason.text(detail)))

    def count(self, reason: Reason, suffix: str, n: int = 1) -> None:
        """Count n files of a suffix without their names."""
        row = (reason.code, suffix)
        if row not in self.counts and len(self.counts) >= MAX_SUFFIXES:
            row = (reason.code, OTHER_SUFFIX)
        self.counts[row] = self.counts.get(row, 0) + n

    def left_out(self) -> LeftOut:
        """Return what was counted."""
        return LeftOut(dict(self.counts), tuple(sorted(self.missed)))


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case with its dot; empty where there is none, or no sensible one."""
    stem, dot, suffix = name.rpartition(".")
    if (
        not stem.rpartition("/")[2].strip(".")
        or not 0 < len(suffix) <= MAX_SUFFIX
        or not suffix.isprintable()
        or "/" in suffix
    ):
        return ""
    return f"{dot}{suffix.lower()}"
