"""Stage two as one story: labels, splits, features from the cache, heads, test once, the run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.manifest import Manifest, printable
from extract.memo import Memo
from extract.request import FeatureRequest, installed_version
from pipeline.console import Console
from pipeline.join import Features, Labelled, label_samples, look_up
from pipeline.rundir import (
    CONFIG_FILE,
    ERRORS_FILE,
    RESULTS_FILE,
    point_latest,
    write_csv,
    write_errors,
    write_json,
    writing_run,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from classify.sweep import SweepResult

FORMAT = 1
RECORDED_LIBRARIES = ("featurecache", "numpy", "scikit-learn", "torch", "torchvision", "h5py")
LEADERBOARD_COLUMNS = ("rank", "backbone", "head", "params", "val_accuracy", "test_accuracy", "ci_low", "ci_high",
                       "balanced_accuracy", "macro_f1", "log_loss", "ece", "brier", "fit_seconds", "p_vs_best",
                       "tied_with_best", "features")  # fmt: skip


@dataclass(frozen=True)
class ClassifyPlan:
    """What `classify` was asked to do."""

    images: str
    requests: tuple[FeatureRequest, ...]
    heads: tuple[str, ...]
    cache_root: Path
    out: Path
    seed: int = 0
    folds: int | None = None


@dataclass(frozen=True)
class Tried:
    """One head on one backbone, chosen, refitted and tested."""

    features: Features
    name: str
    result: SweepResult
    predicted: NDArray[np.int64]
    proba: NDArray[np.floating[Any]]
    predict_seconds: float

    @property
    def folder_name(self) -> str:
        """Where the head is saved below heads/, and its name in comparisons."""
        return f"{self.features.name}--{self.name}"


def classify(manifest: Manifest, plan: ClassifyPlan, console: Console) -> dict[str, Any]:
    """Train and compare heads on cached features and write the run folder; returns what results.json says.

    Raises PipelineError, ClassifyError or CacheError, and then leaves no folder behind.
    """
    with Memo(plan.cache_root, read_only=not plan.cache_root.exists()) as memo:
        labelled = label_samples(
            manifest,
            memo,
            seed=plan.seed,
            requests=plan.requests,
            cache_root=plan.cache_root,
            on_progress=console.digesting,
        )
        features = look_up(labelled, plan.requests, images=plan.images, cache_root=plan.cache_root, memo=memo)
    for note in (*manifest.notes, *labelled.notes):
        console.say(note)
    with writing_run(plan.out) as folder:
        tried = [try_head(name, each, labelled, plan, console) for each in features for name in plan.heads]
        results = summarise(tried, features, labelled, plan, manifest)
        write_run(folder, results, tried, labelled, plan, console)
    point_latest(plan.out)
    return results


def try_head(name: str, features: Features, labelled: Labelled, plan: ClassifyPlan, console: Console) -> Tried:
    """Choose on val (or K folds), refit on train+val, predict test."""
    from classify.sweep import sweep

    X, y = features.X, labelled.y
    train, val, test = (labelled.rows(split) for split in ("train", "val", "test"))
    progress = partial(console.sweeping, name)
    folds = assign_cv_folds(labelled, plan)
    result = sweep(name, X[train], y[train], X[val], y[val], seed=plan.seed, folds=folds, progress=progress)
    for note in result.notes:
        console.say(f"{name}: {note}")
    started = time.perf_counter()
    predicted, proba = result.head.predict(X[test]), result.head.predict_proba(X[test])
    return Tried(features, name, result, predicted, proba, round(time.perf_counter() - started, 4))


def assign_cv_folds(labelled: Labelled, plan: ClassifyPlan) -> NDArray[np.integer[Any]] | None:
    """The fold of each row of train, then val, with copies and groups in one fold; None without --folds."""
    from classify.splits import assign_folds

    if plan.folds is None:
        return None
    rows = [*labelled.rows("train"), *labelled.rows("val")]
    units = [labelled.samples[i].group or bytes(labelled.digests[i]).hex() for i in rows]
    return assign_folds(units, labelled.y[rows], plan.folds, seed=plan.seed)


def summarise(
    tried: Sequence[Tried], features: Sequence[Features], labelled: Labelled, plan: ClassifyPlan, manifest: Manifest
) -> dict[str, Any]:
    """The content of results.json: DESIGN's contract, heads in the order of their test accuracy."""
    from classify.metrics import accuracy_interval, score
    from classify.statistics import compare_with_best

    truth = labelled.y[labelled.rows("test")]
    compared = compare_with_best({t.folder_name: t.predicted == truth for t in tried})
    heads: list[dict[str, Any]] = []
    for t in tried:
        p_value, tied = compared[t.folder_name]
        interval = accuracy_interval(int((t.predicted == truth).sum()), len(truth))
        heads.append({
            "name": t.name,
            "backbone": t.features.request.backbone,
            "features": t.features.name,
            "params": t.result.params,
            "grid_size": t.result.grid_size,
            "fit_seconds": round(t.result.fit_seconds, 3),
            "predict_seconds": t.predict_seconds,
            "val": t.result.val,
            "test": {**score(truth, t.proba, t.predicted), "accuracy_ci": list(interval)},
            "p_vs_best": p_value,
            "tied_with_best": tied,
            "saved": f"heads/{t.folder_name}",
            "grid": t.result.grid,
            "notes": t.result.notes,
        })  # fmt: skip
    heads.sort(key=lambda head: (-head["test"]["accuracy"], head["test"]["log_loss"]))
    return {
        "format": FORMAT,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config": _config(plan),
        "versions": {name: installed_version(name) for name in RECORDED_LIBRARIES},
        "dataset": {
            "name": printable(manifest.root.resolve().name),
            "classes": [printable(name) for name in labelled.classes],
            **{f"n_{split}": len(labelled.rows(split)) for split in ("train", "val", "test")},
            "skipped": len(labelled.refusals),
        },
        "features": [_feature_row(each) for each in features],
        "heads": heads,
    }


