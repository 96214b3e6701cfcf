"""The results of a run: results.json and the other files of its folder."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from featurecache.base.progress import Progress
from featurecache.base.text import printable
from featurecache.base.versions import installed_version
from featurecache.classify.evaluation.criteria import ACCURACY, preference
from featurecache.evaluate.finite_numbers import without_nan
from featurecache.evaluate.join import Labelled
from featurecache.evaluate.rare_classes import left_out_rows
from featurecache.evaluate.transfer import Chosen, compare_with_pixels
from featurecache.extract.cache.ranges import keep_ranges
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.job.request import with_absolute_path
from featurecache.features.feature_set import Features
from featurecache.runs.documents import Config, Dataset, FeatureRow, HeadRow, Results, Trial
from featurecache.runs.folder import (
    CONFIG_FILE,
    ERRORS_FILE,
    FORMATS,
    HEAD_FILES,
    HEADS_FOLDER,
    LEADERBOARD_FILE,
    LOG_FILE,
    RESULTS_FILE,
    write_csv,
    write_errors,
    write_json,
    write_options,
)
from featurecache.runs.head_choice import metric_of
from featurecache.runs.predictions_file import HeadPredictions, write_predictions
from featurecache.runs.split_list import ListedImage, write_splits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.evaluate.classify_plan import ClassifyPlan, Tried

RECORDED_LIBRARIES = ("featurecache", "numpy", "scikit-learn", "torch", "torchvision", "h5py")
LEADERBOARD_COLUMNS = ("rank", "backbone", "head", "params", "val_accuracy", "test_accuracy", "ci_low", "ci_high",
                       "balanced_accuracy", "macro_f1", "log_loss", "ece", "brier", "fit_seconds", "p_vs_best",
                       "tied_with_best", "features")  # fmt: skip


def summarise(
    tried: Sequence[Tried], features: Sequence[Features], labelled: Labelled, plan: ClassifyPlan, manifest: Manifest
) -> Results:
    """Return results.json, the heads best on test by its metric first."""
    from featurecache.classify.evaluation.comparison import compare_heads
    from featurecache.classify.evaluation.metrics import score

    truth = labelled.y[labelled.rows("test")]
    tried = sorted(tried, key=lambda t: preference(score(truth, t.proba, t.predicted), plan.metric))
    predicted = {t.folder_name: (t.proba, t.predicted) for t in tried}
    compared = compare_heads(truth, predicted, metric=plan.metric, units=test_units(labelled), seed=plan.seed)
    heads: list[HeadRow] = []
    for t in tried:
        on_test = compared.heads[t.folder_name]
        heads.append({
            "name": t.name,
            "backbone": t.features.resolved.spec.backbone,
            "features": t.features.name,
            "params": t.result.params,
            "grid_size": t.result.grid_size,
            "fit_seconds": round(t.result.fit_seconds, 3),
            "predict_seconds": t.predict_seconds,
            "val": t.result.val,
            "test": on_test["test"],
            "by_class": on_test["by_class"],
            "rank": on_test["rank"],
            "p_vs_best": on_test["p_vs_best"],
            "tied_with_best": on_test["tied_with_best"],
            "tempering": t.tempering,
            "saved": f"{HEADS_FOLDER}/{t.folder_name}",
            "grid": cast(list[Trial], t.result.grid),
            "notes": t.result.notes,
        })  # fmt: skip
        if t.members:
            heads[-1]["members"] = list(t.members)
    return {
        "format": FORMATS[-1],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config": _config(plan, manifest),
        "versions": {name: installed_version(name) for name in RECORDED_LIBRARIES},
        "dataset": _dataset(manifest, labelled),
        "features": [_feature_row(each) for each in unique_features(features, tried)],
        "heads": heads,
        "pairs": compared.pairs,
        "transfer": compare_with_pixels(
            _chosen(tried, truth, plan.metric), truth, metric=plan.metric, units=test_units(labelled)
        ),
        "failed": [],
        "interrupted": False,
    }


def unique_features(features: Sequence[Features], tried: Sequence[Tried]) -> list[Features]:
    """The features that were asked for, and those of an ensemble over several of them."""
    return list({each.name: each for each in (*features, *(t.features for t in tried))}.values())


def _dataset(manifest: Manifest, labelled: Labelled) -> Dataset:
    import numpy as np

    return {
        "name": printable(manifest.name or manifest.root.resolve().name),
        "classes": [printable(name) for name in labelled.classes],
        "n_train": len(labelled.rows("train")),
        "n_val": len(labelled.rows("val")),
        "n_test": len(labelled.rows("test")),
        "n_test_units": len(np.unique(test_units(labelled))),
        "test_units": "group" if any(labelled.samples[i].group for i in labelled.rows("test")) else "image",
        "skipped": len(labelled.refusals),
        "left_out": left_out_rows(labelled.left_out),
        "files": labelled.files.to_dict(),
    }


def test_units(labelled: Labelled) -> NDArray[np.integer[Any]]:
    """The unit (n_test,) of each test image: copies and images of a group share one."""
    return labelled.units[labelled.rows("test")]


def _chosen(tried: Sequence[Tried], truth: NDArray[np.int64], metric: str) -> dict[str, Chosen]:
    """For every set of features the head that val chose."""
    from featurecache.classify.evaluation.metrics import log_losses
    from featurecache.classify.evaluation.permutation import Answers

    best: dict[str, Tried] = {}
    for each in (each for each in tried if not each.members):
        name = each.features.name
        if name not in best or preference(each.result.val, metric) < preference(best[name].result.val, metric):
            best[name] = each
    return {n: Chosen(each.name, Answers(each.predicted, log_losses(truth, each.proba))) for n, each in best.items()}


def _config(plan: ClassifyPlan, manifest: Manifest) -> Config:
    config: Config = {
        "images": printable(manifest.source),
        "images_at": printable(os.path.abspath(manifest.source)),  # noqa: PTH100 (links stay as they were named)
        "reading": manifest.options.from_anywhere().given(),
        "requests": [asdict(with_absolute_path(request)) for request in plan.requests],
        "heads": list(plan.heads),
        "cache": str(plan.cache_root.resolve()),
        "seed": plan.seed,
        "folds": plan.folds,
        "memory": plan.memory,
        "shots": list(plan.shots),
        "repeats": plan.repeats,
        "calibrate": plan.calibrate,
        "min_per_class": plan.min_per_class,
        "params": {head: {name: list(values) for name, values in each.items()} for head, each in plan.params.items()},
        "metric": plan.metric,
        "class_weight": plan.class_weight,
    }
    if plan.ensemble:
        config["ensemble"] = True
    return config


def _feature_row(features: Features) -> FeatureRow:
    row: FeatureRow = {
        "name": features.name,
        "backbone": features.resolved.spec.backbone,
        "layer": features.resolved.spec.layer,
        "pooling": features.resolved.spec.pooling,
        "key": features.resolved.spec.key,
        "dim": features.resolved.spec.feature_dim,
        "weights": features.resolved.weights,
        "extract_seconds": features.extract_seconds,
        "images_per_second": features.images_per_second,
        "about": dict(features.resolved.spec.about),
    }
    if features.parts:
        row["parts"] = [
            {"backbone": part.spec.backbone, "key": part.spec.key, "scale": part.scale} for part in features.parts
        ]
    return row


def write_run(
    folder: Path,
    results: Results,
    tried: Sequence[Tried],
    labelled: Labelled,
    plan: ClassifyPlan,
    progress: Progress,
) -> Results:
    """Write the files of a run folder, all but the report, and return its results.json."""
    results = without_nan(results)
    for t in tried:
        _put_head(t, folder / HEADS_FOLDER / t.folder_name, labelled)
    keep_ranges(
        plan.cache_root, {spec for t in tried if not t.members for spec in t.features.specs}, folder, progress.say
    )
    rows = zip(labelled.samples, labelled.digests, labelled.splits, strict=True)
    listed = (
        ListedImage(sample.name, str(sample.label), str(split), bytes(digest).hex(), sample.group)
        for sample, digest, split in rows
    )
    write_splits(folder, listed)
    write_csv(folder / LEADERBOARD_FILE, *leaderboard(results))
    _write_predictions(folder, tried, labelled)
    write_errors(folder / ERRORS_FILE, labelled.files.refusals)
    write_json(folder / CONFIG_FILE, results["config"])
    write_options(folder, plan.options)
    write_json(folder / RESULTS_FILE, results)
    (folder / LOG_FILE).write_text("\n".join(progress.lines) + "\n", encoding="utf-8", errors="backslashreplace")
    return results


def _put_head(tried: Tried, place: Path, labelled: Labelled) -> None:
    """Write a head into a run, or where it is kept on disk already let its files have a name there too."""
    from featurecache.classify.heads.saving.folder import save_head

    if tried.members:
        place.mkdir(parents=True)
        write_json(place / HEAD_FILES[0], {"members": list(tried.members)})
    elif tried.saved is None:
        save_head(tried.result.head, place, meta=head_meta(tried, labelled))
    else:
        place.mkdir(parents=True)
        for path in tried.saved.iterdir():
            try:
                os.link(path, place / path.name)
            except OSError:  # this disk has no hard links
                shutil.copyfile(path, place / path.name)


def head_meta(tried: Tried, labelled: Labelled) -> dict[str, Any]:
    """Return what is saved with a head: its setting, its features and its classes."""
    request = with_absolute_path(tried.features.request)
    joined = [
        {"request": asdict(with_absolute_path(part.request)), "spec": part.spec.to_dict(), "scale": part.scale}
        for part in tried.features.parts
    ]
    return {
        "name": tried.name,
        "params": tried.result.params,
        "tempering": tried.result.tempering,
        "tempering_floor": 0.0,
        "classes": [printable(name) for name in labelled.classes],
        "request": asdict(request),
        "spec": tried.features.resolved.spec.to_dict(),
        "weights": tried.features.resolved.weights,
        **({"parts": joined} if joined else {}),
    }


def leaderboard(results: Results) -> tuple[list[str], list[list[object]]]:
    """The columns, and one row per head, best on test by the metric of the run first.

    Where that is not the accuracy, its value on val and the ends of its interval on test stand in columns at the end.
    """
    rows: list[list[object]] = []
    metric = metric_of(results)
    more = [] if metric == ACCURACY else [f"val_{metric}", f"{metric}_ci_low", f"{metric}_ci_high"]
    for rank, head in enumerate(results["heads"], start=1):
        test = head["test"]
        params = " ".join(f"{name}={value}" for name, value in head["params"].items())
        rows.append(
            [rank, head["backbone"], head["name"], params, head["val"]["accuracy"], test["accuracy"],
             *test["accuracy_ci"], test["balanced_accuracy"], test["macro_f1"], test["log_loss"], test["ece"],
             test["brier"],
             head["fit_seconds"], head["p_vs_best"], head["tied_with_best"], head["features"],
             *([head["val"][metric], *test["ci"][metric]] if more else [])]
        )  # fmt: skip
    return [*LEADERBOARD_COLUMNS, *more], rows


def _write_predictions(folder: Path, tried: Sequence[Tried], labelled: Labelled) -> None:
    test, classes = labelled.rows("test"), [printable(name) for name in labelled.classes]
    write_predictions(
        folder,
        names=[printable(labelled.samples[i].name) for i in test],
        digests=[bytes(labelled.digests[i]).hex() for i in test],
        labels=[classes[labelled.y[i]] for i in test],
        heads=(
            HeadPredictions(
                t.features.resolved.spec.backbone,
                t.features.name,
                t.name,
                [classes[code] for code in t.predicted],
                t.proba,
            )
            for t in tried
        ),
    )
