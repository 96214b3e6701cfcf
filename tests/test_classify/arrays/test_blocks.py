import numpy as np
import pytest
import torch

import featurecache.classify.arrays.blocks
from featurecache.classify.arrays.blocks import Rows, rows_within, scores_of, side_by_side, to_numpy
from featurecache.classify.arrays.scaling import Scaling


def data(n=50, feature_dim=4, offset=0.0):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, feature_dim)) * [1.0, 2.0, 0.1, 5.0] + offset
    weights = np.ones((2, n))
    weights[0, 40:] = 0.0
    weights[1, :10] = 0.0
    return X, weights


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(featurecache.classify.arrays.blocks, "BLOCK", 16)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_every_round_sees_its_own_rows_standardised(offset, kind):
    X, weights = data(offset=offset)
    rows = Rows(kind(X), weights)
    for number, trained in enumerate((slice(40), slice(10, 50))):
        own = X[trained]
        scaling = Scaling.of(own.mean(axis=0), own.std(axis=0))
        expected = (X - scaling.mean) / scaling.scale
        found = np.concatenate(
            [to_numpy((block - rows.shift[number]) / rows.stretch[number]) for _, block in rows.blocks(16)]
        )
        assert found == pytest.approx(expected, abs=1e-9)
        assert to_numpy(rows.standardised(np.array([3, 49]), number)) == pytest.approx(expected[[3, 49]], abs=1e-9)
        assert rows.scalings[number].mean == pytest.approx(scaling.mean)


def test_rows_far_from_zero_are_centred_before_float32_loses_them():
    X, weights = data(offset=1000.0)
    assert Rows(X, weights).centre == pytest.approx(X.mean(axis=0), abs=1.0)
    assert Rows(X - 1000.0, weights).centre is None


def test_blocks_leave_out_what_no_round_uses_at_either_end():
    X, _ = data()
    weights = np.zeros((1, 50))
    weights[0, 7:30] = 1.0
    assert [places for places, _ in Rows(X, weights).blocks(16)] == [slice(7, 23), slice(23, 30)]


def test_half_precision_is_worked_on_in_float32():
    X, weights = data()
    _, block = next(Rows(X.astype(np.float16), weights).blocks(16))
    assert block.dtype == np.float32


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("places", [slice(None), slice(3, 40), np.array([1, 5, 6, 49]), np.arange(4, 30)])
def test_scores_come_in_blocks_as_in_one_product(kind, places):
    X, _ = data()
    coef, intercept = np.random.default_rng(2).normal(size=(3, 4)), np.arange(3.0)
    assert scores_of(kind(X), places, coef, intercept) == pytest.approx(X[places] @ coef.T + intercept)


def test_a_block_fits_its_budget():
    assert rows_within(2**20, 256, 4) == 1024
    assert rows_within(2**20, 300, 4) == 512
    assert rows_within(1, 10**6, 4) == 64
    assert rows_within(2**40, 1, 4) == 4096


def test_rows_of_a_fold_are_brought_side_by_side_and_passed_over_only_by_those_that_train_on_them():
    X, _ = data()
    own = (np.arange(50) % 3 != np.arange(3)[:, None]).astype(float)
    order = side_by_side(X, own)
    assert sorted(order) == list(range(50))
    spans = Rows(X[order], own[:, order]).spans
    assert sum(span.stop - span.start for span, _ in spans) == 50
    assert [int(trained.sum()) for _, trained in spans] == [2, 2, 2]
    for span, trained in spans:
        assert (trained == own[:, order[span]].T).all()


def test_rows_stay_where_they_are_if_nothing_is_gained_or_a_copy_would_be_large(monkeypatch):
    X, weights = data()
    assert side_by_side(X, weights[:1]) is None
    assert side_by_side(X[np.lexsort(weights > 0)], weights[:, np.lexsort(weights > 0)]) is None
    assert side_by_side(torch.from_numpy(X), weights) is None
    monkeypatch.setattr(featurecache.classify.arrays.blocks, "COPIED_BYTES", 100)
    assert side_by_side(X, weights) is None


def test_many_spans_become_one_for_all_rounds():
    X, _ = data()
    own = (np.arange(50) % 2 != np.arange(2)[:, None]).astype(float)
    ((span, trained),) = Rows(X, own).spans
    assert (span, trained.all()) == (slice(0, 50), True)