def _config(plan: ClassifyPlan) -> dict[str, Any]:
    return {
        "images": printable(plan.images),
        "requests": [asdict(request) for request in plan.requests],
        "heads": list(plan.heads),
        "cache": str(plan.cache_root.resolve()),
        "seed": plan.seed,
        "folds": plan.folds,
    }


def _feature_row(features: Features) -> dict[str, Any]:
    return {
        "name": features.name,
        "backbone": features.request.backbone,
        "layer": features.resolved.spec.layer,
        "pooling": features.resolved.spec.pooling,
        "key": features.resolved.spec.key,
        "dim": features.resolved.spec.feature_dim,
        "weights": features.resolved.weights,
        "extract_seconds": features.extract_seconds,
        "images_per_second": features.images_per_second,
    }


def write_run(
    folder: Path,
    results: dict[str, Any],
    tried: Sequence[Tried],
    labelled: Labelled,
    plan: ClassifyPlan,
    console: Console,
) -> None:
    """Everything a run folder holds (DESIGN section 5)."""
    from classify.saved import save_head

    for t in tried:
        save_head(t.result.head, folder / "heads" / t.folder_name, meta=_head_meta(t, labelled))
    rows = zip(labelled.samples, labelled.digests, labelled.splits, strict=True)
    write_csv(
        folder / "splits.csv",
        ("path", "label", "split", "digest"),
        [(sample.name, sample.label, str(split), bytes(digest).hex()) for sample, digest, split in rows],
    )
    write_csv(folder / "leaderboard.csv", LEADERBOARD_COLUMNS, leaderboard(results))
    write_predictions(folder / "predictions.parquet", tried, labelled)
    write_errors(folder / ERRORS_FILE, labelled.refusals)
    write_json(folder / CONFIG_FILE, results["config"])
    write_json(folder / RESULTS_FILE, results)
    (folder / "log.txt").write_text("\n".join(console.lines) + "\n", encoding="utf-8", errors="backslashreplace")


def _head_meta(tried: Tried, labelled: Labelled) -> dict[str, Any]:
    weights = tried.features.request.weights
    request = tried.features.request
    if weights is not None and Path(weights).exists():
        request = replace(request, weights=str(Path(weights).resolve()))
    return {
        "name": tried.name,
        "params": tried.result.params,
        "classes": [printable(name) for name in labelled.classes],
        "request": asdict(request),
        "spec": tried.features.resolved.spec.to_dict(),
        "weights": tried.features.resolved.weights,
    }


def leaderboard(results: dict[str, Any]) -> list[list[object]]:
    """One row per head, best test accuracy first, in the order of LEADERBOARD_COLUMNS."""
    rows: list[list[object]] = []
    for rank, head in enumerate(results["heads"], start=1):
        test = head["test"]
        params = " ".join(f"{name}={value}" for name, value in head["params"].items())
        rows.append(
            [rank, head["backbone"], head["name"], params, head["val"]["accuracy"], test["accuracy"],
             *test["accuracy_ci"], *(test[m] for m in ("balanced_accuracy", "macro_f1", "log_loss", "ece", "brier")),
             head["fit_seconds"], head["p_vs_best"], head["tied_with_best"], head["features"]]
        )  # fmt: skip
    return rows


def write_predictions(path: Path, tried: Sequence[Tried], labelled: Labelled) -> None:
    """predictions.parquet: for every test image and head the label, what was predicted and all probabilities."""
    import pyarrow
    import pyarrow.parquet

    test = labelled.rows("test")
    classes = [printable(name) for name in labelled.classes]
    names = [printable(labelled.samples[i].name) for i in test]
    tables = [
        pyarrow.table({
            "path": names,
            "digest": [bytes(labelled.digests[i]).hex() for i in test],
            "label": [classes[labelled.y[i]] for i in test],
            "backbone": [t.features.request.backbone] * len(test),
            "features": [t.features.name] * len(test),
            "head": [t.name] * len(test),
            "predicted": [classes[code] for code in t.predicted],
            "probabilities": pyarrow.array(t.proba.astype("float32").tolist(), pyarrow.list_(pyarrow.float32())),
        })
        for t in tried
    ]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), path)
