import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import logsumexp, softmax

from featurecache.classify.solvers.linear.losses import SoftmaxLoss, SquaredHingeLoss

LOSSES = [(SoftmaxLoss(), 3), (SquaredHingeLoss(), 1)]


def scores_and_codes(width, n_members=2, n=7):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n_members, width, n)), rng.integers(0, 3, n)


@pytest.mark.parametrize(("loss", "width"), LOSSES)
def test_the_gradient_is_that_of_the_loss(loss, width):
    scores, codes = scores_and_codes(width)
    classes = np.array([0, 2])
    _, gradient = loss.evaluate(scores.copy(), codes, classes)
    by_steps = approx_fprime(scores.ravel(), lambda s: loss.evaluate(s.reshape(scores.shape), codes, classes)[0].sum())
    assert gradient.ravel() == pytest.approx(by_steps, abs=1e-6)


@pytest.mark.parametrize(("loss", "width"), LOSSES)
def test_the_second_derivative_is_that_of_the_gradient(loss, width):
    scores, codes = scores_and_codes(width)
    classes, step = np.array([0, 2]), 1e-6
    second = loss.second(scores.copy(), codes, classes)
    for place in np.ndindex(scores.shape):
        higher, lower = scores.copy(), scores.copy()
        higher[place] += step
        lower[place] -= step
        rise = loss.evaluate(higher, codes, classes)[1][place] - loss.evaluate(lower, codes, classes)[1][place]
        assert second[place] == pytest.approx(rise / (2 * step), abs=1e-4)


def test_the_losses_of_a_toy_worked_by_hand():
    scores = np.array([[[0.0, 2.0], [0.0, -0.5]]])
    softmax, _ = SoftmaxLoss().evaluate(scores.copy(), np.array([0, 0]), np.array([0]))
    assert softmax[0] == pytest.approx([np.log(2), np.log1p(np.exp(-2.5))])
    hinge, _ = SquaredHingeLoss().evaluate(scores[0, :, None].copy(), np.array([0, 0]), np.array([0, 1]))
    # Undecided: 1 and 1. Decided with the other class at -0.5: 0 and 0.25.
    assert hinge == pytest.approx(np.array([[1.0, 0.0], [1.0, 0.25]]))


def test_a_loss_that_is_nearly_gone_keeps_its_digits_in_float32():
    scores = np.array([[[30.0], [5.0], [4.0]]], dtype=np.float32)
    loss, gradient = SoftmaxLoss().evaluate(scores, np.array([0]), np.array([0]))
    left = np.exp(-25.0) + np.exp(-26.0)
    assert loss[0, 0] == pytest.approx(left, rel=1e-5)
    assert gradient[0, :, 0] == pytest.approx([-left, np.exp(-25.0), np.exp(-26.0)], rel=1e-5)


def test_a_loss_that_is_huge_does_not_overflow():
    scores = np.array([[[0.0], [500.0]]], dtype=np.float32)
    loss, gradient = SoftmaxLoss().evaluate(scores, np.array([0]), np.array([0]))
    assert loss[0, 0] == pytest.approx(500.0)
    assert gradient[0, :, 0] == pytest.approx([-1.0, 1.0])


def test_softmax_makes_no_numbers_too_small_to_be_multiplied_fast():
    scores = np.linspace(-200, 200, 9 * 1000, dtype=np.float32).reshape(-1, 9).T[None, ::-1].copy()
    scores[:, 0] = 0.0
    codes = np.zeros(scores.shape[2], int)
    loss, gradient = SoftmaxLoss().evaluate(scores.copy(), codes, np.array([0]))
    assert np.abs(gradient).min() > np.finfo(np.float32).tiny
    expected = np.log1p(np.exp(logsumexp(scores[0, 1:].astype(float), axis=0)))
    assert loss[0] == pytest.approx(expected, rel=1e-5, abs=1e-26)
    assert gradient[0, 1:] == pytest.approx(softmax(scores[0].astype(float), axis=0)[1:], rel=1e-5, abs=1e-26)
