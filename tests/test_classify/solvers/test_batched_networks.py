import numpy as np
import pytest
import torch
from torch.nn import functional

import featurecache.classify.solvers.batched_networks
from featurecache.classify.solvers.batched_networks import MEAN_EVERY, Networks, Recipe
from featurecache.classify.solvers.mixed_precision import exact_product, rounded_product

RECIPES = [Recipe(8, 1e-2, 0.0, 0.01), Recipe(5, 1e-3, 0.0, 0.0, 0.2), Recipe(8, 1e-2, 0.5, 0.01)]


def batches(n, size=10, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        rows = torch.from_numpy(rng.normal(size=(size, 6)))
        codes, weights = rng.integers(0, 3, size), rng.uniform(0.5, 1.5, size)
        yield rows, torch.from_numpy(codes), torch.from_numpy(weights)


def networks(recipes=RECIPES):
    return Networks(recipes, 6, 3, seed=0, dtype=torch.float64)


def test_the_gradient_is_that_of_autograd():
    ours = networks(RECIPES[:2])
    for batch in batches(1):
        ready = ours._gradients(batch[0], batch[1], batch[2] / len(batch[0]))
        for recipe, layers in zip(RECIPES, ready, strict=False):
            own = [layer.detach().clone().requires_grad_() for layer in layers]
            scores = functional.linear(functional.relu(functional.linear(batch[0], own[0], own[1])), own[2], own[3])
            smoothed = {"label_smoothing": recipe.label_smoothing, "reduction": "none"}
            loss = functional.cross_entropy(scores, batch[1], **smoothed) @ batch[2] / len(batch[0])
            for layer, expected in zip(layers, torch.autograd.grad(loss, own), strict=True):
                assert layer.grad.numpy() == pytest.approx(expected.numpy(), abs=1e-12)


def test_with_rounded_factors_the_gradient_keeps_its_direction(monkeypatch):
    rng = np.random.default_rng(0)
    rows, codes, weights = rng.normal(size=(64, 40)), rng.integers(0, 3, 64), np.full(64, 1 / 64)
    found = []
    for product in (exact_product, rounded_product):
        monkeypatch.setattr(
            featurecache.classify.solvers.batched_networks, "product_for", lambda *_, product=product: product
        )
        ours = Networks([Recipe(32, 1e-2, 0.0, 0.01)], 40, 3, seed=0)
        batch = [torch.from_numpy(each) for each in (rows.astype(np.float32), codes, weights.astype(np.float32))]
        found += [layer.grad.clone() for layers in ours._gradients(*batch) for layer in layers]
    for exact, rounded in zip(found[:4], found[4:], strict=True):
        # A unit that is at the edge of relu may fall on its other side.
        assert 1e-6 < float((rounded - exact).norm() / exact.norm()) < 0.1
        assert float((rounded * exact).sum() / rounded.norm() / exact.norm()) > 0.99


def test_a_network_is_the_same_whoever_is_trained_beside_it():
    together = networks()
    together.train(batches(20))
    for position, recipe in enumerate(RECIPES):
        alone = networks([recipe])
        alone.train(batches(20))
        for ours, theirs in zip(together.learned(position), alone.learned(0), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-10)


def test_those_that_stay_go_on_as_if_nobody_had_left():
    left, whole = networks(), networks()
    for each in (left, whole):
        each.train(batches(8))
    left.keep([0, 2])
    for each in (left, whole):
        each.train(batches(8, seed=1))
    for ours, theirs in zip(left.learned(1), whole.learned(2), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-10)


def test_dropout_leaves_the_expected_activity_as_it_is():
    dropping = Networks([Recipe(4000, 0.0, 0.5, 0.0)], 6, 3, seed=0, dtype=torch.float64)
    rows, codes, weights = next(batches(1))
    plain = torch.relu(rows @ dropping.layers[0][0].T).sum()
    list(dropping._gradients(rows, codes, weights))
    assert float(dropping.activity.sum() / plain) == pytest.approx(1.0, abs=0.05)
    assert float((dropping.activity == 0).double().mean()) == pytest.approx(0.75, abs=0.02)


def test_what_is_kept_is_the_mean_of_the_steps_not_the_last():
    trained = networks(RECIPES[:1])
    start = trained.learned(0)[0].copy()
    trained.train(batches(MEAN_EVERY))
    # The first mean is the first weights taken in.
    assert trained.learned(0)[0] == pytest.approx(trained.layers[0][0].numpy())
    trained.train(batches(MEAN_EVERY * 20, seed=2))
    assert np.abs(trained.learned(0)[0] - trained.layers[0][0].numpy()).max() > 1e-4
    assert np.abs(trained.learned(0)[0] - start).max() > 1e-2
