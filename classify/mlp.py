"""The classic top: one hidden layer, trained with Adam."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from torch.nn import functional

from classify.arrays import AnyArray, FloatArray, IntArray
from classify.calibration import softmax
from classify.contract import begin_fit, begin_predict, codes_among
from classify.scaling import Scaling, fit_common_scaling
from classify.trials import Trial, try_head

# Rows per matrix product at prediction: 8192 x 1024 float32 is 34 MB.
BLOCK = 8192


class MLPHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Dense(hidden, relu), dropout, softmax; cross-entropy; Adam (Kingma and Ba 2015) on features scaled as one.

    With a val set given to `fit` the epoch with the best val accuracy (then the lowest val log loss) is kept, and
    training ends after `patience` epochs without a better one; `best_epoch_` counts from 1. Without, all epochs run.
    Everything random (first weights, order of rows, dropout) comes from one generator seeded by `random_state`; torch's
    global one is not touched.

    Learned: hidden_coef_ (H, D) and hidden_intercept_ (H,) on raw features, coef_ (C, H) and intercept_ (C,).
    Prediction needs numpy only.
    """

    classes_: AnyArray

    def __init__(
        self,
        hidden: int = 1024,
        *,
        learning_rate: float = 1e-3,
        dropout: float = 0.0,
        batch_size: int = 32,
        epochs: int = 10,
        patience: int = 3,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.dropout = dropout
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.device = device
        self.random_state = random_state

    def fit(
        self, X: FloatArray, y: AnyArray, *, X_val: FloatArray | None = None, y_val: AnyArray | None = None
    ) -> Self:
        """Learn from X (N, D) and labels y (N,); X_val (M, D) and y_val (M,) only choose the epoch."""
        X, codes = begin_fit(self, X, y)
        scaling = fit_common_scaling(X)
        network = self._start(X)
        best, waited = (-1.0, 0.0), 0
        with one_thread():
            for epoch, _ in enumerate(self._epochs(network, scaling.apply(X), codes), start=1):
                reached = (0.0, 0.0) if X_val is None or y_val is None else self._look(network, scaling, X_val, y_val)
                waited = 0 if X_val is None or reached > best else waited + 1
                if waited == 0:
                    best, self.best_epoch_ = reached, epoch
                    self._keep(network, scaling)
                if waited == self.patience:
                    break
        self.converged_ = bool(np.isfinite(self.coef_).all() and np.isfinite(self.hidden_coef_).all())
        self.note_ = "" if self.converged_ else f"learning_rate={self.learning_rate:g}: training diverged."
        return self

    def predict_proba(self, X: FloatArray) -> FloatArray:
        """Return the class probabilities (M, C) of X (M, D)."""
        X = begin_predict(self, X)
        return softmax(np.concatenate([self._logits(X[i : i + BLOCK]) for i in range(0, len(X), BLOCK)]))

    def predict(self, X: FloatArray) -> AnyArray:
        """Return the most probable label (M,) for each row of X (M, D)."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    @classmethod
    def try_grid(
        cls, heads: Sequence[Self], X: FloatArray, y: AnyArray, X_val: FloatArray, y_val: AnyArray
    ) -> Iterator[Trial]:
        """Train each head on X (N, D), y (N,), stopped early on X_val (M, D), y_val (M,), which decides `epochs`."""
        for head in heads:
            head.fit(X, y, X_val=X_val, y_val=y_val)
            yield try_head(head, X_val, y_val, epochs=head.best_epoch_)

    def _start(self, X: FloatArray) -> "Network":
        generator = torch.Generator(device=self.device)
        generator.manual_seed(int(check_random_state(self.random_state).randint(2**31 - 1)))
        dtype = torch.float32 if X.dtype == np.float32 else torch.float64
        return Network((X.shape[1], self.hidden, len(self.classes_)), generator, dtype)

    def _epochs(self, network: "Network", Z: FloatArray, codes: IntArray) -> Iterator[None]:
        """Train on Z (N, D) and codes (N,), pausing after every epoch."""
        device = network.generator.device
        rows, targets = torch.from_numpy(Z).to(device), torch.from_numpy(codes).to(device)
        optimiser = torch.optim.Adam(network.tensors, lr=self.learning_rate, fused=True)
        for _ in range(self.epochs):
            order = torch.randperm(len(rows), generator=network.generator, device=device)
            for batch in torch.split(order, self.batch_size):
                optimiser.zero_grad()
                functional.cross_entropy(network(rows[batch], self.dropout), targets[batch]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            yield

    def _look(self, network: "Network", scaling: Scaling, X_val: FloatArray, y_val: AnyArray) -> tuple[float, float]:
        """Return the accuracy and minus the log loss on val: larger is better."""
        codes, known = codes_among(self.classes_, np.asarray(y_val))
        with torch.inference_mode():
            rows = torch.from_numpy(scaling.apply(np.asarray(X_val)[known])).to(network.tensors[0])
            targets = torch.from_numpy(codes[known]).to(rows.device)
            logits = network(rows, dropout=0.0)
            accuracy = float((logits.argmax(dim=1) == targets).double().mean())
            return accuracy, -float(functional.cross_entropy(logits, targets))

    def _keep(self, network: "Network", scaling: Scaling) -> None:
        hidden, hidden_bias, output, bias = (tensor.detach().cpu().numpy().copy() for tensor in network.tensors)
        coef, intercept = scaling.fold(hidden, hidden_bias)
        self.hidden_coef_, self.hidden_intercept_ = coef.astype(hidden.dtype), intercept.astype(hidden.dtype)
        self.coef_, self.intercept_ = output, bias

    def _logits(self, X: FloatArray) -> FloatArray:
        hidden = np.maximum(X @ self.hidden_coef_.T.astype(X.dtype) + self.hidden_intercept_.astype(X.dtype), 0.0)
        return hidden @ self.coef_.T.astype(X.dtype) + self.intercept_.astype(X.dtype)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside, and as many as before after.

    Batches of 32 are too small to share: on two idle cores a second thread saves 10 %, on busy ones it waits and costs
    tenfold. Sums also come out the same on every number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Network:
    """Two layers as four tensors: weights (H, D), bias (H,), weights (C, H), bias (C,).

    First weights are uniform in ±sqrt(6 / fan_in) before relu (He et al. 2015) and ±sqrt(3 / fan_in) before softmax.
    Plain tensors, because torch.nn's layers and dropout draw from the global generator.
    """

    def __init__(self, widths: tuple[int, int, int], generator: torch.Generator, dtype: torch.dtype) -> None:
        feature_dim, hidden, n_classes = widths
        self.generator = generator
        self.tensors: list[torch.Tensor] = []
        for fan_in, fan_out, variance in ((feature_dim, hidden, 2.0), (hidden, n_classes, 1.0)):
            bound = (3.0 * variance / fan_in) ** 0.5
            drawn = torch.rand((fan_out, fan_in), generator=generator, dtype=dtype, device=generator.device)
            self.tensors.append(((2.0 * drawn - 1.0) * bound).requires_grad_())
            self.tensors.append(torch.zeros(fan_out, dtype=dtype, device=generator.device).requires_grad_())

    def __call__(self, rows: torch.Tensor, dropout: float) -> torch.Tensor:
        """Return the logits (B, C) of rows (B, D); a share `dropout` of the hidden units is 0, the rest scaled up."""
        hidden_weights, hidden_bias, weights, bias = self.tensors
        hidden = functional.relu(functional.linear(rows, hidden_weights, hidden_bias))
        if dropout > 0.0:
            kept = torch.rand(hidden.shape, generator=self.generator, device=hidden.device) >= dropout
            hidden = hidden * kept / (1.0 - dropout)
        return functional.linear(hidden, weights, bias)
