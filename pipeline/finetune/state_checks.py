"""The state of a training from a file, compared with the state that the training has before it continues.

Whatever is in the file, what comes out has the same names, the same tensors by shape and type, finite numbers, a step
that there is, and of the optimiser the averages only: how it steps is decided by the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from featurecache.base.errors import PipelineError
from featurecache.base.plain_files import UnfitFile, parse_json

if TYPE_CHECKING:
    from featurecache.finetune.training import Training

TENSORS = ("weights", "mean", "best")
NUMBERS = ("loss_sum", "seconds", "elapsed")
EPOCH_FIELDS = ("number", "train_loss", "val_accuracy", "val_log_loss", "seconds")
# What AdamW keeps of each parameter; `step` is one number.
AVERAGES = ("step", "exp_avg", "exp_avg_sq")

Damaged = Callable[[str], PipelineError]


def check_state(found: Any, training: Training, identity: str, damaged: Damaged) -> dict[str, Any]:
    """The state in a file, ready to be taken over by this training; raises what `damaged` makes."""
    own = training.state()
    if not isinstance(found, dict) or not set(own) <= set(found):
        raise damaged("it is not the state of a training")
    if found.get("identity", identity) != identity:  # written by version 0.1.0 it has only its name
        raise damaged("it is the state of another training")
    if type(found["step"]) is not int or not 0 <= found["step"] <= training.n_steps:
        raise damaged("its step is none")
    for name in NUMBERS:
        if type(found[name]) not in (int, float) or not 0 <= found[name] < math.inf:
            raise damaged(f"its {name} is no number of 0 or more")
    checked: dict[str, Any] = {name: found[name] for name in ("step", *NUMBERS)}
    checked["epochs"] = _checked_epochs(found["epochs"], found["step"] // training.n_batches, damaged)
    for name in TENSORS:
        checked[name] = _checked_tensors(found[name], own[name], name, damaged)
    checked["optimiser"] = _checked_optimiser(found["optimiser"], training.optimiser, damaged)
    return checked


def _checked_epochs(text: Any, n_epochs: int, damaged: Damaged) -> str:
    """The finished epochs, as JSON text."""
    try:
        epochs = parse_json(text) if isinstance(text, str) else None
    except UnfitFile as error:
        raise damaged(str(error)) from error
    if not isinstance(epochs, list) or not all(isinstance(each, dict) for each in epochs):
        raise damaged("its epochs are not those before its step")
    if len(epochs) != n_epochs or any(sorted(each) != sorted(EPOCH_FIELDS) for each in epochs):
        raise damaged("its epochs are not those before its step")
    for number, each in enumerate(epochs, start=1):
        if each["number"] != number or any(type(value) not in (int, float) for value in each.values()):
            raise damaged("its epochs are not those before its step")
    return str(text)


def _checked_tensors(found: Any, own: Mapping[str, Tensor], what: str, damaged: Damaged) -> dict[str, Tensor]:
    if not isinstance(found, dict) or set(found) != set(own):
        raise damaged(f"its {what} are those of another network")
    for name, tensor in own.items():
        _check_tensor(found[name], tensor, f"'{name}' of its {what}", damaged)
    return found


def _check_tensor(found: Any, own: Tensor, what: str, damaged: Damaged) -> None:
    """Raise unless it is a plain tensor like ours: not sparse, not quantised, not larger than what is stored of it."""
    if not isinstance(found, Tensor) or found.shape != own.shape or found.dtype != own.dtype:
        raise damaged(f"{what} has another shape or type")
    is_plain = found.layout == torch.strided and found.device.type == "cpu" and not found.is_quantized
    if not is_plain or found.untyped_storage().nbytes() < found.numel() * found.element_size():
        raise damaged(f"{what} is no plain tensor")
    if not bool(torch.isfinite(found).all()):
        raise damaged(f"{what} is not finite")


def _checked_optimiser(found: Any, own: torch.optim.Optimizer, damaged: Damaged) -> dict[str, Any]:
    """Its averages, by the number of the parameter, with our own settings."""
    parameters = [parameter for group in own.param_groups for parameter in group["params"]]
    averages = found.get("state") if isinstance(found, dict) else None
    if not isinstance(averages, dict) or (averages and set(averages) != set(range(len(parameters)))):
        raise damaged("its optimiser is that of another network")
    for number, each in averages.items():
        if not isinstance(each, dict) or set(each) != set(AVERAGES):
            raise damaged("its optimiser is another one")
        for name in AVERAGES:
            like = torch.zeros(()) if name == "step" else parameters[number]
            _check_tensor(each[name], like, f"'{name}' of its optimiser", damaged)
    return {"state": averages, "param_groups": own.state_dict()["param_groups"]}
