from itertools import product
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar as referee
from statsmodels.stats.multitest import multipletests

from featurecache.classify.evaluation.significance import (
    best_of,
    compare_pairs,
    compare_with_best,
    holm,
    mean_difference,
    paired_test,
    ranks,
    sign_flip_p,
)


def answers(only_a, only_b, both=5):
    a = [True] * only_a + [False] * only_b + [True] * both
    b = [False] * only_a + [True] * only_b + [True] * both
    return np.array(a), np.array(b)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_exact_test_of_statsmodels_and_scipy(only_a, only_b):
    p = paired_test(*answers(only_a, only_b))
    assert p == pytest.approx(referee([[5, only_a], [only_b, 0]], exact=True).pvalue)
    if only_a + only_b:
        assert p == pytest.approx(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def test_a_toy_worked_by_hand():
    # Five images only the first gets right: 2 * (1/2)^5.
    assert paired_test(*answers(5, 0)) == pytest.approx(1 / 16)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_the_sign_flip_test_counts_all_assignments_of_signs(differences):
    d = np.array(differences, dtype=int)
    sums = [abs(np.dot(signs, d)) for signs in product((-1, 1), repeat=len(d))]
    assert sign_flip_p(d) == pytest.approx(np.mean(np.array(sums) >= abs(d.sum())), rel=1e-12)


def test_a_sign_flip_test_worked_by_hand():
    # 3 + 2 + 1 = 6 is reached by +++ and --- alone, of eight; 3 + 2 - 1 = 4 or more by those and by ++- and --+.
    assert sign_flip_p(np.array([3, 2, 1])) == pytest.approx(2 / 8)
    assert sign_flip_p(np.array([3, 2, -1])) == pytest.approx(4 / 8)
    assert sign_flip_p(np.array([0, 0])) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_where_every_image_is_a_unit_of_its_own_the_test_is_mcnemars_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    heads = {name: rng.uniform(size=80) < share for name, share in (("a", 0.8), ("b", 0.7), ("c", 0.75))}
    own = rng.permutation(80)
    assert compare_pairs(heads, own) == compare_pairs(heads)
    assert compare_with_best(heads, own) == compare_with_best(heads)
    # Two images of a unit, of which the heads agree on one, are as good as one.
    doubled = {name: np.concatenate([right, np.ones(80, dtype=bool)]) for name, right in heads.items()}
    pairs = zip(compare_pairs(doubled, np.tile(own, 2)), compare_pairs(heads), strict=True)
    assert all((one.p, one.only_a) == (other.p, other.only_a) for one, other in pairs)


def test_images_of_one_unit_are_one_piece_of_evidence():
    # a is right on three whole groups where b is not: as far from chance as three coins that fall alike, not 30.
    a, b, units = np.ones(60, dtype=bool), np.arange(60) >= 30, np.arange(60) // 10
    assert paired_test(a, b) < 1e-8
    assert paired_test(a, b, units) == pytest.approx(2 / 2**3)
    pair, *_ = compare_pairs({"a": a, "b": b}, units)
    assert (pair.only_a, pair.p, pair.different) == (30, pytest.approx(0.25), False)
    with pytest.raises(ValueError, match="the same images"):
        paired_test(a, b, units[:5])


def by_hand(flipped_wrong, n=200):
    """200 answers, all right but those numbered."""
    right = np.ones(n, dtype=bool)
    right[list(flipped_wrong)] = False
    return right


# Discordant pairs, counted by hand: first-second 14:4, first-third 10:10, first-fourth 25:5, ...
HEADS = {
    "first": by_hand(range(10)),
    "second": by_hand([*range(6), *range(50, 64)]),
    "third": by_hand(range(100, 110)),
    "fourth": by_hand([*range(5), *range(50, 75)]),
}


def test_on_200_images_every_p_value_is_that_of_scipy_and_statsmodels_to_1e_10():
    pairs = compare_pairs(HEADS)
    assert [(p.a, p.b, p.only_a, p.only_b) for p in pairs] == [
        ("first", "second", 14, 4), ("first", "third", 10, 10), ("first", "fourth", 25, 5),
        ("second", "third", 10, 20), ("second", "fourth", 11, 1), ("third", "fourth", 30, 10),
    ]  # fmt: skip
    for pair in pairs:
        table = [[200 - pair.only_a - pair.only_b, pair.only_a], [pair.only_b, 0]]
        assert pair.p == pytest.approx(referee(table, exact=True).pvalue, abs=1e-10)
        assert pair.p == pytest.approx(binomtest(pair.only_a, pair.only_a + pair.only_b).pvalue, abs=1e-10)
    adjusted = multipletests([pair.p for pair in pairs], method="holm")[1]
    assert [pair.p_holm for pair in pairs] == pytest.approx(adjusted, abs=1e-10)


def test_a_rank_counts_the_heads_that_are_better_beyond_chance():
    pairs = compare_pairs(HEADS)
    assert {(p.a, p.b): p.better for p in pairs if p.different} == {
        ("first", "fourth"): "first", ("second", "fourth"): "second", ("third", "fourth"): "third",
    }  # fmt: skip
    assert ranks(list(HEADS), pairs) == {"first": 1, "second": 1, "third": 1, "fourth": 4}
    assert best_of(HEADS) == "first"


def test_answers_to_other_images_are_refused():
    with pytest.raises(ValueError, match="the same images"):
        paired_test(np.array([True]), np.array([True, False]))
    with pytest.raises(ValueError, match="got answers of different number, a 1, b 2"):
        compare_pairs({"a": np.array([True]), "b": np.array([True, False])})


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values):
    with mock.patch("gc.collect"):  # multipletests collects each time, half a second in a process that has run much
        expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected)


