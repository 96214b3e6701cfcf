"""Fine-tuning: head layers, frozen part, maps and training loop put together."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featurecache.base.errors import Diverged, UsageError
from featurecache.base.progress import Progress
from featurecache.base.text import printable
from featurecache.base.versions import installed_version
from featurecache.evaluate.join import Labelled
from featurecache.extract.backbones.cuts import CutRequest
from featurecache.extract.backbones.freezing import Split, split_network
from featurecache.extract.backbones.registry import load_network
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.engines.torch_engine import choose_device, reuse_freed_memory
from featurecache.extract.images.manifest import Manifest
from featurecache.features.feature_arrays import FeatureArrays, default_budget
from featurecache.features.feature_set import Features
from featurecache.finetune.checkpoint import Checkpoint
from featurecache.finetune.head_layers import as_module, layers_of, random_layers, refit
from featurecache.finetune.map_store import open_maps
from featurecache.finetune.maps import Maps
from featurecache.finetune.network import has_norms, prepare
from featurecache.finetune.plan import FinetunePlan
from featurecache.finetune.source_run import SourceRun
from featurecache.finetune.training import ImageSet, Training
from featurecache.runs.placing import home_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from featurecache.extract.backbones.architectures import Network


@dataclass(frozen=True)
class Untrained:
    """A network before it is trained: where it is split, what it expects of images, and where its state is kept."""

    network: Network
    transform: TransformSpec
    split: Split
    device: str
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Tuned:
    """A tuned network: its weights in place, its transform, and its training."""

    network: Network
    transform: TransformSpec
    training: Training
    split: Split
    source: SourceRun
    checkpoint: Checkpoint


def load_untrained(labelled: Labelled, features: Features, plan: FinetunePlan, source: SourceRun) -> Untrained:
    """Load the network and split it.

    Raises ExtractError for a split that is not there, UsageError for an option that would do nothing here.
    """
    request = source.request
    network, found, *_ = load_network(request.backbone, weights=request.weights, size=request.size)
    wanted = CutRequest(request.layer, request.pooling)
    split = split_network(request.backbone, network, found.transform, wanted, unfreeze=plan.unfreeze)
    _check_options(plan, split, request.backbone)
    device = choose_device(plan.device)
    checkpoint = _checkpoint(labelled, plan, source, features, split, device)
    return Untrained(network, request.adapted(found.transform), split, device, checkpoint)


def _check_options(plan: FinetunePlan, split: Split, backbone: str) -> None:
    """Raises UsageError for an option that would do nothing with this split."""
    if split.layer is None and plan.map_options:
        raise UsageError(
            f"--unfreeze {split.unfreeze} trains from the images on, so there are no maps: leave out "
            f"{', '.join(plan.map_options)}."
        )
    if plan.recipe.batch_norm == "trained" and not has_norms(split):
        raise UsageError(
            f"--batch-norm trained has nothing to train: {backbone} has no batch norm above the split. Leave it out."
        )


def tune(
    ready: Untrained,
    manifest: Manifest,
    labelled: Labelled,
    features: Features,
    plan: FinetunePlan,
    source: SourceRun,
    progress: Progress,
    *,
    began: float,
) -> Tuned:
    """Train; `began`: by `time.perf_counter`. Raises ExtractError, PipelineError for a loss that is no number."""
    split, checkpoint = ready.split, ready.checkpoint
    reuse_freed_memory()
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    is_kept = _is_kept(checkpoint, plan, progress)
    progress.say(_training_text(split, source, ready.transform))
    layers = _initial_layers(labelled, features, plan, source, split)
    arrays = FeatureArrays(default_budget() if plan.memory is None else plan.memory, plan.cache_root)
    train, val = open_maps(manifest, labelled, plan, source.request, split, ready.transform, arrays, progress)
    training = build_training(labelled, plan, split, layers, train, val, ready.device)
    training.started = began
    if plan.resume and is_kept:
        checkpoint.restore(training)
        progress.say(f"Going on behind step {training.step:,} of {training.n_steps:,}")
    try:
        training.run(progress.training, checkpoint.save)
    except Diverged:
        checkpoint.forget()
        raise
    return Tuned(ready.network, ready.transform, training, split, source, checkpoint)


def _training_text(split: Split, source: SourceRun, transform: TransformSpec) -> str:
    n_trained = sum(parameter.numel() for stage in split.stages for parameter in stage)
    head = "random last layer" if source.is_random else f"the run's {source.row['name']}"
    where = f"above {split.layer}" if split.layer else "from the image on"
    text = f"{source.request.backbone} at {transform.crop} px: training {n_trained:,} weights {where}, from {head}"
    if not source.is_random and source.spec.transform.crop != transform.crop:
        text += f" (fitted to features at {source.spec.transform.crop} px, so it is a poorer start)"
    return text


def _initial_layers(
    labelled: Labelled, features: Features, plan: FinetunePlan, source: SourceRun, split: Split
) -> nn.Sequential:
    if source.is_random:
        return as_module(random_layers(split.feature_dim, len(labelled.classes), seed=plan.recipe.seed))
    train = labelled.rows("train")
    head = refit(source.row, features.X[train], labelled.y[train], seed=source.results["config"]["seed"])
    return as_module(layers_of(head))


def build_training(
    labelled: Labelled,
    plan: FinetunePlan,
    split: Split,
    layers: nn.Sequential,
    train: Maps,
    val: Maps,
    device: str,
    *,
    lower: nn.Module | None = None,
) -> Training:
    """A training of what is above the split, at its first step; `lower` as in `TrainedPart`."""
    recipe = plan.recipe
    y_train, y_val = (labelled.y[labelled.rows(name)] for name in ("train", "val"))
    return Training(
        network=prepare(split, layers, batch_norm=recipe.batch_norm, device=device, lower=lower),
        split=split,
        recipe=recipe,
        train=ImageSet(train, y_train, 1 + plan.n_views),
        val=ImageSet(val, y_val),
        weights=_class_weights(y_train, len(labelled.classes), recipe.class_weight),
        device=device,
    )


def _class_weights(y: Any, n_classes: int, how: str) -> Tensor:
    """Weights (C,) with mean 1 over the rows: all 1, or such that all classes weigh the same."""
    counts = np.bincount(y, minlength=n_classes)
    weights = len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1)) if how == "balanced" else np.ones(n_classes)
    return torch.from_numpy(weights.astype(np.float32))


def _checkpoint(
    labelled: Labelled, plan: FinetunePlan, source: SourceRun, features: Features, split: Split, device: str
) -> Checkpoint:
    """Where the state is kept: named by everything that the result depends on."""
    data = hashlib.sha256(labelled.digests.tobytes() + labelled.y.tobytes())
    data.update("".join(map(str, labelled.splits)).encode())
    decisive = {
        "recipe": asdict(plan.recipe),
        "features": features.resolved.spec.to_dict(),
        "size": source.request.size,
        "head": None if source.is_random else [source.row["name"], source.row["params"]],
        "run_seed": source.results["config"]["seed"],
        "unfreeze": split.unfreeze,
        "views": [view.name for view in plan.view_list if view is not None],
        "dtype": plan.map_dtype,
        "device": device,
        "engine": plan.engine,
        "data": data.hexdigest(),
        "versions": [installed_version(name) for name in ("featurecache", "torch")],
    }
    return Checkpoint(home_of(plan.out), decisive)


def _is_kept(checkpoint: Checkpoint, plan: FinetunePlan, progress: Progress) -> bool:
    """Whether there is a state; reports it where --resume finds none, or where it could be used."""
    is_kept = checkpoint.path.exists()
    if plan.resume and not is_kept:  # a kill may have come before anything was saved
        progress.say(
            f"Nothing was saved of a fine-tune with these very settings in '{printable(checkpoint.path.parent)}': "
            "it starts from the beginning."
        )
    if not plan.resume and is_kept:
        progress.say("A fine-tune with these very settings was stopped here; --resume would go on from there.")
    return is_kept
