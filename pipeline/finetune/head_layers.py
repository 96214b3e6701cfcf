"""The head of a run as the last layers of a network, and such layers as a head again.

A linear head is one layer, the MLP is two with a relu between; the standardisation is folded into them already, and the
temperature goes into the last: softmax(s / T) = softmax((W / T) x + b / T).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from featurecache.base.errors import UsageError
from featurecache.classify.heads.table import build_head, list_heads
from featurecache.runs.documents import HeadRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINEAR, MLP = "logistic", "mlp"  # what tuned layers become: one, or two with a relu between
STARTERS = tuple(info.name for info in list_heads() if info.is_layers)
RANDOM = "random"

Layer = tuple["NDArray[np.floating[Any]]", "NDArray[np.floating[Any]]"]


def check_can_start(name: str) -> None:
    """Raises UsageError for a head that is no layers."""
    if name not in STARTERS:
        raise UsageError(
            f"The head '{name}' cannot start a network: it is no layer with weights. "
            f"--head takes {', '.join(STARTERS)} where the run has them, or '{RANDOM}'."
        )


def refit(row: HeadRow, X: NDArray[np.float32], y: NDArray[np.int64], *, seed: int) -> Any:
    """The chosen setting of a run's head, fitted to train alone: X (N, D), y (N,).

    The saved head has seen val, too, and val is to judge every epoch.
    """
    return build_head(row["name"], seed=seed, **row["params"]).fit(X, y)


def layers_of(head: Any) -> list[Layer]:
    """Weights and biases, (H, D) and (H,), then (C, H) and (C,)."""
    weight, bias = (np.asarray(each, dtype=np.float64) for each in (head.coef_, head.intercept_))
    temperature = float(getattr(head, "temperature", 1.0))
    layers: list[Layer] = [(weight / temperature, bias / temperature)]
    return [(head.hidden_coef_, head.hidden_intercept_), *layers] if hasattr(head, "hidden_coef_") else layers


def random_layers(feature_dim: int, n_classes: int, *, seed: int) -> list[Layer]:
    """One layer as torch starts it: uniform within 1 / sqrt(D)."""
    drawn = np.random.default_rng(seed).uniform(-1, 1, (n_classes, feature_dim + 1)) / np.sqrt(feature_dim)
    return [(drawn[:, :-1], drawn[:, -1])]


def as_module(layers: Sequence[Layer]) -> nn.Sequential:
    """The layers with a relu between each two."""
    modules: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.asarray(weight)))
            linear.bias.copy_(torch.from_numpy(np.asarray(bias)))
        modules += [nn.ReLU(), linear] if modules else [linear]
    return nn.Sequential(*modules)


def as_head(last_layers: nn.Sequential, temperature: float) -> Any:
    """Return these layers as a fitted head whose probabilities are softmax(scores / temperature)."""
    layers = [
        (layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy())
        for layer in last_layers
        if isinstance(layer, nn.Linear)
    ]
    coef, intercept = layers[-1]
    head = build_head(LINEAR) if len(layers) == 1 else build_head(MLP, hidden=len(layers[0][1]))
    if len(layers) == 1:
        coef, intercept = coef / np.float32(temperature), intercept / np.float32(temperature)
        head.n_iter_, head.slope_ = 0, 0.0
    else:
        head.hidden_coef_, head.hidden_intercept_ = layers[0]
        head.set_params(temperature=temperature)
    head.coef_, head.intercept_ = coef, intercept
    head.classes_, head.n_features_in_ = np.arange(len(coef)), layers[0][0].shape[1]
    head.converged_, head.note_ = True, ""
    return head
