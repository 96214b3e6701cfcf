"""The table says in words whether a network beats the pixels, loses to them, or neither."""

import numpy as np

from featurecache.evaluate.transfer import Chosen, compare_with_pixels


def right(n: int, total: int = 100) -> np.ndarray:
    return np.arange(total) < n


def test_without_the_pixels_there_is_nothing_to_say():
    assert compare_with_pixels({"resnet18": Chosen("ridge", right(90))}) == []


def test_a_network_that_loses_to_the_pixels_hurts():
    (sentence,) = compare_with_pixels({"pixels": Chosen("knn", right(99)), "resnet18": Chosen("ridge", right(80))})
    assert sentence == (
        "Transfer hurts here: the pixels themselves (knn, 99.00 %) beat resnet18 (ridge, 80.00 %), p = 3.8e-06. "
        "Use the pixels, or another backbone."
    )


def test_a_network_that_beats_the_pixels_helps():
    (sentence,) = compare_with_pixels({"resnet18": Chosen("ridge", right(95)), "pixels": Chosen("knn", right(70))})
    assert sentence.startswith("Transfer helps here: resnet18 (ridge, 95.00 %) beats the pixels themselves")


def test_a_small_difference_is_a_tie():
    (sentence,) = compare_with_pixels({"resnet18": Chosen("ridge", right(95)), "pixels": Chosen("knn", right(93))})
    assert sentence.startswith("No significant difference between ") and sentence.endswith("p = 0.5.")


def test_several_networks_share_the_correction():
    """Six images that only the pixels get right are p = 0.031 alone, and 0.062 beside another network."""
    chosen = {"pixels": Chosen("knn", right(90)), "a": Chosen("ridge", right(84)), "b": Chosen("ridge", right(84))}
    assert all("p = 0.062" in sentence for sentence in compare_with_pixels(chosen))
