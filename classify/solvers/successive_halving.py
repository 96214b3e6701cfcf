"""Successive halving with early stopping, for networks that are trained together.

All settings start; at each rung of `RUNGS` only a share goes on (Jamieson and Talwalkar 2016), and each of these stops
after `patience` epochs without improvement. Settings are compared by accuracy, then by log loss, or by another `Rank`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.softmax import log_softmax
from featurecache.classify.solvers.batched_networks import Networks

# After this many epochs this share of all settings goes on. Halving sooner would stop dropout, which learns more slowly
# at first.
RUNGS: Mapping[int, float] = {1: 1 / 2, 2: 1 / 4, 4: 1 / 6}
Look = Callable[[Sequence[int]], Iterable[FloatArray]]
Judge = Callable[[FloatArray], Any]
# Of scores (M, C) and class codes (M,): two numbers, larger is better.
Rank = Callable[[FloatArray, IntArray], tuple[float, float]]
# That of scores that are not finite.
WORST = (-np.inf, -np.inf)
# Rows whose log loss is taken at a time.
BLOCK = 4096


@dataclass(eq=False)
class Candidate:
    """One setting in training: its best epoch so far, and how good it was."""

    setting: int
    rank: tuple[float, float] = WORST
    """Accuracy and minus the log loss at the best epoch, or what else ranks: larger is better."""
    epoch: int = 0
    n_epochs: int = 0
    judged: Any = None
    """What `judge` returned for the scores (M, C) of the held-out rows at the best epoch; of zeros if it diverged."""
    stopped: int = 0
    """The rung, in epochs, at which halving stopped it, or 0."""

    def look(self, scores: FloatArray, codes: IntArray, judge: Judge, rank_of: Rank) -> None:
        """Record the scores (M, C) of one more epoch; codes (M,) are the classes of the held-out rows."""
        self.n_epochs += 1
        finite = bool(np.isfinite(scores).all())
        rank = rank_of(scores, codes) if finite else WORST
        if not self.epoch or rank > self.rank:
            self.rank, self.epoch = rank, self.n_epochs
            self.judged = judge(scores if finite else np.zeros_like(scores))


def by_accuracy(scores: FloatArray, codes: IntArray) -> tuple[float, float]:
    """Return accuracy and minus the log loss of scores (M, C) for codes (M,)."""
    return float(np.mean(scores.argmax(axis=1) == codes)), -log_loss(scores, codes)


def log_loss(scores: FloatArray, codes: IntArray) -> float:
    """Return -mean log softmax(scores)[codes] for scores (M, C) and codes (M,)."""
    total = 0.0
    for start in range(0, len(codes), BLOCK):
        own = codes[start : start + BLOCK]
        total -= float(log_softmax(scores[start : start + BLOCK])[np.arange(len(own)), own].sum(dtype=np.float64))
    return total / len(codes)


def halve(
    networks: Networks,
    train: Callable[[], None],
    look: Look,
    judge: Judge,
    codes: IntArray,
    *,
    epochs: Sequence[int],
    patience: int,
    rungs: Mapping[int, float] = RUNGS,
    rank: Rank = by_accuracy,
) -> Iterator[Candidate]:
    """Train the networks, each for at most its number of `epochs`, and yield the result of each as soon as it stops.

    train(): train all remaining networks for one epoch. look(places): yield the scores (M, C) of some of them on the
    held-out rows, whose class codes are (M,). judge(scores): return what is kept of the scores of a best epoch, so that
    those of all networks need not be.
    """
    running = [Candidate(setting) for setting in range(len(epochs))]
    while running:
        train()
        for candidate, scores in zip(running, look(range(len(running))), strict=True):
            candidate.look(scores, codes, judge, rank)
        going = [
            candidate
            for candidate in running
            if candidate.n_epochs < epochs[candidate.setting] and candidate.n_epochs - candidate.epoch < patience
        ]
        places = max(1, round(len(epochs) * rungs.get(running[0].n_epochs, 1.0)))
        for candidate in sorted(going, key=lambda candidate: candidate.rank, reverse=True)[places:]:
            candidate.stopped = candidate.n_epochs
            going.remove(candidate)
        if going and len(going) < len(running):
            networks.keep([position for position, candidate in enumerate(running) if candidate in going])
        yield from (candidate for candidate in running if candidate not in going)
        running = going


def train_for(
    networks: Networks,
    train: Callable[[], None],
    look: Look,
    judge: Judge,
    codes: IntArray,
    *,
    epochs: Sequence[int],
    rank: Rank = by_accuracy,
) -> Iterator[Candidate]:
    """Train each network for exactly its number of `epochs`, chosen in another round, and evaluate it at the end."""
    running, n_epochs = [Candidate(setting) for setting in range(len(epochs))], 0
    while running:
        train()
        n_epochs += 1
        ending = [place for place, candidate in enumerate(running) if epochs[candidate.setting] == n_epochs]
        staying = [place for place in range(len(running)) if place not in ending]
        for place, scores in zip(ending, look(ending), strict=True):
            running[place].n_epochs = n_epochs - 1
            running[place].look(scores, codes, judge, rank)
            yield running[place]
        if ending and staying:
            networks.keep(staying)
        running = [running[place] for place in staying]


def halving_note(candidates: Sequence[Candidate]) -> str:
    """Return a sentence on the settings that halving stopped, or an empty text."""
    stopped = Counter(candidate.stopped for candidate in candidates if candidate.stopped)
    counts = " and ".join(f"{number} after epoch {epoch}" for epoch, number in sorted(stopped.items()))
    return counts and (
        f"Successive halving stopped {counts} of the {len(candidates)} settings: they were behind on val."
    )
