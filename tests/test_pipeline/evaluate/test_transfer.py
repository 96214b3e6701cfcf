"""The table says in words whether a network beats the pixels, loses to them, or neither."""

import numpy as np
import pytest

from featurecache.classify.evaluation.permutation import Answers
from featurecache.evaluate.transfer import Chosen, compare_with_pixels

TRUTH = np.zeros(100, dtype=np.int64)


def chose(head: str, n_right: int, loss: float = 1.0) -> Chosen:
    return Chosen(head, Answers((np.arange(100) >= n_right).astype(np.int64), np.linspace(0.9, 1.1, 100) * loss))


def test_without_the_pixels_there_is_nothing_to_say():
    assert compare_with_pixels({"resnet18": chose("ridge", 90)}, TRUTH) == []


def test_a_network_that_loses_to_the_pixels_hurts():
    (sentence,) = compare_with_pixels({"pixels": chose("knn", 99), "resnet18": chose("ridge", 80)}, TRUTH)
    assert sentence == (
        "Transfer hurts here: the pixels themselves (knn, 99.00 %) beat resnet18 (ridge, 80.00 %), p = 3.8e-06. "
        "Use the pixels, or another backbone."
    )


def test_a_network_that_beats_the_pixels_helps():
    (sentence,) = compare_with_pixels({"resnet18": chose("ridge", 95), "pixels": chose("knn", 70)}, TRUTH)
    assert sentence.startswith("Transfer helps here: resnet18 (ridge, 95.00 %) beats the pixels themselves")


def test_a_small_difference_is_a_tie():
    (sentence,) = compare_with_pixels({"resnet18": chose("ridge", 95), "pixels": chose("knn", 93)}, TRUTH)
    assert sentence.startswith("No significant difference between ") and sentence.endswith("p = 0.5.")


def test_several_networks_share_the_correction():
    """Six images that only the pixels get right are p = 0.031 alone, and 0.062 beside another network."""
    chosen = {"pixels": chose("knn", 90), "a": chose("ridge", 84), "b": chose("ridge", 84)}
    assert all("p = 0.062" in sentence for sentence in compare_with_pixels(chosen, TRUTH))


@pytest.mark.parametrize(
    ("loss", "verb"), [(0.5, "helps here: resnet18 (ridge, log loss 0.500) beats"), (1.5, "hurts")]
)
def test_a_lower_log_loss_helps_however_many_answers_are_right(loss, verb):
    chosen = {"pixels": chose("knn", 90), "resnet18": chose("ridge", 90, loss)}
    (sentence,) = compare_with_pixels(chosen, TRUTH, metric="log_loss")
    assert sentence.startswith(f"Transfer {verb}")
    assert "the pixels themselves (knn, log loss 1.000)" in sentence
