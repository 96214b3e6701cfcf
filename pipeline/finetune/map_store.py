"""The feature maps of a data set: in the cache where the disk has room, else computed again in every epoch."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import CacheDamaged, PipelineError
from featurecache.base.progress import Progress
from featurecache.base.text import count, printable, readable_bytes
from featurecache.evaluate.join import Labelled
from featurecache.extract.cache.index import SHARDS_FOLDER
from featurecache.extract.cache.inventory import remember_use
from featurecache.extract.cache.shards import SUFFIX
from featurecache.extract.cache.store import SPEC_FILE, read_spec
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.job.request import FeatureRequest
from featurecache.features.feature_arrays import FeatureArrays, default_budget
from featurecache.finetune.maps import CachedMaps, ComputedMaps, Maps
from featurecache.finetune.plan import FinetunePlan

if TYPE_CHECKING:
    from featurecache.extract.backbones.freezing import Split
    from featurecache.extract.cache.transform_spec import TransformSpec

# Of the space that is free or the cache's already, maps may take this share by default.
DISK_SHARE = 0.5


def open_maps(
    manifest: Manifest,
    labelled: Labelled,
    plan: FinetunePlan,
    asked: FeatureRequest,
    split: Split,
    transform: TransformSpec,
    arrays: FeatureArrays,
    progress: Progress,
) -> tuple[Maps, Maps]:
    """The maps of train in every view, and of val as it is.

    Whether they are kept is decided once for both, since those of train take of the room that is free before.
    """
    request = replace(asked, layer=split.layer, pooling="flatten", dtype=plan.map_dtype)
    train, val = (_made(labelled, name, plan, request, transform) for name in ("train", "val"))
    if split.layer is None:
        return train, val
    n_bytes, budget = _bytes_of_maps(labelled, plan, split), _budget(plan, split)
    if n_bytes <= budget:
        kept = partial(_kept, manifest, request=request, plan=plan, arrays=arrays, progress=progress)
        return kept(train), kept(val)
    progress.say(_too_large(n_bytes, budget))
    engine = _engine(request, plan)
    return replace(train, engine=engine), replace(val, engine=engine)


def _made(
    labelled: Labelled, name: str, plan: FinetunePlan, request: FeatureRequest, transform: TransformSpec
) -> ComputedMaps:
    rows = labelled.rows(name)
    samples = [labelled.samples[i] for i in rows]
    views = plan.view_list if name == "train" else [None]
    return ComputedMaps(
        samples,
        labelled.digests[rows],
        views,
        transform,
        request.decode,
        None,
        request.dtype,
        plan.max_pixels,
        request.range,
    )


def _bytes_of_maps(labelled: Labelled, plan: FinetunePlan, split: Split) -> float:
    """Bytes of the maps in the cache, and once more where they are too many for memory."""
    n_maps = len(labelled.rows("train")) * (1 + plan.n_views) + len(labelled.rows("val"))
    n_bytes = n_maps * int(np.prod(split.shape)) * np.dtype(plan.map_dtype).itemsize
    in_memory = default_budget() if plan.memory is None else plan.memory
    return n_bytes if n_bytes <= in_memory else 2 * n_bytes - in_memory


def _budget(plan: FinetunePlan, split: Split) -> float:
    """Bytes that maps may take; those of this split that are there already count as free."""
    if plan.disk is not None:
        return plan.disk
    folders = [path.parent for path in plan.cache_root.glob(f"*/{SPEC_FILE}") if _is_of(split, path.parent)]
    kept = sum(path.stat().st_size for folder in folders for path in (folder / SHARDS_FOLDER).glob(f"*{SUFFIX}"))
    return DISK_SHARE * (shutil.disk_usage(plan.cache_root).free + kept)


def _is_of(split: Split, folder: Path) -> bool:
    try:
        spec = read_spec(folder)
    except CacheDamaged:
        return False
    return spec is not None and spec.layer == split.layer


def _too_large(n_bytes: float, budget: float) -> str:
    return (
        f"The maps would take {readable_bytes(n_bytes)} and may take {readable_bytes(budget)}: they are computed in "
        "every epoch. To allow more: --disk. To need less: a split further up (--unfreeze), fewer --views."
    )


def _kept(
    manifest: Manifest,
    made: ComputedMaps,
    *,
    request: FeatureRequest,
    plan: FinetunePlan,
    arrays: FeatureArrays,
    progress: Progress,
) -> CachedMaps:
    """The maps from the cache, after those that it lacks are computed. Raises PipelineError where an image has none."""
    from featurecache.extract.job.extract import extract_features

    requests = [replace(request, view=view.name if view else "") for view in made.views]
    report = extract_features(
        replace(manifest, samples=tuple(made.samples)),
        requests,
        plan.cache_root,
        settings=plan.settings,
        progress=progress,
    )
    if report.refusals:
        first, n = report.refusals[0], count(len(report.refusals), "image has", "images have")
        raise PipelineError(
            f"{n} no map, the first, '{printable(first.name)}', because {printable(first.reason)}. Repair or remove "
            "what is refused, classify again, and start from that run."
        )
    remember_use(plan.cache_root, [filled.cache.folder.name for filled in report.filled], manifest.source)
    return CachedMaps.load([filled.cache for filled in report.filled], made.digests, arrays)


def _engine(request: FeatureRequest, plan: FinetunePlan) -> Any:
    from featurecache.extract.engines.build import build_engine
    from featurecache.extract.engines.graph_store import GraphFolder
    from featurecache.extract.engines.protocol import source_of
    from featurecache.extract.job.request import resolve

    backbone = request.load()
    folder = plan.cache_root / resolve(request, backbone).spec.folder_name
    return build_engine(
        source_of(backbone),
        engine=plan.engine,
        device=plan.device,
        precision=request.precision,
        graphs=GraphFolder(folder),
    )
