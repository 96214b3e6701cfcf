"""Every file of a data set: used, refused, or left out for a reason.

    number of files = used + the sum over reasons and suffixes

The files that somebody would miss are listed one by one, in errors.csv, and make exit code 3; all others are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from featurecache.extract.images.digests import Refusal
from featurecache.extract.images.left_out import (
    EMPTY_CLASS,
    NO_LABEL,
    RARE_CLASS,
    REFUSED_IMAGE,
    LeftOut,
    Reason,
    Tally,
    suffix_of,
)
from featurecache.extract.images.manifest import IMAGE, Manifest, Sample
from featurecache.runs.documents import FilesDocument


@dataclass(frozen=True)
class FileCounts:
    """Every file of a data set, once.

    n_used: images that are used. left_out: all others. refusals: those that somebody would miss, with the reason, and
    with the digest of images that could be read as files. noun: what its samples are.
    """

    n_used: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    refusals: tuple[Refusal, ...] = ()
    noun: str = IMAGE

    def to_dict(self) -> FilesDocument:
        """Return the counts as JSON."""
        found = self.left_out.to_dict()
        counts: FilesDocument = {
            "n_files": self.n_used + found["n_files"],
            "n_used": self.n_used,
            "n_missed": len(self.refusals),
            "by_reason": found["by_reason"],
            "folders": found["folders"],
            "vanished_classes": found["empty_classes"],
        }
        return counts if self.noun == IMAGE else {**counts, "noun": self.noun}


def merge_counts(counts: Sequence[FileCounts]) -> FileCounts:
    """Return the counts of several data sets of one kind as one."""
    first, *others = counts
    if not others:
        return first
    left_out = LeftOut.merge([each.left_out for each in counts])
    refusals = tuple(refusal for each in counts for refusal in each.refusals)
    return FileCounts(sum(each.n_used for each in counts), left_out, refusals, first.noun)


def count_files(
    manifest: Manifest,
    used: Collection[Sample],
    refusals: Sequence[Refusal] = (),
    *,
    needs_labels: bool = True,
    why_unused: Callable[[Sample], Reason] | None = None,
) -> FileCounts:
    """Return what became of every file of a data set.

    used: the samples that are in a result. refusals: those that could not be read. needs_labels: whether a class that
    has no image left is missed. why_unused: why any other sample with a label is not used, for its class unless given.
    """
    tally = Tally()
    for each in refusals:
        tally.count(REFUSED_IMAGE, suffix_of(each.name))
    if len(used) + len(refusals) < len(manifest):
        taken, refused = set(used), {each.name for each in refusals}
        for sample in manifest.samples:
            if sample not in taken and sample.name not in refused:
                unused = RARE_CLASS if why_unused is None else why_unused(sample)
                tally.count(NO_LABEL if sample.label is None else unused, suffix_of(sample.name))
    if refusals and needs_labels:
        for name in _vanished(manifest, used, refusals):
            tally.add(EMPTY_CLASS, name)
    left_out = LeftOut.merge([tally.left_out(), manifest.left_out])
    missed = (Refusal(each.name, "", each.reason) for each in left_out.missed)
    return FileCounts(len(used), left_out, (*refusals, *missed), manifest.noun)


def _vanished(manifest: Manifest, used: Collection[Sample], refusals: Sequence[Refusal]) -> list[str]:
    """Return the classes of which every image is refused."""
    refused = {each.name for each in refusals}
    left = {sample.label for sample in used}
    left |= {sample.label for sample in manifest.samples if sample.name not in refused}
    return sorted({sample.label for sample in manifest.samples if sample.label is not None} - left)
