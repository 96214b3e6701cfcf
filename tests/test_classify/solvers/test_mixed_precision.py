import numpy as np
import pytest
import torch

import featurecache.classify.solvers.mixed_precision
from featurecache.classify.solvers.mixed_precision import (
    WORTH_ROUNDING,
    exact_product,
    multiplies_bfloat16,
    product_for,
    rounded_product,
)


def factors(seed=0):
    rng = np.random.default_rng(seed)
    return (torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in ((50, 300), (300, 40)))


def told(monkeypatch, **capabilities):
    """Let torch tell these capabilities of the processor."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    multiplies_bfloat16.cache_clear()


@pytest.fixture(autouse=True)
def forget():
    yield
    multiplies_bfloat16.cache_clear()


def test_rounded_factors_leave_the_product_right_to_two_digits():
    left, right = factors()
    expected, out = left.double() @ right.double(), torch.empty(50, 40)
    assert rounded_product(left, right, out) is out
    off = float((out - expected).norm() / expected.norm())
    assert 1e-5 < off < 2.0**-7
    assert float((exact_product(left, right, out) - expected).norm() / expected.norm()) < 1e-6


def test_a_term_is_rounded_by_no_more_than_a_part_in_256():
    values = torch.from_numpy(np.random.default_rng(0).uniform(1, 2, 1000).astype(np.float32))
    rounded = rounded_product(values[:, None], torch.ones(1, 1), torch.empty(1000, 1))[:, 0]
    assert 0.001 < float(((rounded - values) / values).abs().max()) <= 2.0**-8


@pytest.mark.parametrize("name", featurecache.classify.solvers.mixed_precision.MADE_FOR)
def test_large_products_are_rounded_where_the_processor_is_made_for_it(monkeypatch, name):
    told(monkeypatch, **{name: True})
    assert product_for(WORTH_ROUNDING, torch.float32, "cpu") is rounded_product
    assert product_for(WORTH_ROUNDING - 1, torch.float32, "cpu") is exact_product
    assert product_for(WORTH_ROUNDING, torch.float64, "cpu") is exact_product
    assert product_for(WORTH_ROUNDING, torch.float32, "cuda") is exact_product


def test_elsewhere_nothing_is_rounded(monkeypatch):
    told(monkeypatch, avx2=True, avx512_bf16=False)
    assert product_for(WORTH_ROUNDING, torch.float32, "cpu") is exact_product
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    multiplies_bfloat16.cache_clear()
    assert product_for(WORTH_ROUNDING, torch.float32, "cpu") is exact_product
