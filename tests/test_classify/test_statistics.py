import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as referee
from statsmodels.stats.multitest import multipletests

from classify.statistics import compare_with_best, holm, mcnemar


def answers(only_a, only_b, both=5):
    a = [True] * only_a + [False] * only_b + [True] * both
    b = [False] * only_a + [True] * only_b + [True] * both
    return np.array(a), np.array(b)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_exact_test_of_statsmodels_and_scipy(only_a, only_b):
    p = mcnemar(*answers(only_a, only_b))
    assert p == pytest.approx(referee([[5, only_a], [only_b, 0]], exact=True).pvalue)
    if only_a + only_b:
        assert p == pytest.approx(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def test_a_toy_worked_by_hand():
    # Five images only the first gets right: 2 * (1/2)^5.
    assert mcnemar(*answers(5, 0)) == pytest.approx(1 / 16)


def test_answers_to_other_images_are_refused():
    with pytest.raises(ValueError, match="the same images"):
        mcnemar(np.array([True]), np.array([True, False]))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_the_best_is_tied_with_itself_and_with_what_cannot_be_told_apart():
    best, close = answers(3, 2, both=100)
    far = best.copy()
    far[:3] = False
    far[5:60] = False
    found = compare_with_best({"far": far, "close": close, "best": best})
    assert found["best"] == (1.0, True)
    assert found["close"] == (1.0, True)
    assert found["far"][0] == pytest.approx(2 * mcnemar(best, far))
    assert found["far"][1] is False


def test_of_equally_good_heads_the_first_named_is_best():
    a, b = answers(2, 2)
    assert compare_with_best({"a": a, "b": b}) == {"a": (1.0, True), "b": (1.0, True)}
    assert compare_with_best({"alone": a}) == {"alone": (1.0, True)}
    assert compare_with_best({}) == {}
