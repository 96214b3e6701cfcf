"""The ensemble: the mean probability of the heads that val does not tell apart from the best.

    val     each head once more, with its chosen setting, on the rows that are not held out; its probabilities of those
            held out. Members are the heads tied with the best there, by the paired test of the run
    test    p = the mean of the members' probabilities, each as it is in the table; the label is the greatest

Test is not looked at to choose the members. The ensemble is then a head like any other: its row, interval and tests.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.progress import Progress
from featurecache.classify.evaluation.criteria import preference
from featurecache.evaluate.classify_plan import Attempts, ClassifyPlan, Tried, rounds_of
from featurecache.evaluate.failures import why_failed
from featurecache.evaluate.join import Labelled
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.images.vectors.origin import NO_TRANSFORM
from featurecache.extract.job.request import FeatureRequest, Resolved
from featurecache.features.feature_set import Features
from featurecache.runs.head_choice import ENSEMBLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of so few rows, the paired test hardly tells a head that is right for 60 % from one that is right for all.
FEW_ROWS = 50
# What the features of an ensemble over several sets of features are called.
SEVERAL = "tied-heads"


@dataclass(frozen=True)
class HeldOut:
    """What a head says of the rows held out (n,) that settings are chosen on: proba (n, C), predicted (n,)."""

    tried: Tried
    proba: NDArray[np.floating[Any]]
    predicted: NDArray[np.int64]
    metrics: dict[str, float]


def add_ensemble(attempts: Attempts, labelled: Labelled, plan: ClassifyPlan, progress: Progress) -> None:
    """Add the ensemble to the heads that are tried; one that fails is left out, and so is one that the user stops."""
    try:
        found = try_ensemble(attempts.tried, labelled, plan, progress)
        attempts.tried += [] if found is None else [found]
    except KeyboardInterrupt:
        progress.say("Stopped: all heads are finished and kept, without the ensemble.")
        attempts.interrupted = True
    except Exception as error:  # noqa: BLE001  (heads of scikit-learn raise what they like)
        said = f"The ensemble is left out: {why_failed(error)}"
        attempts.failed.append({"features": attempts.tried[0].features.name, "head": ENSEMBLE, "said": said})
        progress.say(said)
        progress.lines.append(traceback.format_exc())  # for log.txt alone


def try_ensemble(tried: Sequence[Tried], labelled: Labelled, plan: ClassifyPlan, progress: Progress) -> Tried | None:
    """Return the ensemble of heads that are tried already; None, with a line, where fewer than two are tied on val."""
    from featurecache.classify.evaluation.metrics import score

    started, rounds = time.perf_counter(), rounds_of(labelled, plan)
    chosen_on = labelled.place("train", "val")
    used = np.any(rounds, axis=0)
    truth = labelled.y[chosen_on][used]
    found = []
    for done, each in enumerate(tried, start=1):
        found.append(hold_out(each, labelled, rounds, seed=plan.seed))
        progress.counting("ensemble", "heads", done, len(tried))
    found.sort(key=lambda each: preference(each.metrics, plan.metric))
    members = tied(found, truth, metric=plan.metric, units=labelled.units[chosen_on][used], seed=plan.seed)
    if len(members) < 2:
        progress.say(f"There is no ensemble: on val no other head is tied with {found[0].tried.title}.")
        return None
    on_val = np.mean([each.proba for each in members], axis=0)
    proba = np.mean([np.asarray(each.tried.proba, dtype=np.float64) for each in members], axis=0)
    heads = [each.tried for each in members]
    if (n := int(used.sum())) < FEW_ROWS and plan.folds is None:
        progress.say(
            f"Only {n} held-out samples say which heads are tied, so that clearly worse ones may be members of the "
            "ensemble: --folds 5 decides by all of train and val."
        )
    progress.say(f"The ensemble is the mean of {len(heads)} heads: {', '.join(each.title for each in heads)}.")
    result = _result(heads, score(truth, on_val, on_val.argmax(axis=1)), time.perf_counter() - started)
    seconds = round(sum(each.predict_seconds for each in heads), 4)
    predicted = proba.argmax(axis=1).astype(np.int64)
    names = tuple(each.title for each in heads)
    return Tried(_features(heads), ENSEMBLE, result, predicted, proba, None, seconds, members=names)


def hold_out(tried: Tried, labelled: Labelled, rounds: Sequence[NDArray[np.bool_]], *, seed: int) -> HeldOut:
    """Fit a head with its chosen setting on the rows that each round leaves, and ask it about those held out."""
    from featurecache.classify.evaluation.calibration import temper_head
    from featurecache.classify.evaluation.metrics import score
    from featurecache.classify.heads.table import build_head

    chosen_on = labelled.place("train", "val")
    X, y = tried.features.X[chosen_on], labelled.y[chosen_on]
    proba, predicted = np.zeros((len(y), len(labelled.classes))), np.zeros(len(y), np.int64)
    for held in rounds:
        rows = rows_of(X, held)
        head = build_head(tried.name, seed=seed, **tried.result.params).fit(rows_of(X, ~held), y[~held])
        codes, own = head.predict_both(rows)
        if tried.result.tempering is not None:
            own = temper_head(head, rows, own, tried.result.tempering)
        proba[np.ix_(held, head.classes_)] = own
        predicted[held] = codes
    used = np.any(rounds, axis=0)
    metrics = score(y[used], proba[used], predicted[used])
    return HeldOut(tried, proba[used], predicted[used], metrics)


def rows_of(X: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return rows of X (N, D): a view, which may be larger than memory, where they follow one another."""
    places = np.flatnonzero(mask)
    follow = len(places) == places[-1] - places[0] + 1
    return X[places[0] : places[-1] + 1] if follow else X[mask]


