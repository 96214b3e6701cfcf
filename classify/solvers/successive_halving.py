"""Successive halving: of networks trained side by side the worse half stops, and each stops when it gets no better.

Successive halving (Jamieson and Talwalkar 2016): all settings start, at each rung of `RUNGS` only a share goes on. What
stays ends by itself after `patience` epochs without a better one. Compared are the accuracy, then the log loss.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.softmax import log_softmax
from featurecache.classify.solvers.batched_networks import Networks

# After this many epochs this share of all settings goes on. To halve sooner would send away dropout, which learns more
# slowly at first.
RUNGS: Mapping[int, float] = {1: 1 / 2, 2: 1 / 4, 4: 1 / 6}
Look = Callable[[Sequence[int]], Iterable[FloatArray]]
Judge = Callable[[FloatArray], Any]
# Rows whose log loss is taken at a time.
BLOCK = 4096


@dataclass(eq=False)
class Runner:
    """One setting: how it is doing, and at which epoch it did best."""

    setting: int
    rank: tuple[float, float] = (-1.0, -np.inf)
    """Accuracy and minus the log loss at the best epoch: larger is better."""
    epoch: int = 0
    n_epochs: int = 0
    judged: Any = None
    """What `judge` said about the scores (M, C) of the held-out rows at the best epoch; zeros if training diverged."""
    left: int = 0
    """The epoch of the rung after which it did not go on, or 0."""

    def look(self, scores: FloatArray, codes: IntArray, judge: Judge) -> None:
        """Take in the scores (M, C) after one more epoch; codes (M,) are the classes of the held-out rows."""
        self.n_epochs += 1
        finite = bool(np.isfinite(scores).all())
        rank = (float(np.mean(scores.argmax(axis=1) == codes)), -log_loss(scores, codes)) if finite else (-1.0, -np.inf)
        if not self.epoch or rank > self.rank:
            self.rank, self.epoch = rank, self.n_epochs
            self.judged = judge(scores if finite else np.zeros_like(scores))


def log_loss(scores: FloatArray, codes: IntArray) -> float:
    """Return -mean log softmax(scores)[codes] for scores (M, C) and codes (M,)."""
    total = 0.0
    for start in range(0, len(codes), BLOCK):
        own = codes[start : start + BLOCK]
        total -= float(log_softmax(scores[start : start + BLOCK])[np.arange(len(own)), own].sum(dtype=np.float64))
    return total / len(codes)


def race(
    networks: Networks,
    train: Callable[[], None],
    look: Look,
    judge: Judge,
    codes: IntArray,
    *,
    epochs: Sequence[int],
    patience: int,
    rungs: Mapping[int, float] = RUNGS,
) -> Iterator[Runner]:
    """Train the networks, each for at most its number of `epochs`, and yield what became of each as soon as it ends.

    train(): one epoch of all networks that are left. look(places): the scores (M, C) of some of them on the held-out
    rows, whose class codes are (M,), one after the other. judge(scores): what is kept of the scores of a best epoch, so
    that those of all networks need not be.
    """
    running = [Runner(setting) for setting in range(len(epochs))]
    while running:
        train()
        for runner, scores in zip(running, look(range(len(running))), strict=True):
            runner.look(scores, codes, judge)
        going = [
            runner
            for runner in running
            if runner.n_epochs < epochs[runner.setting] and runner.n_epochs - runner.epoch < patience
        ]
        places = max(1, round(len(epochs) * rungs.get(running[0].n_epochs, 1.0)))
        for runner in sorted(going, key=lambda runner: runner.rank, reverse=True)[places:]:
            runner.left = runner.n_epochs
            going.remove(runner)
        if going and len(going) < len(running):
            networks.keep([position for position, runner in enumerate(running) if runner in going])
        yield from (runner for runner in running if runner not in going)
        running = going


def follow(
    networks: Networks, train: Callable[[], None], look: Look, judge: Judge, codes: IntArray, *, epochs: Sequence[int]
) -> Iterator[Runner]:
    """Train each network for just its number of `epochs`, which another round decided on, and look at it once, then."""
    running, n_epochs = [Runner(setting) for setting in range(len(epochs))], 0
    while running:
        train()
        n_epochs += 1
        ending = [place for place, runner in enumerate(running) if epochs[runner.setting] == n_epochs]
        staying = [place for place in range(len(running)) if place not in ending]
        for place, scores in zip(ending, look(ending), strict=True):
            running[place].n_epochs = n_epochs - 1
            running[place].look(scores, codes, judge)
            yield running[place]
        if ending and staying:
            networks.keep(staying)
        running = [running[place] for place in staying]


def say_who_left(runners: Sequence[Runner]) -> str:
    """Return a sentence about the settings that halving sent away, or nothing."""
    left = Counter(runner.left for runner in runners if runner.left)
    told = " and ".join(f"{number} after epoch {epoch}" for epoch, number in sorted(left.items()))
    return told and f"Of {len(runners)} settings those behind on val left: {told} (successive halving)."
