"""Leakage: the number of test images that are in train or val, and what they can change at most.

A head that has seen an image may be right about it for that reason alone. Of n test images, L of them leaked, the
accuracy on new ones is therefore at most L / n below the accuracy on all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurecache.extract.job.request import FeatureRequest

# Above this share of the test images `featurecache audit` ends with exit code 3: heads that are worth telling apart are
# about a point apart.
MOST_LEAKED = 0.01


@dataclass(frozen=True)
class Leakage:
    """reasons: a clause for each way in which test images leaked; n_leaked of n_test images by any of them."""

    reasons: tuple[str, ...]
    n_leaked: int
    n_test: int

    @property
    def share(self) -> float:
        """The leaked share of the test images, 0 to 1; by so much a test accuracy can be too high."""
        return self.n_leaked / max(self.n_test, 1)

    def matters(self, most: float = MOST_LEAKED) -> bool:
        """Whether more than a share `most` of the test images leaked."""
        return self.share > most

    def verdict(self) -> str:
        """The effect on test accuracies, in one sentence; empty where nothing leaked."""
        if not self.n_leaked:
            return ""
        points = f"{100 * self.share:.2f} points too high"
        return f"Test accuracies can be up to {points}: {'; '.join(self.reasons)}."


def leakage_of(ways: Sequence[tuple[Collection[int], str]], n_test: int) -> Leakage:
    """Return the test images that leaked in some ways; a way: its samples, and the clause that counts them."""
    leaked = set().union(*(rows for rows, _ in ways)) if ways else set()
    return Leakage(tuple(clause for rows, clause in ways if rows), len(leaked), n_test)


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
