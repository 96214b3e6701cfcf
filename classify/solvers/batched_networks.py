"""Two-layer networks trained together on the same batches of rows.

    a = relu(W1 x + b1),     s = W2 (m a / (1 - p)) + b2,     loss = -sum_i w_i q_i log softmax(s_i) / N

with m the dropout mask, zero with probability p (Srivastava et al. 2014), q_i = e / C for each of C classes and 1 - e
more for that of the row (label smoothing, Szegedy et al. 2016), and AdamW (Kingma and Ba 2015; Loshchilov and Hutter
2019). A batch is gathered once for all networks; each in turn computes its gradient, without autograd, and takes
its step at once, while its weights are in the processor's cache. Networks that have stopped are removed. The two large
products of a step are those of `classify.solvers.mixed_precision`, whose factors may be rounded.

What is evaluated and kept is not the last step but a running mean of all steps, the later ones weighing more (Polyak
and Juditsky 1992; polynomial decay of Shamir and Zhang 2013, section 4):

    mean_t = (1 - c_t) mean_{t-1} + c_t theta_t,     c_t = (ETA + 1) / (t + ETA)

It needs no schedule of learning rates, so every epoch is as good an end as any: on 60,000 Fashion-MNIST images it is a
point more accurate than the last step (92.3 against 91.3 % on val), and smooth enough from epoch to epoch to choose by.

Everything random (first weights, dropout) is drawn from generators of the networks' own, those of one width sharing
each draw: a network is the same, up to rounding, whichever others are trained with it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.optim.adamw import adamw

from featurecache.classify.arrays.array_types import FloatArray
from featurecache.classify.solvers.mixed_precision import product_for

Tensor = torch.Tensor
Layers = list[Tensor]
Empty = Callable[[int, int], Tensor]
# Arrays as large as its weights that a network in training holds: those, their mean, and the two moments of AdamW.
KEPT = 4
# Each begins at a multiple of so many numbers, 64 bytes of float32: what lies across the processor's lines is slower.
LINE = 16
# The mean reaches back over about the last fifth of the steps.
ETA = 4.0
# Every fourth step enters the mean: neighbouring steps are nearly equal, and adding one reads all weights.
MEAN_EVERY = 4
# Multiplications of one matrix product below which it stays on one core: about a millisecond.
WORTH_THREADS = 50_000_000


@dataclass(frozen=True)
class Recipe:
    """The setting of one network: its width H, and how it is trained."""

    hidden: int
    learning_rate: float
    dropout: float
    weight_decay: float
    label_smoothing: float = 0.0


class Networks:
    """G networks in training, each with layers (H, D), (H,), (C, H), (C,).

    empty(rows, columns): an array for what a network holds, in memory by default.
    """

    def __init__(
        self,
        recipes: Sequence[Recipe],
        feature_dim: int,
        n_classes: int,
        *,
        seed: int,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        empty: Empty | None = None,
    ) -> None:
        self.dtype, self.device, self.n_steps = dtype, device, 0
        self.recipes = list(recipes)
        self.drawn = {recipe.hidden: torch.Generator(device=device).manual_seed(seed) for recipe in recipes}
        first = {width: self._initial_layers(width, feature_dim, n_classes) for width in self.drawn}
        self.layers: list[Layers] = []
        self.means: list[Layers] = []
        self.optimisers: list[_AdamW] = []
        for recipe in recipes:
            layers, mean, *moments = _arrays(empty or self._in_memory, first[recipe.hidden])
            for same in (layers, mean):
                torch._foreach_copy_(same, first[recipe.hidden])
            self.layers.append(layers)
            self.means.append(mean)
            self.optimisers.append(_AdamW(recipe, layers, *moments))
        self.activity = self.by_activity = self.layers[0][0].new_empty((0, 0))
        self._share_gradients()

    def train(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Take one step per batch: rows (B, D), class codes (B,) and weights (B,), 1 on average over all rows."""
        for rows, codes, weights in batches:
            ready = self._gradients(rows, codes, weights / len(rows))
            for _, optimiser in zip(ready, self.optimisers, strict=True):
                optimiser.step()
            self.n_steps += 1
            if self.n_steps % MEAN_EVERY == 0:
                self._take_in(self.n_steps / MEAN_EVERY)

    def scores(self, blocks: Iterable[Tensor], n_rows: int, places: Sequence[int]) -> list[FloatArray]:
        """Return the scores (M, C) of some networks, by their mean weights, for M rows that come in blocks (B, D)."""
        if not places:
            return []
        # Made before the blocks: small arrays that stay, between large ones that go, would cost 150 MB.
        found = [self.means[place][3].new_empty((n_rows, len(self.means[place][3]))) for place in places]
        start = 0
        for rows in blocks:
            for place, scores in zip(places, found, strict=True):
                scores[start : start + len(rows)] = mean_scores(rows, self.means[place])
            start += len(rows)
        return [scores.cpu().numpy() for scores in found]

    def keep(self, staying: Sequence[int]) -> None:
        """Keep the networks at the positions `staying` and drop the others."""
        self.optimisers = [self.optimisers[i] for i in staying]
        self.recipes = [self.recipes[i] for i in staying]
        self.layers, self.means = [self.layers[i] for i in staying], [self.means[i] for i in staying]

    def learned(self, position: int) -> list[FloatArray]:
        """Return the mean layers of one network."""
        return [layer.cpu().numpy() for layer in self.means[position]]

    def _initial_layers(self, width: int, feature_dim: int, n_classes: int) -> Layers:
        """Draw weights uniform in ±sqrt(6 / fan_in) before relu (He et al. 2015), ±sqrt(3 / fan_in) before softmax."""
        layers = []
        for fan_in, fan_out, variance in ((feature_dim, width, 2.0), (width, n_classes, 1.0)):
            drawn = self._uniform(width, (fan_out, fan_in))
            layers += [(2.0 * drawn - 1.0) * (3.0 * variance / fan_in) ** 0.5, drawn.new_zeros(fan_out)]
        return layers

    def _in_memory(self, n_rows: int, n_columns: int) -> Tensor:
        return torch.empty((n_rows, n_columns), dtype=self.dtype, device=self.device)

    def _uniform(self, width: int, shape: tuple[int, int]) -> Tensor:
        """Draw numbers from 0 to 1, the same in every precision."""
        return torch.rand(shape, generator=self.drawn[width], device=self.device, dtype=torch.float32).to(self.dtype)

    def _share_gradients(self) -> None:
        """Let the first layers share the memory of their gradients, which are needed one after the other."""
        shared = {recipe.hidden: layers[:2] for recipe, layers in zip(self.recipes, self.layers, strict=True)}
        first = {width: [torch.empty_like(layer) for layer in layers] for width, layers in shared.items()}
        for recipe, layers in zip(self.recipes, self.layers, strict=True):
            layers[0].grad, layers[1].grad = first[recipe.hidden]
            layers[2].grad, layers[3].grad = torch.empty_like(layers[2]), torch.empty_like(layers[3])

    def _take_in(self, n_means: float) -> None:
        share = min(1.0, (ETA + 1.0) / (n_means + ETA))
        for mean, layers in zip(self.means, self.layers, strict=True):
            torch._foreach_lerp_(mean, layers, share)

    def _gradients(self, rows: Tensor, codes: Tensor, weights: Tensor) -> Iterator[Layers]:
        """Write the gradient of the loss on rows (B, D), codes (B,), weights (B,), one network after the other.

        What is yielded are the layers that have theirs now, until the next: a gradient that is used at once is still in
        the processor's cache, and those of all networks would be as large as their weights.
        """
        columns = torch.arange(len(rows), device=rows.device)
        draws = {width: self._uniform(width, (width, len(rows))) for width in self._dropping()}
        widest = max(recipe.hidden for recipe in self.recipes)
        if self.activity.shape != (widest, len(rows)):
            # Fresh memory for every batch would be cleared by the system, page by page.
            self.activity, self.by_activity = (rows.new_empty((widest, len(rows))) for _ in range(2))
        for layers, recipe in zip(self.layers, self.recipes, strict=True):
            multiply = product_for(rows.numel() * recipe.hidden, self.dtype, self.device)
            hidden = self._hidden(multiply(layers[0], rows.T, self.activity[: recipe.hidden]), layers, recipe, draws)
            by_scores = torch.softmax(torch.addmm(layers[3][:, None], layers[2], hidden), dim=0)
            by_scores.sub_(recipe.label_smoothing / len(by_scores))
            by_scores[codes, columns] -= 1.0 - recipe.label_smoothing
            by_scores.mul_(weights)
            torch.mm(by_scores, hidden.T, out=layers[2].grad)
            torch.sum(by_scores, dim=1, out=layers[3].grad)
            by_hidden = torch.mm(layers[2].T, by_scores, out=self.by_activity[: recipe.hidden])
            # What was dropped, or cut off by relu, is zero now and passes nothing on.
            torch.ops.aten.threshold_backward.grad_input(by_hidden, hidden, 0.0, grad_input=by_hidden)
            if recipe.dropout > 0.0:
                by_hidden.div_(1.0 - recipe.dropout)
            by_weights = layers[0].grad
            assert by_weights is not None  # `_share_gradients` gave it its memory
            multiply(by_hidden, rows, by_weights)
            torch.sum(by_hidden, dim=1, out=layers[1].grad)
            yield layers

    def _hidden(self, product: Tensor, layers: Layers, recipe: Recipe, draws: Mapping[int, Tensor]) -> Tensor:
        """Turn W1 x (H, B) into relu(W1 x + b1), in place, with dropout by its draw from 0 to 1 (H, B)."""
        hidden = product.add_(layers[1][:, None]).relu_()
        if recipe.dropout == 0.0:
            return hidden
        kept = 1.0 - recipe.dropout
        return hidden.mul_(draws[recipe.hidden] < kept).div_(kept)

    def _dropping(self) -> set[int]:
        """Return the widths that need a draw of dropout."""
        return {recipe.hidden for recipe in self.recipes if recipe.dropout > 0.0}


