import numpy as np
import pytest
from scipy.optimize import check_grad

from classify.descent import SoftmaxLoss, SquaredHingeLoss


@pytest.mark.parametrize("loss", [SoftmaxLoss(), SquaredHingeLoss()])
def test_the_gradient_is_that_of_the_loss(loss):
    rng = np.random.default_rng(0)
    codes, start = rng.integers(0, 3, 7), rng.normal(size=21)
    error = check_grad(
        lambda flat: loss(flat.reshape(7, 3), codes)[0], lambda flat: loss(flat.reshape(7, 3), codes)[1].ravel(), start
    )
    assert error < 1e-5


def test_the_losses_of_a_toy_worked_by_hand():
    scores = np.array([[0.0, 0.0], [2.0, -0.5]])
    assert SoftmaxLoss()(scores, np.array([0, 0]))[0] == pytest.approx(np.log(2) + np.log1p(np.exp(-2.5)))
    # Undecided: 1 + 1. Decided with the other class at -0.5: 0 + 0.25.
    assert SquaredHingeLoss()(scores, np.array([0, 0]))[0] == pytest.approx(2.25)