def tied(
    found: Sequence[HeldOut], truth: NDArray[np.int64], *, metric: str, units: NDArray[np.integer[Any]], seed: int
) -> list[HeldOut]:
    """Return the heads that are not significantly worse than the best, the best first; truth (n,), units (n,)."""
    from featurecache.classify.evaluation.metrics import log_losses
    from featurecache.classify.evaluation.permutation import Answers
    from featurecache.classify.evaluation.ranking import rank_heads

    own = np.unique(units, return_inverse=True)[1]
    answers = {each.tried.title: Answers(each.predicted, log_losses(truth, each.proba)) for each in found}
    ranking = rank_heads(truth, answers, metric=metric, units=own, seed=seed)
    return [each for each in found if ranking.against_best[each.tried.title][1]]


def _result(heads: Sequence[Tried], val: dict[str, float], seconds: float) -> Any:
    from featurecache.classify.selection.sweep import SweepResult

    whole = seconds + sum(each.result.fit_seconds for each in heads)
    several = len({each.features.name for each in heads}) > 1
    names = [each.title if several else each.name for each in heads]
    return SweepResult(None, {"mean_of": ", ".join(names)}, [], val, whole, 0)


def _cost(sets: Sequence[Features]) -> tuple[float, float]:
    """The seconds that several sets of features took, and samples a second; a backbone in several sets counts once."""
    alone = {each.resolved.spec.key: each for each in sets if not each.parts}
    seen, costs = set[str](), list[tuple[Features, list[Features]]]()
    for each in sorted(sets, key=lambda features: len(features.parts)):
        keys = {spec.key for spec in each.specs}
        if not keys <= seen:
            costs.append((each, [alone[key] for key in keys & alone.keys()] if each.parts else []))
        seen |= keys
    seconds = sum(each.extract_seconds - sum(part.extract_seconds for part in known) for each, known in costs)
    if not all(each.images_per_second for each in sets):
        return round(seconds, 3), 0.0
    each_takes = [1 / each.images_per_second - sum(1 / one.images_per_second for one in known) for each, known in costs]
    return round(seconds, 3), round(1 / sum(each_takes), 2)


def _features(heads: Sequence[Tried]) -> Features:
    """The features of the members: their own, or a row for those of several sets together."""
    sets = list({each.features.name: each.features for each in heads}.values())
    if len(sets) == 1:
        return sets[0]
    keys = " ".join(each.resolved.spec.key for each in sets)
    digest = hashlib.sha256(keys.encode()).hexdigest()
    dim = sum({spec.key: spec.feature_dim for each in sets for spec in each.specs}.values())
    spec = FeatureSpec(SEVERAL, "ensemble", digest, "", "", NO_TRANSFORM, dim, decode_version=1)
    weights = ", ".join(each.name for each in sets)
    seconds, rate = _cost(sets)
    return Features(SEVERAL, FeatureRequest(SEVERAL), Resolved(spec, weights), sets[0].X, seconds, rate)
