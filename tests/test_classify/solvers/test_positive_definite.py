import numpy as np
import pytest

from featurecache.classify.solvers.positive_definite import BLOCK, solve_positive


@pytest.mark.parametrize("size", [1, BLOCK, 2 * BLOCK + 3])
def test_a_system_is_solved_by_blocks_as_it_is_as_a_whole(size):
    rng = np.random.default_rng(0)
    rows, right = rng.normal(size=(size + 5, size)), rng.normal(size=(size, 3))
    matrix = rows.T @ rows + np.eye(size)
    kept = matrix.copy(), right.copy()
    found = solve_positive(matrix, right)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-8, atol=1e-10)
    assert np.array_equal(matrix, kept[0])
    assert np.array_equal(right, kept[1])


def test_a_matrix_that_is_not_positive_definite_is_an_error():
    with pytest.raises(np.linalg.LinAlgError):
        solve_positive(np.diag([1.0, -1.0]), np.ones((2, 1)))
