import array_api_compat.numpy
import numpy as np
import pytest
import torch

from featurecache.classify.arrays import namespaces
from featurecache.classify.arrays.namespaces import namespace_of
from featurecache.classify.arrays.scaling import column_moments


def test_numpy_is_the_namespace_of_its_arrays_unless_it_is_older_than_the_array_api(monkeypatch):
    assert namespace_of(np.ones(2)) is np
    assert namespace_of(torch.ones(2)).__name__.endswith("torch")
    monkeypatch.setattr(namespaces, "NUMPY_CONFORMS", False)
    assert namespace_of(np.ones(2)) is array_api_compat.numpy


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_are_the_same_to_the_bit_by_either_namespace(monkeypatch, dtype):
    rng = np.random.default_rng(0)
    X, weights = rng.normal(3, 2, (50, 7)).astype(dtype), rng.integers(0, 2, (2, 50)).astype(np.float64)
    by_numpy = column_moments(X, weights)
    monkeypatch.setattr(namespaces, "NUMPY_CONFORMS", False)
    for one, other in zip(by_numpy, column_moments(X, weights), strict=True):
        assert np.array_equal(one, other)