def test_the_best_is_tied_with_itself_and_with_what_cannot_be_told_apart():
    best, close = answers(3, 2, both=100)
    far = best.copy()
    far[:3] = False
    far[5:60] = False
    found = compare_with_best({"far": far, "close": close, "best": best})
    assert found["best"] == (1.0, True)
    assert found["close"] == (1.0, True)
    assert found["far"][0] == pytest.approx(3 * paired_test(best, far))
    assert found["far"][1] is False


def test_of_equally_good_heads_the_first_named_is_best():
    a, b = answers(2, 2)
    assert compare_with_best({"a": a, "b": b}) == {"a": (1.0, True), "b": (1.0, True)}
    assert compare_with_best({"alone": a}) == {"alone": (1.0, True)}
    assert compare_with_best({}) == {}
    assert compare_pairs({}) == []


def test_of_500_comparisons_without_a_difference_at_most_6_percent_are_called_different():
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(500):
        hard = rng.uniform(size=400)  # both heads find the same images hard
        a, b = rng.uniform(size=(2, 400)) > 0.4 * hard
        called += compare_pairs({"a": a, "b": b})[0].different
    assert called <= 0.06 * 500


def test_among_eight_equal_heads_one_is_seldom_called_worse_than_the_best():
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(500):
        heads = {str(i): rng.uniform(size=1000) < 0.8 for i in range(8)}
        called += any(not tied for _, tied in compare_with_best(heads).values())
    assert called <= 0.06 * 500


def test_the_corrected_t_test_is_the_plain_one_with_a_wider_error():
    differences = np.array([0.012, 0.004, -0.003, 0.011, 0.009])
    mean, low, high, p = mean_difference(differences, n_train=800, n_test=200)
    # t shrinks by sqrt((1/J) / (1/J + n_test / n_train)) = sqrt(0.2 / 0.45).
    plain = ttest_1samp(differences, 0.0)
    t = plain.statistic * np.sqrt(0.2 / 0.45)
    assert p == pytest.approx(2 * student.sf(abs(t), df=4), rel=1e-12)
    width = np.diff(plain.confidence_interval(0.95))[0] * np.sqrt(0.45 / 0.2)
    assert (low, high) == pytest.approx((mean - width / 2, mean + width / 2), rel=1e-12)
    assert mean == pytest.approx(0.0066)


def test_without_test_images_that_return_as_training_images_the_t_test_is_the_plain_one():
    differences = np.array([0.1, 0.3, 0.2])
    assert mean_difference(differences, n_train=1e12, n_test=1)[3] == pytest.approx(ttest_1samp(differences, 0).pvalue)


def test_one_split_says_nothing_about_the_spread():
    assert mean_difference(np.array([0.1]), n_train=8, n_test=2) == (0.1, -np.inf, np.inf, 1.0)
    with pytest.raises(ValueError, match="0 splits"):
        mean_difference(np.array([]), n_train=8, n_test=2)
