"""Training heads from Python, without a command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featurecache.base.defaults import DEFAULT_CACHE, LARGEST_SEED
from featurecache.base.errors import UsageError
from featurecache.base.progress import Progress, Silent
from featurecache.base.values import no_such, not_of, not_whole, refuse
from featurecache.classify.evaluation.criteria import ACCURACY, METRICS
from featurecache.classify.heads.table import CLASS_WEIGHTS
from featurecache.evaluate.classify import classify
from featurecache.evaluate.classify_plan import ClassifyPlan
from featurecache.extract.images.manifest import Manifest, no_manifest
from featurecache.extract.job.request import FeatureRequest
from featurecache.runs.documents import Results
from featurecache.runs.folder import check_run_folder


def train_heads(
    images: Manifest,
    features: Sequence[FeatureRequest] = (),
    *,
    out: str | os.PathLike[str],
    heads: Sequence[str] = ("all",),
    cache_root: str | os.PathLike[str] = DEFAULT_CACHE,
    seed: int = 0,
    folds: int | None = None,
    calibrate: bool = False,
    min_per_class: int = 1,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    metric: str = ACCURACY,
    class_weight: str = CLASS_WEIGHTS[0],
    ensemble: bool = False,
    progress: Progress | None = None,
) -> Results:
    """Train and compare heads on the cached features of some images, write the run to `out`, return its results.json.

    images: of `read_images` or `read_arrays`; vectors need no `features`. heads: names of the table, or of scikit-learn
    classifiers by their dotted path. folds: choose settings by so many folds instead of on val. calibrate: temper
    probabilities on val. min_per_class: classes with fewer images are left out. params: values for the grids of heads,
    {"logistic": {"C": [0.1, 1.0]}}: a list is what is tried, anything else the one value. metric: accuracy,
    balanced_accuracy, macro_f1 or log_loss, by which settings are chosen and heads ranked. class_weight: "balanced"
    lets all classes weigh the same in training. ensemble: add the mean of the heads tied with the best on val as a
    head. The run has no report; `featurecache report` writes it.

    Raises UnknownHead for a head or a parameter that there is not, BadSetting for a value that a parameter cannot have,
    UsageError for another invalid value, FeaturesMissing where an image has no features, and what `classify` raises.
    """
    from featurecache.classify.heads.table import parse_heads
    from featurecache.classify.selection.settings import listed_settings

    refuse(UsageError, no_manifest(images), not_of("features", features, FeatureRequest), not_of("heads", heads, str))
    refuse(UsageError, no_such("metric", metric, METRICS), no_such("class_weight", class_weight, CLASS_WEIGHTS))
    wholes = (("seed", seed, 0, LARGEST_SEED), ("min_per_class", min_per_class, 1))
    refuse(UsageError, *(not_whole(*each) for each in wholes), not_whole("folds", folds, 2, may_be_none=True))
    check_run_folder(folder := Path(out))
    plan = ClassifyPlan(
        tuple(features), tuple(parse_heads(",".join(heads))), Path(cache_root), folder, seed=seed, folds=folds,
        calibrate=calibrate, min_per_class=min_per_class, params=listed_settings(params or {}), metric=metric,
        class_weight=class_weight, ensemble=ensemble,
    )  # fmt: skip
    return classify(images, plan, progress or Silent())
