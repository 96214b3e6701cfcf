"""The loop: AdamW, a cosine with warm-up, a running mean of the weights, val after every epoch, the best of them kept.

    loss = -1/B sum_i w_i sum_c q_ic log softmax(s_i)_c,      q_ic = (1 - e) [c = y_i] + e / C

What is evaluated and kept is the running mean of the weights, never the last step. Everything random is drawn from the
seed and the number of the epoch, so the state is the step, the weights and the optimiser's averages: a training that is
killed and resumed takes the same steps as one that is not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from featurecache.base.errors import Diverged, PipelineError
from featurecache.extract.engines.fixed_batches import is_out_of_memory
from featurecache.finetune.epochs import Epoch, val_metrics
from featurecache.finetune.maps import Maps, in_order, shuffled
from featurecache.finetune.network import TrainedPart, parameter_groups, trained_tensors
from featurecache.finetune.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.backbones.freezing import Split

# A kill loses at most these many seconds of training.
SAVE_SECONDS = 30.0

OnStep = Callable[[int, int, str], None]
Save = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ImageSet:
    """Images of train or val: their maps, codes (N,), and the number of views of each."""

    maps: Maps
    y: NDArray[np.int64]
    n_views: int = 1

    @property
    def rows(self) -> NDArray[np.int64]:
        """All of them."""
        return np.arange(len(self.y))


@dataclass
class Training:
    """One network on its way; `weights` (C,) are those of the classes.

    started: when this process began with it, by `time.perf_counter`; spent: seconds of the processes before.
    """

    network: TrainedPart
    split: Split
    recipe: Recipe
    train: ImageSet
    val: ImageSet
    weights: Tensor
    device: str = "cpu"
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    spent: float = 0.0

    def __post_init__(self) -> None:
        self.optimiser = torch.optim.AdamW(parameter_groups(self.split, self.network, self.recipe), lr=0.0)
        self.weights = self.weights.to(self.device)
        self.mean = {name: tensor.detach().clone() for name, tensor in trained_tensors(self.network)}
        self.best = {name: tensor.clone() for name, tensor in self.mean.items()}
        self.n_batches = len(in_order(self.train.rows, self.recipe.batch_size))
        self.n_steps = self.n_batches * self.recipe.epochs

    @property
    def best_epoch(self) -> Epoch | None:
        """The epoch with the best metrics on val; of equals the first."""
        return min(self.epochs, key=lambda epoch: epoch.rank) if self.epochs else None

    @property
    def elapsed(self) -> float:
        """Seconds up to now, in all processes."""
        return self.spent + time.perf_counter() - self.started

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or `patience` of them passed without better metrics on val."""
        best = self.best_epoch
        return best is not None and (
            len(self.epochs) == self.recipe.epochs or len(self.epochs) - best.number >= self.recipe.patience
        )

    def run(self, progress: OnStep, save: Save) -> None:
        """Train to the end and put the best weights into the network.

        Raises Diverged for a loss that is NaN or infinite, PipelineError where memory is short.
        """
        saved = time.perf_counter()
        while not self.is_over:
            with self._explaining_memory():
                for _ in self._epoch():
                    progress(self.step, self.n_steps, self._text())
                    if time.perf_counter() - saved > SAVE_SECONDS and self.step % self.n_batches:
                        save(self.state())
                        saved = time.perf_counter()
            save(self.state())
            saved = time.perf_counter()
        self.take(self.best)

    def _epoch(self) -> Iterator[None]:
        """The rest of the current epoch, a step at a time, then its metrics on val."""
        number = self.step // self.n_batches
        batches = shuffled(
            self.train.rows, self.train.n_views, self.recipe.batch_size, seed=self.recipe.seed, epoch=number
        )[self.step % self.n_batches :]
        started, before = time.perf_counter(), self.seconds
        with closing(self.train.maps.batches(batches)) as loaded:  # type: ignore[type-var]
            for batch, maps in zip(batches, loaded, strict=True):
                self._step(maps.to(self.device), torch.from_numpy(self.train.y[batch.rows]).to(self.device))
                self.seconds = before + time.perf_counter() - started
                yield
        scores = self.scores(self.val)
        self._check(bool(np.isfinite(scores).all()), self.step)
        accuracy, loss = val_metrics(scores, self.val.y)
        train_loss = self.loss_sum / len(self.train.y)
        self.epochs.append(Epoch(number + 1, train_loss, accuracy, loss, round(self.seconds, 3)))
        self.loss_sum = self.seconds = 0.0
        if self.best_epoch is self.epochs[-1]:
            self.best = {name: tensor.clone() for name, tensor in self.mean.items()}

    def _step(self, maps: Tensor, y: Tensor) -> None:
        rate = self.recipe.rate(self.step, self.n_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        size = math.ceil(len(y) / self.recipe.parts)
        for some, codes in zip(torch.split(maps, size), torch.split(y, size), strict=True):
            loss = self.loss(some, codes) / len(y)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        self._check(math.isfinite(total), self.step + 1)
        self.optimiser.step()
        kept = self.recipe.averaging_decay(self.step, self.n_steps)
        with torch.no_grad():
            for name, tensor in trained_tensors(self.network):
                self.mean[name].lerp_(tensor, 1 - kept)
        self.loss_sum += total * len(y)
        self.step += 1

    @property
    def _pass_size(self) -> int:
        """Images that run through the network at once."""
        return math.ceil(self.recipe.batch_size / self.recipe.parts)

    @contextmanager
    def _explaining_memory(self) -> Iterator[None]:
        """Raises PipelineError with a way out where the block needs more memory than there is."""
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            way_out = (
                f"lower --batch-size, which was {self.recipe.batch_size}"
                if self.recipe.batch_norm == "trained"
                else f"cut each step into more passes with --accumulate {2 * self.recipe.parts}"
            )
            raise PipelineError(
                f"A pass of {self._pass_size} images needs more memory than there is: {way_out}, and start again."
            ) from error

    def loss(self, maps: Tensor, y: Tensor) -> Tensor:
        """The loss summed over maps (B, D) with codes y (B,)."""
        with self._numerics():
            scores = self.network(maps)
        each = F.cross_entropy(scores.float(), y, reduction="none", label_smoothing=self.recipe.smoothing)
        return (each * self.weights[y]).sum()

    def scores(self, images: ImageSet) -> NDArray[np.float32]:
        """The scores (N, C) of the running mean on images as they are."""
        found = []
        with torch.inference_mode(), self._numerics(), closing(self._batches(images)) as loaded:
            was_training = [module for module in self.network.modules() if module.training]
            self.network.eval()
            for maps in loaded:
                scores = torch.func.functional_call(self.network, self.mean, (maps.to(self.device),))
                found.append(scores.float().cpu().numpy())
            for module in was_training:
                module.training = True
        return np.concatenate(found)

    def _batches(self, images: ImageSet) -> Any:
        return images.maps.batches(in_order(images.rows, self._pass_size))

    def _numerics(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def _check(self, is_finite: bool, step: int) -> None:
        """Raises Diverged, naming the step, counted from 1, where numbers are not finite."""
        if is_finite:
            return
        raise Diverged(
            f"The loss is NaN or infinite at step {step} of {self.n_steps} (epoch "
            f"{(step - 1) // self.n_batches + 1}): the learning rate is too high. Lower --lr, which was "
            f"{self.recipe.learning_rate:g}, to {self.recipe.learning_rate / 10:g} and start again."
        )

    def _text(self) -> str:
        number = (self.step - 1) // self.n_batches
        n_seen = min((self.step - number * self.n_batches) * self.recipe.batch_size, len(self.train.y))
        text = f"epoch {number + 1} of {self.recipe.epochs}, loss {self.loss_sum / n_seen:.3f}"
        best = self.best_epoch
        return text if best is None else f"{text}, best val {best.val_accuracy:.2%}"

    def take(self, weights: dict[str, Tensor]) -> None:
        """Put weights into the network, in place."""
        with torch.no_grad():
            for name, tensor in trained_tensors(self.network):
                tensor.copy_(weights[name])

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values."""
        return {
            "step": self.step,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds,
            "elapsed": self.elapsed,
            "epochs": json.dumps([vars(epoch) for epoch in self.epochs]),
            "weights": {name: tensor.detach() for name, tensor in trained_tensors(self.network)},
            "mean": self.mean,
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state as if nothing had happened."""
        self.step, self.loss_sum, self.seconds = state["step"], state["loss_sum"], state["seconds"]
        self.spent = state["elapsed"]
        self.epochs = [Epoch(**values) for values in json.loads(state["epochs"])]
        self.take(state["weights"])
        for name in self.mean:
            self.mean[name].copy_(state["mean"][name])
            self.best[name].copy_(state["best"][name])
        self.optimiser.load_state_dict(state["optimiser"])
