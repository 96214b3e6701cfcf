import numpy as np
import pytest
import torch

from classify.mlp import MLPHead


def clouds(n=120, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (rng.normal(size=(n, 6)) + 1.5 * np.eye(6)[y]).astype(dtype), y


def head(**params):
    return MLPHead(**{"hidden": 16, "epochs": 8, "random_state": 0, **params})


def test_a_ring_around_a_cloud_is_learned_which_no_linear_head_could():
    rng = np.random.default_rng(0)
    y, angle = np.arange(300) % 2, rng.uniform(0, 2 * np.pi, 300)
    X = rng.normal(size=(300, 2)) * 0.3 + 3.0 * y[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    assert head(epochs=30, learning_rate=1e-2).fit(X, y).score(X, y) > 0.97


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_seed_decides_everything_and_torch_keeps_its_own(dropout):
    X, y = clouds()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = head(dropout=dropout).fit(X, y)
    assert (torch.random.get_rng_state() == before).all()
    torch.manual_seed(6)
    second = head(dropout=dropout).fit(X, y)
    other = head(dropout=dropout, random_state=1).fit(X, y)
    assert (first.coef_ == second.coef_).all()
    assert (first.coef_ != other.coef_).any()


def test_the_number_of_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    head().fit(*clouds())
    assert torch.get_num_threads() == before


def test_the_epoch_best_on_val_is_kept():
    X, y = clouds()
    X_val, y_val = clouds(seed=1)
    chosen = head(epochs=20, patience=20).fit(X, y, X_val=X_val, y_val=y_val)
    by_epoch = [head(epochs=epochs).fit(X, y) for epochs in range(1, 21)]
    accuracy = [one.score(X_val, y_val) for one in by_epoch]
    assert chosen.score(X_val, y_val) == max(accuracy)
    assert (chosen.coef_ == by_epoch[chosen.best_epoch_ - 1].coef_).all()


def test_training_ends_when_patience_does():
    X, y = clouds()
    worse_and_worse = head(epochs=50, patience=1, learning_rate=0.1).fit(X, y, X_val=X[:30], y_val=(y[:30] + 1) % 3)
    assert worse_and_worse.best_epoch_ < 50


def test_without_val_every_epoch_is_run():
    assert head(epochs=5).fit(*clouds()).best_epoch_ == 5


def test_a_learning_rate_that_blows_up_is_told():
    X, y = clouds()
    with np.errstate(all="ignore"):
        blown = head(learning_rate=1e38).fit(X, y)
    assert not blown.converged_
    assert blown.note_ == "learning_rate=1e+38: training diverged."


def test_the_columns_own_units_are_kept_but_a_common_unit_changes_nothing():
    X, y = clouds(dtype=np.float64)
    assert head().fit(1000.0 * X + 5.0, y).predict_proba(1000.0 * X + 5.0) == pytest.approx(
        head().fit(X, y).predict_proba(X), abs=1e-6
    )
