"""A quick check for test images that are in train, with every `classify`; `audit` looks thoroughly.

Exact copies and groups are counted. Near-copies are sought in a sample: of up to 1,000 test images the 200 whose
features are most like those of an image in train or val, each compared with its five nearest there. Only a correlation
above 0.999 counts, for what is usual between neighbours cannot be known from five.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.text import count_is, printable
from featurecache.evaluate.audit import conflicts, groups_across
from featurecache.evaluate.copies import N_NEIGHBOURS, SURE, same_bytes
from featurecache.evaluate.join import Labelled
from featurecache.evaluate.leak_effect import AuditAdvice, AuditCall, Leakage, advise_audit_images, find_leakage

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_TEST = 1000  # times 60,000 x 1280: one matrix product of 2 s on two cores
N_READ = 200  # times six images to decode: 2 s for photos


def leak_warnings(
    labelled: Labelled, X: NDArray[np.float32], call: AuditCall, advise: AuditAdvice = advise_audit_images
) -> list[str]:
    """A sentence on how many test images leaked and what that changes, and how to list them; none where none did.

    Another one on images under several labels, wherever they are. X (N, D): features of the labelled images.
    """
    verdict = find_leaks(labelled, X, seed=call.seed).verdict()
    found = [verdict, *conflict_warnings(labelled)]
    return [f"{sentence} {printable(advise(call))}" for sentence in found if sentence]


def conflict_warnings(labelled: Labelled) -> list[str]:
    """A sentence on the images that are there under several labels, by their bytes; none where there are none."""
    found = conflicts(labelled, same_bytes(labelled.digests), [])
    if not found:
        return []
    rows = found[0][1]
    names = " and ".join(printable(name) for name in sorted({labelled.classes[labelled.y[i]] for i in rows}))
    return [
        f"{count_is(len(found), 'image')} in the data under several labels, the first, "
        f"'{printable(labelled.samples[rows[0]].name)}', under {names}: heads can be right about one of them only."
    ]


def find_leaks(labelled: Labelled, X: NDArray[np.float32], *, seed: int = 0) -> Leakage:
    """The test images that leaked, as far as a quick look shows; X (N, D)."""
    near, n_compared = near_copies_seen(labelled, X, seed=seed)
    return find_leakage(
        labelled,
        copies=[each.rows for each in same_bytes(labelled.digests)],
        near=near,
        groups=list(groups_across(labelled).values()),
        clause=lambda n, what: f"{count_is(n, 'test image')} {what}",
        compared=f", of {n_compared:,} compared",
    )


def near_copies_seen(labelled: Labelled, X: NDArray[np.float32], *, seed: int = 0) -> tuple[list[tuple[int, int]], int]:
    """Test images and a near-copy of each in train or val, but for exact ones, and how many were compared; X (N, D).

    None of vectors from a file, which have no pictures to compare.
    """
    if labelled.vectors is not None:
        return [], 0
    from featurecache.classify.evaluation.similarity import nearest_others
    from featurecache.extract.images.fingerprints import read_thumbnails

    test, others = labelled.rows("test"), labelled.rows("train", "val")
    seen = X[labelled.place("train", "val")]  # a view: X may be larger than memory
    test = np.sort(np.random.default_rng(seed).permutation(test)[:N_TEST])
    if len(others) < N_NEIGHBOURS or not len(test):
        return [], 0
    rows, cosine = nearest_others(X[test], seen, N_NEIGHBOURS, np.full(len(test), -1))
    likely = np.argsort(-cosine[:, 0], kind="stable")[:N_READ]
    places = np.column_stack([test[likely], others[rows[likely]]])
    wanted, place = np.unique(places, return_inverse=True)
    thumbnails = read_thumbnails([labelled.samples[i] for i in wanted])[place.reshape(places.shape)]
    is_near = 1 - np.einsum("nd,nkd->nk", thumbnails[:, 0], thumbnails[:, 1:]) <= SURE
    is_exact = (labelled.digests[places[:, :1]] == labelled.digests[places[:, 1:]]).all(axis=2).any(axis=1)
    found = np.argwhere(is_near & ~is_exact[:, None])
    return [(int(places[row, 0]), int(places[row, 1 + k])) for row, k in found], len(likely)
