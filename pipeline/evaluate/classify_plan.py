"""The plan of a classification, and the outcome of each head."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.classify.evaluation.criteria import ACCURACY
from featurecache.classify.heads.table import CLASS_WEIGHTS
from featurecache.evaluate.join import Labelled
from featurecache.extract.cache.spec import slug
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.job.request import FeatureRequest
from featurecache.features.feature_set import Features
from featurecache.features.requested import requests_for
from featurecache.runs.documents import Failure, Tempering

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.classify.selection.settings import Given, Grid
    from featurecache.classify.selection.sweep import SweepResult


@dataclass(frozen=True)
class ClassifyPlan:
    """The arguments of `classify`: features, heads, and how they are chosen and tested."""

    requests: tuple[FeatureRequest, ...]
    heads: tuple[str, ...]
    cache_root: Path
    out: Path
    seed: int = 0
    folds: int | None = None
    memory: float | None = None
    """Bytes of features held in memory; the rest goes to a file. None: half of the memory of this process."""
    shots: tuple[int, ...] = ()
    repeats: int = 5
    calibrate: bool = False
    """Temper the probabilities of every head by its predictions on val."""
    min_per_class: int = 1
    """Classes with fewer images are left out; copies and members of a group count once."""
    params: Given = field(default_factory=dict)
    """Values for the grids of heads, {head: {parameter: values}}: see `classify.selection.settings`."""
    metric: str = ACCURACY
    """What settings are chosen and heads are ranked by, one of `classify.evaluation.criteria.METRICS`."""
    class_weight: str = CLASS_WEIGHTS[0]
    """"balanced": in training an image of class c weighs n / (C n_c), so that all classes weigh the same."""

    ensemble: bool = False
    """Whether the mean probability of the heads tied with the best on val is a head as well."""
    options: str = ""
    """The options of the command as TOML, a file of the run; empty for none."""

    def of(self, manifest: Manifest) -> ClassifyPlan:
        """The plan for a data set: vectors are their own features. Raises UsageError."""
        return replace(self, requests=requests_for(manifest, self.requests))

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """The settings to try of each head. Raises UnknownHead, BadSetting."""
        from featurecache.classify.selection.settings import build_grids

        return build_grids(self.heads, self.params, self.class_weight)


@dataclass(frozen=True)
class Tried:
    """One head on one backbone, chosen, refitted and tested."""

    features: Features
    name: str
    result: SweepResult
    predicted: NDArray[np.int64]
    proba: NDArray[np.floating[Any]]
    """(N, C), tempered where that was asked for; of a kept head, in a file."""
    tempering: Tempering | None
    """The effect of tempering on test, see `classify.evaluation.calibration.tempering_effect`."""
    predict_seconds: float
    stopped: bool = False
    """Whether the user stopped its sweep, so that this is the best of a part of its settings."""
    saved: Path | None = None
    """The folder where the head is, once it is kept on disk: `result.head` is then None."""
    members: tuple[str, ...] = ()
    """The titles of the heads whose mean it is; empty for any other."""

    @property
    def title(self) -> str:
        """The name of the head among all of a run, as `--head` takes it."""
        return f"{self.features.name}--{self.name}"

    @property
    def folder_name(self) -> str:
        """The folder of the head below heads/, and its name in comparisons."""
        return head_folder(self.features.name, self.name)


def head_folder(features: str, head: str) -> str:
    """The name of the folder of a head on these features: both as slugs, together no longer than a name may be."""
    return f"{slug(features, most=120)}--{slug(head, most=120)}"


@dataclass
class Attempts:
    """Heads that were trained, and those that failed."""

    tried: list[Tried] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    interrupted: bool = False


def rounds_of(labelled: Labelled, plan: ClassifyPlan) -> list[NDArray[np.bool_]]:
    """The rows of train and val that are held out to choose settings: val, or each fold."""
    from featurecache.classify.selection.holdouts import fold_rounds, val_round

    folds = assign_cv_folds(labelled, plan)
    n_train, n_rows = len(labelled.rows("train")), len(labelled.rows("train", "val"))
    return val_round(n_train, n_rows) if folds is None else fold_rounds(folds)


def assign_cv_folds(labelled: Labelled, plan: ClassifyPlan) -> NDArray[np.integer[Any]] | None:
    """The fold of each row of train, then val, with copies and groups in one fold; None without --folds."""
    from featurecache.classify.selection.splits import assign_folds

    if plan.folds is None:
        return None
    rows = [*labelled.rows("train"), *labelled.rows("val")]
    return assign_folds(labelled.units[rows], labelled.y[rows], plan.folds, seed=plan.seed)
