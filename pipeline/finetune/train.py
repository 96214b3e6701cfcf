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
from featurecache.evaluate.feature_arrays import Shelf, default_budget
from featurecache.evaluate.join import Features, Labelled
from featurecache.extract.backbones.cutting import Wanted
from featurecache.extract.backbones.freezing import Split, split_network
from featurecache.extract.backbones.registry import load_network
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.engines.torch_engine import choose_device, keep_freed_memory
from featurecache.extract.images.manifest import Manifest
from featurecache.finetune.checkpoint import Checkpoint
from featurecache.finetune.head_layers import as_module, layers_of, random_layers, refit
from featurecache.finetune.map_store import supply_maps
from featurecache.finetune.maps import Maps
from featurecache.finetune.network import has_norms, prepare
from featurecache.finetune.plan import FinetunePlan
from featurecache.finetune.source_run import Beginning
from featurecache.finetune.training import Part, Training
from featurecache.runs.placing import home_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from featurecache.extract.backbones.architectures import Network


@dataclass(frozen=True)
class Ready:
    """A network before it is trained: where it is split, what it expects of images, and where its state is kept."""

    network: Network
    transform: TransformSpec
    split: Split
    device: str
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Tuned:
    """What came out: the network with its tuned weights in place, what it expects of images, and how it went."""

    network: Network
    transform: TransformSpec
    training: Training
    split: Split
    beginning: Beginning
    checkpoint: Checkpoint


def make_ready(labelled: Labelled, features: Features, plan: FinetunePlan, start: Beginning) -> Ready:
    """Load the network and split it.

    Raises ExtractError for a split that is not there, UsageError for an option that would do nothing here.
    """
    request = start.request
    network, found, _ = load_network(request.backbone, weights=request.weights, size=request.size)
    wanted = Wanted(request.layer, request.pooling)
    split = split_network(request.backbone, network, found.transform, wanted, unfreeze=plan.unfreeze)
    _check_heard(plan, split, request.backbone)
    device = choose_device(plan.device)
    checkpoint = _checkpoint(labelled, plan, start, features, split, device)
    return Ready(network, request.adapted(found.transform), split, device, checkpoint)


def _check_heard(plan: FinetunePlan, split: Split, backbone: str) -> None:
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
    ready: Ready,
    manifest: Manifest,
    labelled: Labelled,
    features: Features,
    plan: FinetunePlan,
    start: Beginning,
    progress: Progress,
    *,
    began: float,
) -> Tuned:
    """Train; `began`: by `time.perf_counter`. Raises ExtractError, PipelineError for a loss that is no number."""
    split, checkpoint = ready.split, ready.checkpoint
    keep_freed_memory()
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    is_kept = _is_kept(checkpoint, plan, progress)
    progress.say(_outlook(split, start, ready.transform))
    layers = _first_layers(labelled, features, plan, start, split)
    shelf = Shelf(default_budget() if plan.memory is None else plan.memory, plan.cache_root)
    train, val = supply_maps(manifest, labelled, plan, start.request, split, ready.transform, shelf, progress)
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
    return Tuned(ready.network, ready.transform, training, split, start, checkpoint)


def _outlook(split: Split, start: Beginning, transform: TransformSpec) -> str:
    n_trained = sum(parameter.numel() for stage in split.stages for parameter in stage)
    head = "random last layer" if start.is_random else f"the run's {start.row['name']}"
    where = f"above {split.layer}" if split.layer else "from the image on"
    text = f"{start.request.backbone} at {transform.crop} px: training {n_trained:,} weights {where}, from {head}"
    if not start.is_random and start.spec.transform.crop != transform.crop:
        text += f" (fitted to features at {start.spec.transform.crop} px: a start that is worth less)"
    return text


def _first_layers(
    labelled: Labelled, features: Features, plan: FinetunePlan, start: Beginning, split: Split
) -> nn.Sequential:
    if start.is_random:
        return as_module(random_layers(split.feature_dim, len(labelled.classes), seed=plan.recipe.seed))
    train = labelled.rows("train")
    head = refit(start.row, features.X[train], labelled.y[train], seed=start.results["config"]["seed"])
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
    """A training of what is above the split, at its beginning; `lower` as in `Trained`."""
    recipe = plan.recipe
    y_train, y_val = (labelled.y[labelled.rows(name)] for name in ("train", "val"))
    return Training(
        network=prepare(split, layers, batch_norm=recipe.batch_norm, device=device, lower=lower),
        split=split,
        recipe=recipe,
        train=Part(train, y_train, 1 + plan.n_views),
        val=Part(val, y_val),
        weights=_class_weights(y_train, len(labelled.classes), recipe.class_weight),
        device=device,
    )


def _class_weights(y: Any, n_classes: int, how: str) -> Tensor:
    """Weights (C,) with mean 1 over the rows: all 1, or such that all classes weigh the same."""
    counts = np.bincount(y, minlength=n_classes)
    weights = len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1)) if how == "balanced" else np.ones(n_classes)
    return torch.from_numpy(weights.astype(np.float32))


def _checkpoint(
    labelled: Labelled, plan: FinetunePlan, start: Beginning, features: Features, split: Split, device: str
) -> Checkpoint:
    """Where the state is kept: named by everything that decides what comes out."""
    data = hashlib.sha256(labelled.digests.tobytes() + labelled.y.tobytes())
    data.update("".join(map(str, labelled.splits)).encode())
    decisive = {
        "recipe": asdict(plan.recipe),
        "features": features.resolved.spec.to_dict(),
        "size": start.request.size,
        "head": None if start.is_random else [start.row["name"], start.row["params"]],
        "run_seed": start.results["config"]["seed"],
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
    """Whether there is a state; says so where that is not what --resume, or its absence, lets one expect."""
    is_kept = checkpoint.path.exists()
    if plan.resume and not is_kept:  # a kill may have come before anything was saved
        progress.say(
            f"Nothing was saved of a fine-tune with these very settings in '{printable(checkpoint.path.parent)}': "
            "it begins anew."
        )
    if not plan.resume and is_kept:
        progress.say("A fine-tune with these very settings was stopped here; --resume would go on from there.")
    return is_kept
