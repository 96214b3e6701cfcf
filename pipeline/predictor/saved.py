"""Checks of a saved head before it predicts, and the cache of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.defaults import DEFAULT_CACHE
from featurecache.base.errors import UsageError
from featurecache.base.progress import Progress
from featurecache.features.saved_with_head import HeadMeta
from featurecache.runs.documents import FeatureRow
from featurecache.runs.folder import CONFIG_FILE
from featurecache.runs.moved import find_cache, missing_cache_note
from featurecache.runs.record_checks import damaged, need

if TYPE_CHECKING:
    from featurecache.classify.heads.saving.folder import LoadedHead


def check_one_file(weights: str | None, meta: HeadMeta) -> None:
    """Raise UsageError for a file of weights and a head on joined features, which have several."""
    if weights is not None:
        raise UsageError(
            f"The head takes features of {len(meta.parts)} backbones, {meta.request.backbone}, and --weights names one "
            "file. Put the files next to the run, where they are found by their digests."
        )


def check_head(place: Path, loaded: LoadedHead, meta: HeadMeta) -> None:
    """Raises PipelineError where what was saved with a head is not about that head: its classes, its features."""
    head, path = loaded.head, place / "head.json"
    codes = head.classes_.tolist()
    if not all(type(code) is int and 0 <= code < len(meta.classes) for code in codes):
        raise damaged(path, f"its head has {len(codes)} classes, which have other names or none")
    if head.n_features_in_ != meta.spec.feature_dim:
        dim = meta.spec.feature_dim
        raise damaged(path, f"its head takes {head.n_features_in_} columns, and its features have {dim}")


def recorded_cache(
    run: Path, config: Mapping[str, Any], progress: Progress, *, features: Sequence[FeatureRow] = ()
) -> Path:
    """The cache that a run has its features in, wherever that is now; else the usual one. A line says what is not here.

    A run from elsewhere names a folder of another machine: nothing is made there. features: those of results.json.
    """
    need(run / CONFIG_FILE, config, ["cache"])
    recorded = Path(config["cache"])
    found = find_cache(run, recorded, features)
    if note := missing_cache_note(recorded, found):
        progress.say(note)
    return found or DEFAULT_CACHE