def _arrays(empty: Empty, like: Layers) -> list[Layers]:
    """Return the arrays of one network, shaped like its layers: weights, mean and moments, each in one block."""
    sizes = [layer.numel() for layer in like]
    end = sum(sizes)
    kept = empty(KEPT, -(-end // LINE) * LINE)[:, :end]
    return [[part.view_as(layer) for part, layer in zip(own.split(sizes), like, strict=True)] for own in kept]


class _AdamW:
    """AdamW on the layers of one network, before its first step, with the arrays of its moments, which it clears.

    torch's own step. Its class `torch.optim.AdamW` imports the compiler of torch when the first is made, which takes
    2.3 s.
    """

    def __init__(self, recipe: Recipe, layers: Layers, first: Layers, second: Layers) -> None:
        self.recipe, self.layers = recipe, layers
        self.first, self.second = ([moment.zero_() for moment in each] for each in (first, second))
        self.steps = [torch.zeros((), dtype=torch.float32, device=layer.device) for layer in layers]

    def step(self) -> None:
        """Take a step along the gradients that the layers have now."""
        gradients = [layer.grad for layer in self.layers if layer.grad is not None]
        adamw(
            self.layers, gradients, self.first, self.second, [], self.steps, fused=True, amsgrad=False,
            lr=self.recipe.learning_rate, beta1=0.9, beta2=0.999, weight_decay=self.recipe.weight_decay, eps=1e-8,
            maximize=False,
        )  # fmt: skip


@contextmanager
def threads_for(n_products: int) -> Iterator[None]:
    """Let torch use one thread inside where a batch has few products, and restore the number of threads afterwards.

    A second thread gains nothing there, and on busy cores waiting for it at every product takes tenfold the time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if n_products < WORTH_THREADS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def mean_scores(rows: Tensor, layers: Layers) -> Tensor:
    """Return the scores (B, C) of rows (B, D) without dropout."""
    hidden = torch.addmm(layers[1], rows, layers[0].T).relu_()
    return torch.addmm(layers[3], hidden, layers[2].T)
