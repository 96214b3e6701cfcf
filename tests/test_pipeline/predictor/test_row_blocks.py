"""Labels of a row do not depend on the rows that it is computed with, to the last bit."""

import numpy as np
import pytest

from featurecache.predictor.row_blocks import MOST_ROWS, ROWS, in_blocks


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_a_row_has_the_same_bits_alone_and_among_others(n_classes):
    rng = np.random.default_rng(0)
    X, W = (rng.normal(size=size).astype(np.float32) for size in ((101, 1280), (1280, n_classes)))

    def compute(rows):
        assert len(rows) == ROWS
        scores = rows @ W
        return scores.argmax(axis=1), scores

    codes, proba = in_blocks(X, compute)
    for i in range(len(X)):
        alone = in_blocks(X[i : i + 1], compute)
        assert np.array_equal(alone[1][0], proba[i])
        assert alone[0][0] == codes[i]
    later = in_blocks(X[2:], compute)
    assert np.array_equal(later[1], proba[2:])


def test_very_many_rows_are_one_block():
    sizes = []
    codes, _ = in_blocks(
        np.zeros((MOST_ROWS + 1, 2), np.float32),
        lambda X: (sizes.append(len(X)) or np.zeros(len(X), np.int64), np.zeros((len(X), 2))),
    )
    assert (sizes, len(codes)) == ([MOST_ROWS + 1], MOST_ROWS + 1)
