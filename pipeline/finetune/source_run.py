"""The source run of a fine-tune: its head, its splits, and the features that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from featurecache.base.errors import BackboneNotInRun, PipelineError, UsageError
from featurecache.base.progress import Progress, Silent
from featurecache.base.text import printable
from featurecache.evaluate.join import Labelled, label_samples, look_up
from featurecache.extract.backbones.cuts import STAGES
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.ranges import give_ranges
from featurecache.extract.cache.spec import INT8, PRECISIONS, FeatureSpec
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.images.vectors.origin import is_of_vectors
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.request import FeatureRequest
from featurecache.features.feature_set import Features
from featurecache.features.saved_with_head import head_meta
from featurecache.finetune.head_layers import RANDOM, STARTERS, check_can_start
from featurecache.finetune.plan import FinetunePlan
from featurecache.runs.command_lines import JOINT
from featurecache.runs.documents import HeadRow, Results, split_sizes
from featurecache.runs.folder import RESULTS_FILE, WEIGHTS_FILE
from featurecache.runs.head_choice import choose_head, features_of, metric_of
from featurecache.runs.moved import check_spec, weights_by_digest
from featurecache.runs.record_checks import need, need_each, read_results, saved_folder

# What a fine-tune takes over from the run besides its head.
NEEDED = ("features", "config.seed", "dataset.classes", "dataset.n_train", "dataset.n_val", "dataset.n_test")


@dataclass(frozen=True)
class SourceRun:
    """A run to start from: one of its heads, and the features of that head.

    row: the head in results.json. request: its features, with the size that is now asked for; trained_request, spec: as
    the head was trained on them. is_random: whether the last layers start at random instead.
    """

    row: HeadRow
    results: Results
    request: FeatureRequest
    trained_request: FeatureRequest
    spec: FeatureSpec
    is_random: bool


def read_source_run(plan: FinetunePlan, progress: Progress | None = None) -> SourceRun:
    """Read the run. Raises UsageError where it has no head to start from, or not the one that is named.

    progress: gets a line where the weights of the run are sought or have moved.
    """
    results = read_results(plan.source)
    need(plan.source / RESULTS_FILE, results, NEEDED)
    need_each(plan.source / RESULTS_FILE, results, "heads", ["params"])
    return _chosen(results, plan, progress or Silent())


def _chosen(results: Results, plan: FinetunePlan, progress: Progress) -> SourceRun:
    from featurecache.classify.heads.saving.folder import load_meta

    is_random = plan.head == RANDOM
    row = _row(results, _heads_at_one_place(results, _heads_on_backbone(results, plan), plan), plan.head)
    if not is_random:
        _check_untuned(results, plan)
        check_can_start(row["name"])
    place = saved_folder(plan.source, row)
    meta = head_meta(place, load_meta(place))
    if meta.parts or is_of_vectors(meta.request.backbone):
        what = "vectors from a file" if not meta.parts else f"the features of {len(meta.parts)} backbones side by side"
        raise UsageError(
            f"The head {row['name']} on {features_of(row)} takes {what}, and a network is fine-tuned from a head on "
            f"its own features: {_other_head(results)}"
        )
    trained = weights_by_digest(plan.source, meta.request, meta.spec, plan.cache_root, say=progress.say)
    request = trained if plan.size is None else replace(trained, size=plan.size)
    return SourceRun(row, results, training_request(request), trained, meta.spec, is_random)


def _other_head(results: Results) -> str:
    """The rest of a sentence: which other head to start from."""
    backbones = [head["backbone"] for head in results["heads"] if not head.get("members")]
    if any(JOINT not in name and not is_of_vectors(name) for name in backbones):
        return "name one with --head and --backbone."
    return "this run has none. Start from a run of 'featurecache run' on the images, with a backbone."


def training_request(request: FeatureRequest) -> FeatureRequest:
    """Return a request for the maps and the features of the trained network: in fp32 where it was in int8.

    int8 has no gradients, and a trained network might not suit it.
    """
    return replace(request, precision=PRECISIONS[0]) if request.precision == INT8 else request


def _heads_on_backbone(results: Results, plan: FinetunePlan) -> list[HeadRow]:
    heads = results["heads"]
    if plan.backbone is None:
        return heads if plan.head else [head for head in heads if JOINT not in head["backbone"]] or heads
    found = list(dict.fromkeys(head["backbone"] for head in heads))
    if plan.backbone not in found:
        raise BackboneNotInRun(
            f"'{printable(plan.source)}' is a run on {', '.join(found)}, not on {plan.backbone}.", plan.backbone
        )
    return [head for head in heads if head["backbone"] == plan.backbone]


def _heads_at_one_place(results: Results, heads: list[HeadRow], plan: FinetunePlan) -> list[HeadRow]:
    """The heads on one layer: a network is trained towards one place, not towards the ends of all stages."""
    ends = {each.get("name") for each in results["features"] if str(each.get("layer")).startswith(f"{STAGES}:")}
    found = [head for head in heads if features_of(head) not in ends]
    if not found:
        raise UsageError(
            f"All heads of '{printable(plan.source)}' take the ends of all stages, and a network ends in one place. "
            "Run classify without --layer stages, and start from that run."
        )
    return found


def _row(results: Results, heads: list[HeadRow], name: str | None) -> HeadRow:
    """The head that is named; without a name the best on val that can start a network, if any can."""
    able, metric = [head for head in heads if head["name"] in STARTERS], metric_of(results)
    fitted = [head for head in heads if not head.get("members")] or heads
    if name is None:
        return choose_head(able or fitted, None, metric=metric)
    return choose_head(fitted, None, metric=metric) if name == RANDOM else choose_head(heads, name, metric=metric)


def _check_untuned(results: Results, plan: FinetunePlan) -> None:
    if "finetune" in results:
        came_from = results["finetune"].get("from", "which it does not name")
        raise UsageError(
            f"'{printable(plan.source)}' is fine-tuned already. Start from the run that it was tuned from, "
            f"'{printable(came_from)}', or classify with --weights {printable(plan.source)}/"
            f"{WEIGHTS_FILE} and start from that run."
        )


def label_images(
    manifest: Manifest, plan: FinetunePlan, source: SourceRun, progress: Progress
) -> tuple[Labelled, Features]:
    """The labelled images in the splits of the run, and the features that its head was trained on.

    Features that are missing are computed. Raises PipelineError where the classes are others, CacheError where the
    backbone of this machine is not the run's.
    """
    for note in manifest.notes:
        progress.say(note)
    settings = plan.settings
    if source.trained_request.precision == INT8:  # on the CPU, whatever the device of the training
        settings = replace(settings, device="auto", engine="auto")
    give_ranges(plan.source, source.spec, plan.cache_root, progress.say)
    extract_features(manifest, [source.trained_request], plan.cache_root, settings=settings, progress=progress)
    with Memo(plan.cache_root) as memo:
        labelled = label_samples(
            manifest,
            memo,
            seed=source.results["config"]["seed"],
            requests=[source.trained_request],
            cache_root=plan.cache_root,
            min_per_class=source.results["config"].get("min_per_class", 1),
            on_progress=progress.digesting,
        )
        (features,) = look_up(labelled, [source.trained_request], cache_root=plan.cache_root, memo=memo)
    ours, theirs = [printable(name) for name in labelled.classes], source.results["dataset"]["classes"]
    if sorted(ours) == sorted(theirs):  # a run of an earlier version has them in another order
        labelled = _in_order(labelled, theirs)
    else:
        raise PipelineError(
            f"'{printable(manifest.source)}' has {len(ours)} classes ({', '.join(ours[:3])}, ...) and the run has "
            f"{len(theirs)} others ({', '.join(theirs[:3])}, ...): classify these images first, and name that run."
        )
    if not len(labelled.rows("val")):
        raise PipelineError(
            f"'{printable(manifest.source)}' has no val images to judge epochs by: give it a val/ folder or a few more "
            "images a class."
        )
    check_spec(source.spec, features.resolved.spec)
    for note in (*labelled.notes, *_others(labelled, source)):
        progress.say(note)
    return labelled, features


def _in_order(labelled: Labelled, classes: Sequence[str]) -> Labelled:
    """Return the same with the classes in another order; classes (C,): the names as they are printed."""
    import numpy as np

    place = {name: i for i, name in enumerate(classes)}
    codes = np.array([place[printable(name)] for name in labelled.classes], dtype=np.int64)
    ordered = sorted(labelled.classes, key=lambda name: place[printable(name)])
    return replace(labelled, y=codes[labelled.y], classes=ordered)


def _others(labelled: Labelled, source: SourceRun) -> list[str]:
    """A sentence where these are not the images of the run."""
    theirs = split_sizes(source.results["dataset"])
    if all(len(labelled.rows(split)) == n for split, n in theirs.items()):
        return []
    counts = ", ".join(f"{n:,} {split}" for split, n in theirs.items())
    return [f"The run had other images than these ({counts}): its heads and the tuned network cannot be compared."]
