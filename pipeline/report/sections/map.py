"""A sample of the test images laid out flat, so that images with like features lie near each other.

N test images, D feature dim.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import ExtractError
from featurecache.base.text import count, count_is
from featurecache.extract.cache.store import FeatureCache, read_spec
from featurecache.extract.images.read import read_images
from featurecache.extract.images.vectors.origin import is_of_vectors
from featurecache.features.feature_set import Source
from featurecache.features.joined import Joined, joined_spec
from featurecache.report.sections.kept_maps import LaidOut, keep_map, map_identity, read_map, scaled_layout
from featurecache.report.sections.reproduce import images_of, reading_of
from featurecache.report.sections.tsne import ITERATIONS, PERPLEXITY, tsne_beside
from featurecache.report.wording import percent
from featurecache.runs.documents import FeatureRow, HeadRow, cache_folder, cache_folders
from featurecache.runs.folder import RESULTS_FILE
from featurecache.runs.head_choice import features_of, members_of
from featurecache.runs.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A browser draws so many points without a pause, t-SNE of them takes 4 s on one core, their pictures stay below 4 MB.
MAX_POINTS = 2000
# What PCA keeps for t-SNE (van der Maaten and Hinton 2008 take 30); more is mostly noise.
MAX_COMPONENTS = 50
SEED = 0
# The layouts of a map that is kept.
NAMES = ("t-SNE", "PCA")


@dataclass(frozen=True)
class MapPoints:
    """A sample of the test images, `rows` (n,), with features X (n, D) from a cache folder; others have none there."""

    rows: NDArray[np.int64]
    X: NDArray[np.float32]
    folder: Path
    n_absent: int

    @cached_property
    def identity(self) -> str:
        """Name of the map of these points, by their features and the settings it is laid out with."""
        return map_identity(
            self.X,
            {
                "components": MAX_COMPONENTS,
                "seed": SEED,
                "iterations": ITERATIONS,
                "perplexity": PERPLEXITY,
            },
        )


@contextlib.contextmanager
def laying_out(points: MapPoints) -> Iterator[Callable[[float], LaidOut]]:
    """Lay points out by PCA and t-SNE while the block runs; call what it yields for the layouts, with seconds to wait.

    Without t-SNE where that is not ready by then, or the points are too few for it. A map that is kept with the cache
    is there at once; a new one is kept.
    """
    kept = read_map(points.folder, points.identity, NAMES, len(points.rows))
    if kept is not None:
        yield lambda seconds: kept
        return
    components, variance = principal_components(points.X)
    share = min(float(variance[:2].sum()), 1.0)
    plain = scaled_layout("PCA", components[:, :2])

    def lay_out(seconds: float) -> LaidOut:
        places = flat(seconds)
        if places is None:
            return LaidOut([plain], share)
        found = LaidOut([scaled_layout("t-SNE", places), plain], share)
        keep_map(points.folder, points.identity, found)
        return found

    with tsne_beside(components) as flat:  # it takes one core while this process takes the other
        yield lay_out


def map_points(record: Record, cache_root: Path) -> MapPoints | str:
    """The sample in the features of the chosen head; a sentence that says why where there is none."""
    head = record.heads[record.chosen]
    head = next(iter(members_of(record.heads, head)), head)
    found = read_features(record, head, sample_rows(_wrong(record), MAX_POINTS), cache_root)
    if isinstance(found, str):
        return found
    if len(found.rows) < 3 or found.X.shape[1] < 2:
        return "There are too few test images or features for a map."
    return found


def _wrong(record: Record) -> NDArray[np.bool_]:
    return np.asarray(record.answers[record.chosen].predicted != record.y)


def sample_rows(wrong: NDArray[np.bool_], limit: int) -> NDArray[np.int64]:
    """At most `limit` of N images, in order: the errors first, at most half of the sample, the rest by chance."""
    rng = np.random.default_rng(SEED)
    errors, others = rng.permutation(np.flatnonzero(wrong)), rng.permutation(np.flatnonzero(~wrong))
    n_errors = min(len(errors), max(limit // 2, limit - len(others)))
    return np.sort(np.concatenate([errors[:n_errors], others[: limit - n_errors]]))


def read_features(record: Record, head: HeadRow, rows: NDArray[np.int64], cache_root: Path) -> MapPoints | str:
    """Those of these test images that have features in the cache, or a sentence where none has."""
    name = features_of(head)
    entry = next((f for f in record.results["features"] if f.get("name", f["backbone"]) == name), None)
    if entry is None:
        return f"{RESULTS_FILE} does not say which features {name} are, so there is no map of them."
    digests = np.frombuffer(bytes.fromhex("".join(record.digests[i] for i in rows)), np.uint8).reshape(-1, 32)
    try:
        folder = cache_root / cache_folder(entry)
        cache = _source(record, entry, cache_root)
        if cache is None or (absent := cache.missing(digests)).all():
            where = "in their file" if is_of_vectors(name) else "in the cache"
            return f"The features of {name} are no longer {where}, so there is no map of them."
        return MapPoints(rows[~absent], cache.lookup(digests[~absent]), folder, int(absent.sum()))
    except (ExtractError, OSError) as error:
        return f"The features of {name} cannot be read, so there is no map of them: {error}"


def _source(record: Record, entry: FeatureRow, cache_root: Path) -> Source | None:
    """Where the features of a run are: in the cache, or in the file that the run was made of."""
    if is_of_vectors(entry.get("name", entry["backbone"])):
        return read_images(images_of(record.config), reading_of(record.config)).vectors
    parts = entry.get("parts") or []
    specs = [read_spec(cache_root / folder) for folder in cache_folders([entry])]
    known = [spec for spec in specs if spec is not None]
    if len(known) < len(specs):
        return None
    caches = [FeatureCache(cache_root, spec) for spec in known]
    if not parts:
        return caches[0]
    return Joined(joined_spec(known), tuple(caches), tuple(part["scale"] for part in parts))


def principal_components(X: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """X (n, D) on its first d <= 50 principal components (n, d), and the share of variance of each (d,)."""
    from featurecache.classify.solvers.covariance import decompose_rows

    n_components = min(MAX_COMPONENTS, len(X) - 1, X.shape[1])
    components, variance = np.zeros((len(X), n_components), np.float32), np.zeros(n_components)
    if np.ptp(X, axis=0).any():
        wide = X.astype(np.float64)
        wide -= wide.mean(axis=0)
        left, energy = decompose_rows(wide)  # the largest last
        best = np.argsort(-energy, kind="stable")[:n_components]
        components[:, : len(best)] = left[:, best] * np.sqrt(energy[best])
        variance[: len(best)] = energy[best] / energy.sum()
    return components, variance


def map_caption(record: Record, points: MapPoints, found: LaidOut) -> str:
    """What the map of these test images shows, and how to read it."""
    title, wrong = record.titles[record.chosen], _wrong(record)
    rows, n_absent, them = points.rows, points.n_absent, "it" if points.n_absent == 1 else "them"
    if len(rows) + n_absent == len(wrong):
        which = "" if n_absent else "All "
        what = f"{which}{count(len(rows), 'test image')}, each a point, by the features of {title}"
    else:
        drawn, all_errors = int(wrong[rows].sum()), int(wrong.sum())
        which = "all" if drawn == all_errors else f"{drawn:,} of the"
        what = (
            f"{len(rows):,} of {count(len(wrong), 'test image')}: {which} {count(all_errors, 'error')} of {title} and "
            f"{len(rows) - drawn:,} others drawn at random, so errors look more frequent here than they are. "
            f"Each is a point, placed by the features of {title}"
        )
    return (
        f"{what}; colour is its label, a ring an error of the head shown. Near points have similar features: a ring "
        "inside another colour's cloud is an image that looks like the other class, or has a wrong label. "
        f"The two axes of PCA hold {percent(found.variance)} of the variance."
        + (f" {count_is(n_absent, 'image')} left out: the cache has no features of {them}." if n_absent else "")
    )


def map_values(record: Record, rows: NDArray[np.int64], found: LaidOut) -> dict[str, Any]:
    """Return what map.js draws: places, labels, predictions of every head, names."""
    return {
        "layouts": [asdict(each) for each in found.layouts],
        "label": record.y[rows].tolist(),
        "said": [answers.predicted[rows].tolist() for answers in record.answers],
        "sure": [np.round(100 * answers.confidence[rows]).astype(int).tolist() for answers in record.answers],
        "names": [record.names[i] for i in rows],
    }
