"""Maps that were laid out before, in the cache folder of the features: t-SNE of 1,000 points takes 4 s on one core.

    map-<identity16>.json   MapDocument: the identity in full, the layouts, the share of variance of the first two axes

The identity is the SHA-256 of the features (n, D) and of the settings of PCA and t-SNE, so a map of other features or
settings is never taken; one by another version of scikit-learn is. Maps are derived and may be deleted at any
time. What does not read as a map of n points is laid out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from featurecache.base.files import replacing_file
from featurecache.base.plain_files import read_json_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAP_FORMAT = 1
# Maps in one folder, the newest: one of 2,000 points has 50 kB.
MOST_MAPS = 20
MOST_BYTES = 1 << 20
# Coordinates are scaled to at most this, with one decimal: finer than a screen shows.
EXTENT = 100.0


@dataclass(frozen=True)
class Layout:
    """The places of n points in the plane, in -100..100; name: of the method."""

    name: str
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class LaidOut:
    """Layouts of the same points, the best first; variance: the share of the first two axes of PCA."""

    layouts: list[Layout]
    variance: float


class MapDocument(TypedDict):
    """The content of map-<identity16>.json."""

    format: int
    identity: str
    variance: float
    layouts: list[dict[str, Any]]


def scaled_layout(name: str, points: NDArray[np.float32]) -> Layout:
    """Return the layout of points (n, 2)."""
    scaled = np.round(points / (np.abs(points).max() or 1) * EXTENT, 1)
    return Layout(name, scaled[:, 0].tolist(), scaled[:, 1].tolist())


def map_identity(X: NDArray[np.float32], settings: dict[str, Any]) -> str:
    """Return the name of the map of X (n, D) with these settings of what lays it out, 64 hex digits."""
    asked = {"format": MAP_FORMAT, "shape": X.shape, "dtype": X.dtype.str, "settings": settings}
    found = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    found.update(np.ascontiguousarray(X).data)
    return found.hexdigest()


def read_map(folder: Path, identity: str, names: tuple[str, ...], n_points: int) -> LaidOut | None:
    """Return the map of this identity from a cache folder, its layouts called `names`; None where there is none."""
    path = _map_path(folder, identity)
    try:
        document: MapDocument = read_json_file(path, folder, most_bytes=MOST_BYTES)
        if document["format"] != MAP_FORMAT or document["identity"] != identity:
            return None
        layouts = [_checked(each, n_points) for each in document["layouts"]]
        variance = _number(document["variance"], 0.0, 1.0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # those not used for longest go first
    return LaidOut(layouts, variance) if tuple(each.name for each in layouts) == names else None


def keep_map(folder: Path, identity: str, found: LaidOut) -> None:
    """Keep a map for later runs, and only the newest few in a folder; nothing is kept where that cannot be written."""
    document: MapDocument = {
        "format": MAP_FORMAT,
        "identity": identity,
        "variance": found.variance,
        "layouts": [asdict(each) for each in found.layouts],
    }
    try:
        with replacing_file(_map_path(folder, identity)) as temporary:
            temporary.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")
        others = sorted(folder.glob("map-*.json"), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
        for path in others[MOST_MAPS:]:
            path.unlink(missing_ok=True)
    except OSError:
        return


def _map_path(folder: Path, identity: str) -> Path:
    return folder / f"map-{identity[:16]}.json"


def _checked(layout: dict[str, Any], n_points: int) -> Layout:
    x, y = ([_number(each, -EXTENT, EXTENT) for each in layout[axis]] for axis in ("x", "y"))
    if len(x) != n_points or len(y) != n_points:
        raise ValueError("the map has another number of points")
    return Layout(str(layout["name"]), x, y)


def _number(value: Any, least: float, most: float) -> float:
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError("it is no number of a map")
    return float(value)
