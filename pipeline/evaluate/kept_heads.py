"""Finished heads on disk, so that a run that is stopped or killed continues after the last of them.

    <features>--<head>/
      head/           the fitted head, as `classify.heads.saving.folder` writes it
      predicted.npy   codes of the test images (N,)
      proba.npy       their probabilities (N, C), to the last bit; they are read from here, one head at a time
      record.json     what the sweep found and how long it took

A folder appears whole or not at all. Which command the heads belong to is in the name of the folder around them, the
hash of everything that decides a head but its own settings; these are in the record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.files import replacing_folder
from featurecache.base.plain_files import parse_json
from featurecache.base.text import printable
from featurecache.base.versions import installed_version
from featurecache.evaluate.classify_plan import Tried, head_folder
from featurecache.evaluate.join import Labelled
from featurecache.features.feature_set import Features

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.classify.selection.settings import Grid
    from featurecache.evaluate.classify_plan import ClassifyPlan

FORMAT = 1
# Fields of the plan that change no head: where the run is written, what is done with finished heads. The settings of
# a head are in its record.
WITHOUT_EFFECT = ("cache_root", "out", "heads", "shots", "repeats", "params", "ensemble", "options")
LIBRARIES = ("featurecache", "numpy", "scipy", "scikit-learn", "torch")


def identity_of(
    labelled: Labelled, features: Sequence[Features], plan: ClassifyPlan, folds: NDArray[np.integer[Any]] | None
) -> str:
    """Return 16 hex digits: the hash of everything that the result of a head with given settings depends on."""
    from featurecache.classify.heads.saving.folder import FORMATS as HEAD_FORMATS

    data = hashlib.sha256(labelled.digests.tobytes() + labelled.y.tobytes())
    data.update("".join(map(str, labelled.splits)).encode())
    data.update(b"" if folds is None else folds.tobytes())
    decisive = {
        "formats": [FORMAT, *HEAD_FORMATS],
        "plan": {key: value for key, value in asdict(plan).items() if key not in WITHOUT_EFFECT},
        "keys": [[each.name, each.resolved.spec.key, each.resolved.weights] for each in features],
        "classes": [printable(name) for name in labelled.classes],
        "data": data.hexdigest(),
        "versions": [installed_version(name) for name in LIBRARIES],
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


class KeptHeads:
    """The finished heads in a folder, which need not be there yet; n_test, n_classes: of the predictions of each.

    grids: the settings that are tried of each head; one that was finished with others is trained again.
    """

    def __init__(self, folder: Path, *, n_test: int, n_classes: int, grids: Mapping[str, Grid]) -> None:
        self.folder, self._shape, self._grids = folder, (n_test, n_classes), grids

    def keep(self, tried: Tried, *, meta: Mapping[str, Any]) -> Tried:
        """Write a head with its predictions and return it as it is on disk; meta: what `save_head` stores with it.

        Raises SavedHeadError for a head that cannot be saved, OSError.
        """
        import numpy as np

        from featurecache.classify.heads.saving.folder import save_head

        place = self.folder / tried.folder_name
        with replacing_folder(place) as temporary:
            save_head(tried.result.head, temporary / "head", meta=meta)
            np.save(temporary / "predicted.npy", tried.predicted)
            np.save(temporary / "proba.npy", tried.proba)
            (temporary / "record.json").write_text(
                json.dumps(_record(tried, self._grids[tried.name])), encoding="utf-8"
            )
        return _read(place, tried.features, tried.name, self._grids[tried.name])

    def recall(self, features: Features, name: str) -> Tried | None:
        """Return a head that was finished with the settings it has today; None where there is none, or half of one."""
        try:
            folder = self.folder / head_folder(features.name, name)
            tried = _read(folder, features, name, self._grids[name])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        whole = tried.proba.shape == self._shape and tried.predicted.shape == self._shape[:1]
        return tried if whole and not tried.stopped else None


def _record(tried: Tried, grid: Grid) -> dict[str, Any]:
    found = {each.name: getattr(tried.result, each.name) for each in fields(tried.result) if each.name != "head"}
    rest = {"tempering": tried.tempering, "predict_seconds": tried.predict_seconds, "stopped": tried.stopped}
    return {"settings": grid, "result": found, **rest}


def _read(place: Path, features: Features, name: str, grid: Grid) -> Tried:
    """Read what `keep` wrote. Raises ValueError for other settings than these, OSError, LookupError, TypeError."""
    import numpy as np

    from featurecache.classify.selection.sweep import SweepResult

    record = parse_json((place / "record.json").read_text(encoding="utf-8"))
    if record["settings"] != json.loads(json.dumps(grid)):
        raise ValueError("the head was fitted for other settings")
    (place / "head" / "head.json").stat()
    result = SweepResult(head=None, **record["result"])
    predicted = np.load(place / "predicted.npy")
    proba = np.load(place / "proba.npy", mmap_mode="r")
    rest = (record["tempering"], record["predict_seconds"], record["stopped"])
    return Tried(features, name, result, predicted, proba, *rest, saved=place / "head")
