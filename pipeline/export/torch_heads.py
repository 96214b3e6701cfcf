"""Fitted heads as modules of torch: features, float32 (B, D), to probabilities, float32 (B, C).

The arithmetic is that of `classify.heads.fitted.kinds`, tempered as by `classify.evaluation.calibration.temper_head`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featurecache.base.errors import UsageError
from featurecache.classify.evaluation.metrics import SMALLEST_PROBABILITY
from featurecache.classify.heads.fitted.kinds import FittedKernel, FittedLinear, FittedNetwork, FittedQuadratic
from featurecache.classify.solvers.pairwise_coupling import FLOOR, JITTER, SLOPE

# Beyond this -SLOPE d makes no difference: exp(-50) is far below the floor.
FAR = 50.0


class TorchHead(nn.Module):
    """A fitted head; temperature, floor: those that its probabilities are tempered with. Raises UsageError."""

    def __init__(self, head: Any, *, temperature: float, floor: float) -> None:
        super().__init__()
        self._score = _scores_of(head)
        self._temperature, self._floor, self._own = temperature, floor, head.temperature
        self._has_scores = not isinstance(head, FittedNetwork)

    def forward(self, features: Tensor) -> Tensor:
        """Return the probabilities (B, C) of features (B, D)."""
        scores = self._score(features).double()
        if self._temperature == 1.0:
            return torch.softmax(scores / self._own, dim=1).float()
        if self._has_scores and self._floor <= 0.0:
            return torch.softmax(scores / (self._own * self._temperature), dim=1).float()
        proba = torch.softmax(scores / self._own, dim=1).float().double()
        return torch.softmax(_log_proba(proba, self._floor) / self._temperature, dim=1).float()


def _log_proba(proba: Tensor, floor: float) -> Tensor:
    """Return the logarithms of probabilities (B, C), see `classify.evaluation.calibration.log_proba`."""
    if floor > 0.0:
        return proba.clamp(min=floor).log()
    least = torch.where(proba > 0.0, proba, SMALLEST_PROBABILITY).amin(dim=1, keepdim=True)
    return torch.maximum(proba, least.clamp(max=SMALLEST_PROBABILITY)).log()


def _scores_of(head: Any) -> nn.Module:
    """Return a module from features (B, D) to scores (B, C). Raises UsageError for a head that has none."""
    makers: tuple[tuple[type, Callable[[Any], nn.Module]], ...] = (
        (FittedLinear, lambda own: _layer(own.coef_, own.intercept_)),
        (FittedQuadratic, _Quadratic),
        (FittedNetwork, _network),
        (FittedKernel, _Kernel),
    )
    for kind, make in makers:
        if isinstance(head, kind):
            return make(head)
    name = type(getattr(head, "estimator_", head)).__name__.removeprefix("Fitted")
    raise UsageError(
        f"A program of torch cannot hold this head ({name}): name another by --head, or export it as one ONNX file, by "
        "--format onnx."
    )


def _layer(coef: Any, intercept: Any) -> nn.Linear:
    layer = nn.Linear(coef.shape[1], coef.shape[0])
    with torch.no_grad():
        layer.weight.copy_(_tensor(coef, np.float32))
        layer.bias.copy_(_tensor(intercept, np.float32))
    return layer


def _network(head: FittedNetwork) -> nn.Sequential:
    hidden = _layer(head.hidden_coef_, head.hidden_intercept_)
    return nn.Sequential(hidden, nn.ReLU(), _layer(head.coef_, head.intercept_))


def _tensor(values: Any, dtype: Any) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=dtype))


class _Quadratic(nn.Module):
    """Scores squares z^2 + coef z + intercept, z = x - mean, in float64."""

    mean: Tensor
    squares: Tensor
    coef: Tensor
    intercept: Tensor

    def __init__(self, head: FittedQuadratic) -> None:
        super().__init__()
        for name in ("mean", "squares", "coef", "intercept"):
            self.register_buffer(name, _tensor(getattr(head, f"{name}_"), np.float64))

    def forward(self, features: Tensor) -> Tensor:
        z = features.double() - self.mean
        scores: Tensor = z @ self.coef.T + self.intercept + (z * z) @ self.squares.T
        return scores


class _Kernel(nn.Module):
    """Decisions coef^T exp(-gamma |x - origin - v|^2) + intercept, coupled where they are of pairs; in float64."""

    origin: Tensor
    support_vectors: Tensor
    coef: Tensor
    intercept: Tensor

    def __init__(self, head: FittedKernel) -> None:
        super().__init__()
        for name in ("origin", "support_vectors", "coef", "intercept"):
            self.register_buffer(name, _tensor(getattr(head, f"{name}_"), np.float32))
        self._gamma, self._n_classes = float(head.gamma_), len(head.classes_)
        self._is_by_pairs = head.method_ == "exact"

    def forward(self, features: Tensor) -> Tensor:
        x, vectors = features.double() - self.origin.double(), self.support_vectors.double()
        distances = (x @ vectors.T) * -2.0 + (x * x).sum(dim=1, keepdim=True) + (vectors * vectors).sum(dim=1)
        kernel = torch.exp(distances.clamp(min=0.0) * -self._gamma)
        decisions = (kernel @ self.coef.double() + self.intercept.double()).float()
        if not self._is_by_pairs:
            return decisions
        if self._n_classes == 2:
            return torch.cat([decisions * (-SLOPE / 2.0), decisions * (SLOPE / 2.0)], dim=1)
        return _coupled(decisions.double(), self._n_classes)


def _coupled(decisions: Tensor, n_classes: int) -> Tensor:
    """Return the scores (B, C) of decisions (B, P), float64: see `classify.solvers.pairwise_coupling`."""
    won = torch.sigmoid((SLOPE * decisions).clamp(-FAR, FAR))
    places = np.full((n_classes, n_classes), 2 * decisions.shape[1])
    first, second = np.triu_indices(n_classes, k=1)
    pairs = np.arange(decisions.shape[1])
    places[first, second], places[second, first] = pairs, len(pairs) + pairs
    every = torch.cat([won, 1.0 - won, torch.zeros_like(won[:, :1])], dim=1)
    chances = every[:, torch.from_numpy(places.ravel())].reshape(-1, n_classes, n_classes)
    turned = chances.transpose(1, 2)
    diagonal = torch.diag_embed((turned * turned).sum(dim=2) + JITTER)
    solution = torch.linalg.solve(diagonal - turned * chances, torch.ones_like(turned[:, :, :1])).squeeze(2)
    scores: Tensor = (solution / solution.sum(dim=1, keepdim=True)).clamp(min=FLOOR).log()
    return scores
