"""The summary of an extraction: counts, refusals, and seconds by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from featurecache.extract.cache.names import are_among, as_names
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.digests import Digested, Refusal
from featurecache.extract.images.manifest import Sample
from featurecache.extract.job.plan import Plan, Work
from featurecache.extract.job.request import FeatureRequest, Resolved

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Seconds:
    """Seconds by step.

    read, decode, forward and write are sums over threads; digest, load and wait (for the next vectors) are consecutive
    and make up nearly all of the total.
    """

    read: float = 0.0
    decode: float = 0.0
    forward: float = 0.0
    write: float = 0.0
    total: float = 0.0
    digest: float = 0.0
    load: float = 0.0
    wait: float = 0.0


@dataclass(frozen=True)
class Filled:
    """One cache after the run: distinct images that it had before, and that were added.

    n_outdated: images among those to add that it had by older decode rules, which read them otherwise.
    """

    request: FeatureRequest
    resolved: Resolved
    cache: FeatureCache
    n_present: int
    n_extracted: int
    n_outdated: int = 0


@dataclass(frozen=True)
class ExtractReport:
    """The result of `extract_features`: samples with features, and their digests (N, 32).

    Counts are of distinct images; `refusals` has an entry for every refused sample. notes: lines on images whose pixels
    may not be what the user expects, and on a change of all pixels.
    """

    samples: tuple[Sample, ...]
    digests: NDArray[np.uint8]
    filled: tuple[Filled, ...]
    refusals: tuple[Refusal, ...]
    seconds: Seconds
    n_decoded: int
    engines: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())


def write_report(
    digested: Digested,
    work: Work,
    *,
    refused: Mapping[bytes, Refusal],
    seconds: Seconds,
    n_decoded: int,
    n_extracted: Mapping[Plan, int],
    notes: Sequence[str] = (),
) -> ExtractReport:
    """Return the report of a run; every copy of a refused image is a refusal."""
    samples, digests, refusals = digested.samples, digested.digests, list(digested.refusals)
    if refused:
        is_refused = are_among(as_names(digests), np.array(list(refused), dtype="S32"))
        for i in np.flatnonzero(is_refused):
            reason = refused[bytes(digests[i])]
            refusals.append(Refusal(samples[i].name, reason.digest, reason.reason))
        samples = tuple(samples[i] for i in np.flatnonzero(~is_refused))
        digests = digests[~is_refused]
    return ExtractReport(
        samples=samples,
        digests=digests,
        filled=tuple(
            Filled(r, p.resolved, p.cache, p.n_present, n_extracted.get(p, 0), p.n_outdated) for r, p in work.asked
        ),
        refusals=tuple(refusals),
        seconds=seconds,
        n_decoded=n_decoded,
        engines=tuple(group.engine.reason for group in work.groups if group.engine is not None),
        notes=tuple(notes),
    )
