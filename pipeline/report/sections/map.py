"""A sample of the test images laid out flat, so that images with like features lie near each other.

N test images, D feature dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import ExtractError
from featurecache.base.text import count, count_is
from featurecache.extract.cache.store import FeatureCache, read_spec
from featurecache.report.wording import percent
from featurecache.runs.documents import HeadRow, cache_folder
from featurecache.runs.folder import RESULTS_FILE
from featurecache.runs.head_choice import features_of
from featurecache.runs.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A browser draws so many points without a pause, t-SNE of them takes 4 s on one core, their pictures stay below 4 MB.
MAX_POINTS = 2000
# What PCA keeps for t-SNE (van der Maaten and Hinton 2008 take 30); more is mostly noise.
MAX_COMPONENTS = 50
SEED = 0


@dataclass(frozen=True)
class FeatureMap:
    """Points of `rows` (n,) of the test images: components (n, d) by PCA, variance (d,) as shares of the whole."""

    rows: NDArray[np.int64]
    components: NDArray[np.float32]
    variance: NDArray[np.float64]
    caption: str


def feature_map(record: Record, cache_root: Path) -> FeatureMap | str:
    """The sample in the features of the chosen head; a sentence that says why where there is none."""
    head, answers = record.heads[record.chosen], record.answers[record.chosen]
    wrong = answers.predicted != record.y
    sample = sample_rows(wrong, MAX_POINTS)
    found = read_features(record, head, sample, cache_root)
    if isinstance(found, str):
        return found
    rows, X = found
    if len(rows) < 3 or X.shape[1] < 2:
        return "There are too few test images or features for a map."
    components, variance = principal_components(X)
    caption = _caption(record, wrong, rows, components, variance, n_absent=len(sample) - len(rows))
    return FeatureMap(rows, components, variance, caption)


def sample_rows(wrong: NDArray[np.bool_], limit: int) -> NDArray[np.int64]:
    """At most `limit` of N images, in order: the errors first, at most half of the sample, the rest by chance."""
    rng = np.random.default_rng(SEED)
    errors, others = rng.permutation(np.flatnonzero(wrong)), rng.permutation(np.flatnonzero(~wrong))
    n_errors = min(len(errors), max(limit // 2, limit - len(others)))
    return np.sort(np.concatenate([errors[:n_errors], others[: limit - n_errors]]))


def read_features(
    record: Record, head: HeadRow, rows: NDArray[np.int64], cache_root: Path
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | str:
    """Those of these test images that have features in the cache (n,), and these (n, D); a sentence where none has."""
    name = features_of(head)
    entry = next((f for f in record.results["features"] if f.get("name", f["backbone"]) == name), None)
    if entry is None:
        return f"{RESULTS_FILE} does not say which features {name} are, so there is no map of them."
    digests = np.frombuffer(bytes.fromhex("".join(record.digests[i] for i in rows)), np.uint8).reshape(-1, 32)
    try:
        spec = read_spec(cache_root / cache_folder(entry))
        cache = None if spec is None else FeatureCache(cache_root, spec)
        if cache is None or (absent := cache.missing(digests)).all():
            return f"The features of {name} are no longer in the cache, so there is no map of them."
        return rows[~absent], cache.lookup(digests[~absent])
    except (ExtractError, OSError) as error:
        return f"The features of {name} cannot be read, so there is no map of them: {error}"


def principal_components(X: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """X (n, D) on its first d <= 50 principal components (n, d), and the share of variance of each (d,)."""
    from sklearn.decomposition import PCA

    n_components = min(MAX_COMPONENTS, len(X) - 1, X.shape[1])
    if not np.ptp(X, axis=0).any():
        return np.zeros((len(X), n_components), np.float32), np.zeros(n_components)
    solver = "randomized" if n_components < min(X.shape) // 2 else "full"
    pca = PCA(n_components, svd_solver=solver, random_state=SEED)
    return pca.fit_transform(X).astype(np.float32), pca.explained_variance_ratio_


def _caption(
    record: Record,
    wrong: NDArray[np.bool_],
    rows: NDArray[np.int64],
    components: NDArray[np.float32],
    variance: NDArray[np.float64],
    *,
    n_absent: int,
) -> str:
    title, them = record.titles[record.chosen], "it" if n_absent == 1 else "them"
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
        f"The two axes of PCA hold {percent(float(variance[:2].sum()))} of the variance."
        + (f" {count_is(n_absent, 'image')} left out: the cache has no features of {them}." if n_absent else "")
    )


def map_values(record: Record, found: FeatureMap, flat: NDArray[np.float32] | None) -> dict[str, Any]:
    """Return what map.js draws: places, labels, predictions of every head, names."""
    layouts = [{"name": "PCA", **_places(found.components[:, :2])}]
    if flat is not None:
        layouts.insert(0, {"name": "t-SNE", **_places(flat)})
    return {
        "layouts": layouts,
        "label": record.y[found.rows].tolist(),
        "said": [answers.predicted[found.rows].tolist() for answers in record.answers],
        "sure": [np.round(100 * answers.confidence[found.rows]).astype(int).tolist() for answers in record.answers],
        "names": [record.names[i] for i in found.rows],
    }


def _places(points: NDArray[np.float32]) -> dict[str, list[float]]:
    """Coordinates scaled to about -100..100, with one decimal: finer than a screen shows."""
    scaled = np.round(points / (np.abs(points).max() or 1) * 100, 1)
    return {"x": scaled[:, 0].tolist(), "y": scaled[:, 1].tolist()}
