"""The comparison of several runs as a type: what `compare_runs` returns and `featurecache compare --json` prints."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from featurecache.runs.documents import TestUnits


class EntryRow(TypedDict):
    """One head of one run as a row of the table: what it is, its metrics on test, its costs."""

    data_set: str
    run: str
    backbone: str
    features: str
    head: str
    params: dict[str, Any]
    accuracy: float
    accuracy_ci: list[float]
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    brier: float
    ci: dict[str, tuple[float, float] | None]
    extract_seconds: float
    fit_seconds: float
    predict_1000_seconds: float
    head_bytes: int
    features_bytes: int


class RunRow(TypedDict):
    """One run; test_key: the same for runs with the same test images and labels."""

    run: str
    data_set: str
    test_key: str


class TestSetRow(TestUnits):
    """One set of test images."""

    test_set: int


class RankedRow(EntryRow):
    """A head among all that were tested on the same images."""

    test_set: int
    rank: int
    p_vs_best: float
    tied_with_best: bool


class PairRow(TypedDict):
    """Two heads on one test set; p_holm: corrected for all pairs; better: which of them is, or None."""

    test_set: int
    a: str
    b: str
    p: float
    p_holm: float
    better: str | None


class SplitsRow(TypedDict):
    """A head over several splits of the same images: its mean, with the interval of the corrected t-test.

    mean, mean_ci: of the metric that the runs are compared by; accuracy, accuracy_ci: the same where that is it.
    """

    data_set: str
    features: str
    head: str
    n_splits: int
    mean: float
    mean_ci: list[float]
    accuracy: NotRequired[float]
    accuracy_ci: NotRequired[list[float]]
    p_vs_best: float
    tied_with_best: bool


class MeanRankRow(TypedDict):
    """A head over several data sets."""

    features: str
    head: str
    mean_rank: float
    n_data_sets: int


class Compared(TypedDict):
    """A comparison of runs by a metric.

    notes: sentences on what cannot be paired, and on doubts of the runs themselves.
    """

    metric: str
    runs: list[RunRow]
    test_sets: list[TestSetRow]
    heads: list[RankedRow]
    pairs: list[PairRow]
    over_splits: list[SplitsRow]
    mean_ranks: list[MeanRankRow]
    notes: list[str]
