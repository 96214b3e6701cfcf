"""Leakage: the number of test images that are in train or val, and what they can change at most.

A head that has seen an image under the same label may be right about it for that reason alone, and one that has seen it
under another label may be wrong for that. Of n test images, H of the first kind and L of the second, the accuracy on
new ones is therefore at most H / n below the accuracy on all, and at most L / n above it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.extract.job.request import FeatureRequest

if TYPE_CHECKING:
    from featurecache.evaluate.join import Labelled

# Above this share of the test images `featurecache audit` ends with exit code 3: heads that are worth telling apart are
# about a point apart.
MOST_LEAKED = 0.01


@dataclass(frozen=True)
class Leakage:
    """The test images that leaked: n_leaked of n_test.

    n_raising: those by which a test accuracy can be too high; n_lowering: too low. raising, lowering: a clause for each
    way in which they leaked.
    """

    raising: tuple[str, ...]
    lowering: tuple[str, ...]
    n_raising: int
    n_lowering: int
    n_leaked: int
    n_test: int

    @property
    def share(self) -> float:
        """The leaked share of the test images, 0 to 1."""
        return self._share_of(self.n_leaked)

    def matters(self, most: float = MOST_LEAKED) -> bool:
        """Whether more than a share `most` of the test images leaked."""
        return self.share > most

    def verdict(self) -> str:
        """The effect on test accuracies, in one sentence; empty where nothing leaked."""
        effects = (("high", self.n_raising, self.raising), ("low", self.n_lowering, self.lowering))
        found = [
            f"up to {100 * self._share_of(n):.2f} points too {way}: {'; '.join(clauses)}"
            for way, n, clauses in effects
            if clauses
        ]
        return f"Test accuracies can be {'; and '.join(found)}." if found else ""

    def _share_of(self, n: int) -> float:
        return n / max(self.n_test, 1)


def find_leakage(
    labelled: Labelled,
    *,
    copies: Sequence[Sequence[int]],
    near: Sequence[Sequence[int]],
    groups: Sequence[Sequence[int]],
    clause: Callable[[int, str], str],
    compared: str = "",
) -> Leakage:
    """Return the test images that copies and groups tie to train or val, or that have two labels.

    copies, near, groups: the samples of each image, near-copy and group. clause: of a number of test images, and what
    they are. compared: behind the near-copies, where not all images were compared.
    """
    seen, contradicted = seen_before(labelled, copies)
    nearly_seen, nearly_contradicted = seen_before(labelled, near)
    clashing, lost = clashes_in_test(labelled, copies)
    grouped = leaked(labelled, groups)
    raising = (
        (seen, "in train or val too, as exact copies"),
        (nearly_seen, f"nearly the same as one in train or val{compared}"),
        (grouped, "of a group that is in train or val too"),
    )
    lowering = (
        (contradicted, "in train or val too under another label, as exact copies"),
        (nearly_contradicted, f"nearly the same as one of another label in train or val{compared}"),
        (clashing, "the same as a test image under another label, where heads can be right about one only"),
    )
    all_raising = seen | nearly_seen | grouped
    all_lowering = contradicted | nearly_contradicted
    return Leakage(
        tuple(clause(len(rows), what) for rows, what in raising if rows),
        tuple(clause(len(rows), what) for rows, what in lowering if rows),
        len(all_raising),
        len(all_lowering | lost),
        len(all_raising | all_lowering | clashing),
        len(labelled.rows("test")),
    )


def leaked(labelled: Labelled, sets: Sequence[Sequence[int]]) -> set[int]:
    """The test samples in any of these sets of samples that has members in train or val too."""
    found: set[int] = set()
    for rows in sets:
        test = _in_test(labelled, rows)
        if len(test) < len(rows):
            found.update(test)
    return found


def seen_before(labelled: Labelled, sets: Sequence[Sequence[int]]) -> tuple[set[int], set[int]]:
    """The test samples in sets with members in train or val: with one of the same label there, and of another one.

    A test sample that has both is in both.
    """
    same, other = set[int](), set[int]()
    for rows in sets:
        test = _in_test(labelled, rows)
        labels = {int(labelled.y[i]) for i in rows if labelled.splits[i] != "test"}
        same.update(i for i in test if int(labelled.y[i]) in labels)
        other.update(i for i in test if labels - {int(labelled.y[i])})
    return same, other


def clashes_in_test(labelled: Labelled, sets: Sequence[Sequence[int]]) -> tuple[set[int], set[int]]:
    """The test samples in sets under several labels that are in test alone, and those of them that a head must fail.

    A head that is right about one of these labels is wrong about all others; at the most, about all but the rarest.
    """
    clashing, lost = set[int](), set[int]()
    for rows in sets:
        test = _in_test(labelled, rows)
        labels = Counter(int(labelled.y[i]) for i in test)
        if len(labels) > 1 and len(test) == len(rows):
            rarest = min(labels, key=lambda code: labels[code])
            clashing.update(test)
            lost.update(i for i in test if int(labelled.y[i]) != rarest)
    return clashing, lost


def _in_test(labelled: Labelled, rows: Sequence[int]) -> list[int]:
    return [i for i in rows if labelled.splits[i] == "test"]


def read_leakage(values: Mapping[str, object]) -> str:
    """Return the verdict that an audit.json holds, also one that older versions wrote; empty where there is none."""
    return str(values.get("why") or "") if values.get("untrue") or values.get("n_leaked") else ""


@dataclass(frozen=True)
class AuditCall:
    """The arguments of `audit_images`, besides the images, that list the images that leaked."""

    request: FeatureRequest
    cache_root: Path
    seed: int
    min_per_class: int


# The sentence on how to list the test images that leaked, behind the warning that some did.
AuditAdvice = Callable[[AuditCall], str]


def advise_audit_images(call: AuditCall) -> str:
    """An AuditAdvice for callers from Python."""
    return "Call audit_images to list them."
