"""The run of a tuned network: weights with their transform, features, a head, predictions and their tests.

Metrics are those of the weights as they are written: features are extracted with that file, and the last layers are a
head on them. So `predict`, `compare`, `report` and `classify` work on this run as on any other.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from featurecache.base.errors import PipelineError
from featurecache.base.progress import Progress, Silent
from featurecache.base.text import printable
from featurecache.classify.evaluation.calibration import fit_tempering
from featurecache.classify.evaluation.metrics import score
from featurecache.classify.selection.sweep import SweepResult
from featurecache.evaluate.classify_plan import ClassifyPlan, Tried
from featurecache.evaluate.join import Labelled, look_up
from featurecache.evaluate.leak_check import leak_warnings
from featurecache.evaluate.leak_effect import AuditAdvice, AuditCall
from featurecache.evaluate.results import summarise, write_run
from featurecache.extract.backbones.weights import save_weights
from featurecache.extract.cache.inventory import remember_use
from featurecache.extract.cache.memo import Memo
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.summary import ExtractReport
from featurecache.features.feature_arrays import return_freed_memory
from featurecache.features.feature_set import Features
from featurecache.finetune.assembly import Tuned
from featurecache.finetune.checkpoint import Checkpoint
from featurecache.finetune.head_layers import as_head
from featurecache.finetune.plan import FinetunePlan
from featurecache.finetune.source_run import SourceRun
from featurecache.report.page import report_on
from featurecache.runs.documents import FinetuneRow, Results, cache_folder
from featurecache.runs.folder import WEIGHTS_FILE
from featurecache.runs.head_choice import metric_of
from featurecache.runs.moved import with_run_weights
from featurecache.runs.record_checks import read_results
from featurecache.runs.work_folder import writing_run

HEAD = "finetuned"


def write_tuned_run(
    tuned: Tuned, labelled: Labelled, plan: FinetunePlan, manifest: Manifest, warnings: list[str], progress: Progress
) -> Results:
    """Write the run folder and return its results.json; warnings: about leaked test images.

    Raises PipelineError, ExtractError, and then leaves no folder behind.
    """
    fit_seconds = tuned.training.elapsed
    final = replace(tuned.source.request, weights=str(plan.out.absolute() / WEIGHTS_FILE), size=None)
    config = tuned.source.results["config"]
    asked = ClassifyPlan((final,), (HEAD,), plan.cache_root, plan.out, seed=config["seed"], options=plan.options)
    asked = replace(asked, min_per_class=config.get("min_per_class", 1), metric=metric_of(tuned.source.results))
    with writing_run(plan.out) as folder:
        save_weights(folder / WEIGHTS_FILE, tuned.network, tuned.transform)
        features = _extract(replace(final, weights=str(folder / WEIGHTS_FILE)), manifest, labelled, plan, progress)
        tried = _test_head(tuned, replace(features, request=final), labelled, plan, fit_seconds)
        results = summarise([tried], [tried.features], labelled, asked, manifest)
        results |= {"warnings": warnings, "finetune": _finetune_row(tuned, plan, fit_seconds)}
        return write_run(folder, results, [tried], labelled, asked, progress)


def source_leak_warnings(
    labelled: Labelled, features: Features, plan: FinetunePlan, source: SourceRun, advise: AuditAdvice
) -> list[str]:
    """The warnings that `classify` would give for these splits, by the features of the source run."""
    config = source.results["config"]
    call = AuditCall(source.trained_request, plan.cache_root, config["seed"], config.get("min_per_class", 1))
    return leak_warnings(labelled, features.X, call, advise)


def find_tuned_run(checkpoint: Checkpoint, plan: FinetunePlan) -> Path | None:
    """Return the run that this training has written: `plan.out`, or if the user named none the newest next to it.

    A folder without the weights is none.
    """
    others = [] if plan.out_is_given else list(plan.out.parent.glob(f"[!.]*/{WEIGHTS_FILE}"))
    newest_first = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    places = [plan.out, *(path.parent for path in newest_first if not path.parent.is_symlink())]
    return next((place for place in places if _identity(place) == checkpoint.identity), None)


def _identity(folder: Path) -> str | None:
    """The identity of the training that a run is the result of; None for any other folder."""
    try:
        return str(read_results(folder)["finetune"]["identity"])
    except (PipelineError, LookupError):
        return None


def finish(results: Results, manifest: Manifest, labelled: Labelled, plan: FinetunePlan, progress: Progress) -> None:
    """Complete a run that has its final name; doing it twice changes nothing.

    The cache gets to know the weights under that name, and the page that shows the run is written.
    """
    asked = (FeatureRequest(**request) for request in results["config"]["requests"])
    requests = [with_run_weights(plan.out.absolute(), request) for request in asked]
    images = replace(manifest, samples=labelled.samples)
    extract_features(images, requests, plan.cache_root, settings=plan.settings, progress=Silent())
    used = [cache_folder(each) for each in results["features"]]
    remember_use(plan.cache_root, used, manifest.source)
    return_freed_memory(sum(4 * len(labelled.samples) * each["dim"] for each in results["features"]))
    report_on(plan.out, manifest.source, plan.cache_root, progress)


def _extract(
    request: FeatureRequest, manifest: Manifest, labelled: Labelled, plan: FinetunePlan, progress: Progress
) -> Features:
    """Extract the features of every image by the tuned weights into the cache."""
    images = replace(manifest, samples=labelled.samples)
    report = extract_features(images, [request], plan.cache_root, settings=plan.settings, progress=progress)
    _check_unchanged(labelled, report)
    with Memo(plan.cache_root, read_only=True) as memo:
        (features,) = look_up(labelled, [request], cache_root=plan.cache_root, memo=memo)
    return features


def _check_unchanged(labelled: Labelled, report: ExtractReport) -> None:
    """Raises PipelineError where an image is no longer the one that was trained on."""
    now = {sample.name: bytes(row) for sample, row in zip(report.samples, report.digests, strict=True)}
    for sample, digest in zip(labelled.samples, labelled.digests, strict=True):
        if now.get(sample.name) != bytes(digest):
            raise PipelineError(
                f"'{printable(sample.name)}' changed or went away while the training went on. Put it back, and give "
                "the same command with --resume: the training is kept."
            )


def _test_head(tuned: Tuned, features: Features, labelled: Labelled, plan: FinetunePlan, fit_seconds: float) -> Tried:
    """The last layers on the tuned features, with the temperature that suits val, tested once."""
    last_layers = tuned.training.network.last_layers
    X_val, y_val = features.X[labelled.place("val")], labelled.y[labelled.rows("val")]
    scores = as_head(last_layers, 1.0).predict_proba(X_val)
    head = as_head(last_layers, fit_tempering(scores, y_val))
    on_val, proba_val = head.predict_both(X_val)
    val = score(y_val, proba_val, on_val)
    result = SweepResult(head, _params(tuned, plan), _grid(tuned), val, fit_seconds, 1)
    X_test = features.X[labelled.place("test")]
    started = time.perf_counter()
    predicted, proba = head.predict_both(X_test)
    return Tried(features, HEAD, result, predicted, proba, None, round(time.perf_counter() - started, 4))


def _params(tuned: Tuned, plan: FinetunePlan) -> dict[str, Any]:
    best = tuned.training.best_epoch
    return {
        "start": "random" if tuned.source.is_random else tuned.source.row["name"],
        "unfreeze": tuned.split.unfreeze,
        "augment": plan.augment,
        "learning_rate": plan.recipe.learning_rate,
        "epochs": best.number if best else 0,
    }


def _grid(tuned: Tuned) -> list[dict[str, Any]]:
    """A row for each epoch, like the settings of a sweep."""
    return [
        {
            "params": {"epochs": epoch.number},
            "val_accuracy": epoch.val_accuracy,
            "val_log_loss": epoch.val_log_loss,
            "converged": True,
            "seconds": epoch.seconds,
        }
        for epoch in tuned.training.epochs
    ]


def _finetune_row(tuned: Tuned, plan: FinetunePlan, fit_seconds: float) -> FinetuneRow:
    return {
        "identity": tuned.checkpoint.identity,
        "from": str(plan.source.resolve()),
        "head": "random" if tuned.source.is_random else tuned.source.row["name"],
        "unfreeze": tuned.split.unfreeze,
        "split": tuned.split.layer,
        "size": tuned.transform.crop,
        "augment": plan.augment,
        "views": plan.n_views,
        "dtype": plan.map_dtype if tuned.split.layer else None,
        "recipe": asdict(plan.recipe),
        "epochs": [vars(epoch) for epoch in tuned.training.epochs],
        "seconds": round(fit_seconds, 1),
    }
