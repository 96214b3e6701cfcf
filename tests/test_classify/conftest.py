"""Shared by the tests of heads: saved ones as files, and a trial of a sweep next to the head that is fitted alone."""

import json
from hashlib import sha256

import numpy as np
import pytest

from featurecache.classify.evaluation.metric_sums import MetricSums


def write_skops_head(folder, blob, **changes):
    """A folder with this head.skops, as `save_head` would have written it."""
    folder.mkdir()
    (folder / "head.skops").write_bytes(blob)
    document = {
        "format": 2,
        "name": "foreign",
        "file": "head.skops",
        "params": {"temperature": 1.0},
        "meta": {},
        "learned": {"n_features_in_": 5, "converged_": True, "note_": ""},
    }
    document |= {"sha256": sha256(blob).hexdigest()} | changes
    (folder / "head.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(name="write_skops_head", scope="session")
def _write_skops_head():
    return write_skops_head


def sums_of(head, X, y):
    """The sums of a fitted head's predictions and probabilities of X, labels y."""
    codes = np.searchsorted(head.classes_, y).clip(max=len(head.classes_) - 1)
    truth = np.where(head.classes_[codes] == y, codes, -1)
    predicted = np.searchsorted(head.classes_, head.predict(X))
    parts = [(slice(None), np.asarray(head.predict_proba(X), dtype=np.float64))]
    return MetricSums.of(parts, truth, predicted, len(head.classes_))


@pytest.fixture
def agree():
    """Asserts that a trial says of X, y what a fitted head says: each prediction's class, and all probabilities."""

    def check(trial, head, X, y, *, near=1e-6):
        alone = sums_of(head, X, y)
        columns = np.searchsorted(trial.classes, head.classes_)
        assert (trial.classes[columns] == head.classes_).all()
        alone = alone.among(columns, len(trial.classes))
        assert (trial.sums.n_rows, trial.sums.right) == (alone.n_rows, alone.right)
        assert trial.sums.named.tolist() == alone.named.tolist()
        assert trial.sums.hits.tolist() == alone.hits.tolist()
        assert trial.sums.loss == pytest.approx(alone.loss, rel=near, abs=near)
        assert trial.sums.squares == pytest.approx(alone.squares, rel=near, abs=near)

    return check
