"""Labels of a row do not depend on the rows that it is computed with, to the last bit."""

import numpy as np
import pytest

from featurecache.classify.heads.saving.folder import load_fitted, save_head
from featurecache.classify.heads.table import build_head
from featurecache.predictor.row_blocks import MOST_ROWS, ROWS, ROWS_OF_COMPARING, in_blocks, rows_of_a_block


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


@pytest.mark.parametrize("name", ["knn", "rbf_svm"])
def test_heads_that_compare_with_training_rows_get_sixteen_at_once_and_say_the_same_of_each(name, tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(150, 40)).astype(np.float32), np.arange(150) % 3
    X += 0.5 * y[:, None]
    save_head(build_head(name, seed=0).fit(X[:100], y[:100]), tmp_path / name, meta={})
    head = load_fitted(tmp_path / name).head
    assert rows_of_a_block(head, 1) == rows_of_a_block(head, 4000) == ROWS_OF_COMPARING
    _, proba = in_blocks(X[100:], head.predict_both, ROWS_OF_COMPARING)
    np.testing.assert_allclose(proba, head.predict_both(X[100:])[1], rtol=1e-5)
    for i in range(50):
        assert np.array_equal(in_blocks(X[100 + i : 101 + i], head.predict_both, ROWS_OF_COMPARING)[1][0], proba[i])


def test_a_head_of_scikit_learn_is_called_once_for_many_rows():
    sizes = []
    for n in (1, 64, 65, 1000):
        in_blocks(
            np.zeros((n, 2), np.float32),
            lambda X: (sizes.append(len(X)) or np.zeros(len(X), np.int64), np.zeros((len(X), 2))),
            rows_of_a_block(object(), n),
        )
    assert sizes == [ROWS] * 17 + [65, 1000]
