import numpy as np
import pytest
import torch

import featurecache.classify.arrays.memmap
import featurecache.classify.heads.mlp
from featurecache.classify.arrays.memmap import file_array, mapped
from featurecache.classify.heads.mlp import MLPHead, Training
from featurecache.classify.heads.table import head_grid
from featurecache.classify.selection.holdouts import fold_rounds, val_round


def clouds(n=120, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (rng.normal(size=(n, 6)) + 1.5 * np.eye(6)[y]).astype(dtype), y


def head(**params):
    return MLPHead(**{"hidden": 16, "epochs": 2, "random_state": 0, "dropout": 0.0, **params})


def test_a_ring_around_a_cloud_is_learned_which_no_linear_head_could():
    rng = np.random.default_rng(0)
    y, angle = np.arange(300) % 2, rng.uniform(0, 2 * np.pi, 300)
    X = rng.normal(size=(300, 2)) * 0.3 + 3.0 * y[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    assert head(epochs=5, learning_rate=1e-2).fit(X, y).score(X, y) > 0.97


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


def test_features_are_never_changed():
    X, y = clouds(dtype=np.float64)
    before = X.copy()
    list(MLPHead.try_grid([head()], X, y, val_round(90, 120)))
    head().fit(X, y)
    assert np.array_equal(X, before)


def test_what_a_sweep_decides_for_one_setting_is_what_a_fit_with_those_epochs_gives(agree):
    X, y = clouds()
    settings = [{"dropout": d, "learning_rate": rate} for d in (0.0, 0.3) for rate in (1e-3, 1e-2)]
    found = {s: t for s, _, t in MLPHead.try_grid([head(**one) for one in settings], X, y, val_round(90, 120))}
    for setting, trial in found.items():
        alone = head(**settings[setting], **trial.decided).fit(X[:90], y[:90])
        agree(trial, alone, X[90:], y[90:], near=1e-4)


def test_labels_that_are_held_out_have_no_say_in_the_weights_of_classes(agree):
    X, y = clouds()
    rare = np.where(
        np.arange(120) < 90, np.where(np.arange(120) % 4 > 0, 0, y), 2
    )  # rare in train, all there is in val
    weights = np.where(np.arange(120) % 7 == 0, 0.0, 1.0)
    tried = [head(class_weight="balanced")]
    ((_, _, trial),) = MLPHead.try_grid(tried, X, rare, val_round(90, 120), weights)
    alone = head(class_weight="balanced", **trial.decided).fit(X[:90], rare[:90], sample_weight=weights[:90])
    agree(trial, alone, X[90:], rare[90:], near=1e-4)


def test_folds_follow_the_first_one_and_every_pair_comes_once():
    X, y = clouds()
    heads = [head(learning_rate=rate, epochs=4) for rate in (1e-4, 1e-3, 1e-2)]
    found = [(s, n, t) for s, n, t in MLPHead.try_grid(heads, X, y, fold_rounds(np.arange(120) % 3))]
    assert sorted((s, n) for s, n, _ in found) == [(s, n) for s in range(3) for n in range(3)]
    first = {s: t.decided["epochs"] for s, n, t in found if n == 0}
    others = {s: {t.decided["epochs"] for again, n, t in found if again == s and n > 0} for s in first}
    best = max(first, key=lambda s: first[s])
    assert others[best] == {first[best]}
    assert all(epochs in ({1}, {first[s]}) for s, epochs in others.items())
    assert all(t.sums.n_rows == 40 for _, _, t in found)


@pytest.mark.parametrize("seed", range(3))
def test_five_folds_train_at_most_three_and_a_half_times_what_the_first_does_alone(seed, monkeypatch):
    """Counted are epochs, each once per network: those of the sweep, and those of the refit on all rows."""
    X, y = clouds(100, seed)
    trained = []
    monkeypatch.setattr(Training, "epoch", spied(Training.epoch, trained))
    settings = head_grid("mlp")
    work = {}
    for name, rounds in (("first", fold_rounds(np.arange(100) // 20)[:1]), ("all", fold_rounds(np.arange(100) // 20))):
        trained.clear()
        heads = [head(epochs=10, random_state=seed, **setting) for setting in settings]
        found = [(trial.decided["epochs"], number) for _, number, trial in MLPHead.try_grid(heads, X, y, rounds)]
        assert {number for _, number in found} == set(range(len(rounds)))
        work[name] = sum(trained)
        refit = max(epochs for epochs, number in found if number == 0)
    assert 1.0 < (work["all"] + 1.25 * refit) / (work["first"] + 1.25 * refit) <= 3.5


def spied(epoch, trained):
    def count(training):
        trained.append(len(training.networks.recipes))
        epoch(training)

    return count


def test_the_first_to_leave_are_told_once():
    X, y = clouds()
    heads = [head(learning_rate=rate, epochs=4, patience=4) for rate in np.geomspace(1e-5, 1e-2, 12)]
    notes = [t.note for _, _, t in MLPHead.try_grid(heads, X, y, val_round(90, 120)) if t.note]
    assert len(notes) == 1
    assert notes[0].startswith("Successive halving stopped 6 after epoch 1 and 3 after epoch 2")


def test_a_learning_rate_that_blows_up_is_told():
    X, y = clouds()
    with np.errstate(all="ignore"):
        blown = head(learning_rate=1e38).fit(X, y)
    assert not blown.converged_
    assert blown.note_ == "learning_rate=1e+38: training diverged."


def test_a_blown_up_setting_cannot_win_a_sweep():
    X, y = clouds()
    heads = [head(learning_rate=1e38), head(learning_rate=1e-2)]
    with np.errstate(all="ignore"):
        found = {s: t for s, _, t in MLPHead.try_grid(heads, X, y, val_round(90, 120))}
    assert not found[0].converged
    assert found[0].sums.loss == pytest.approx(30 * np.log(3))
    assert found[1].converged


def test_balanced_weights_find_the_rare_class():
    rng = np.random.default_rng(0)
    y = (np.arange(2000) % 50 == 0).astype(int)
    X = (rng.normal(size=(2000, 4)) + 1.5 * y[:, None]).astype(np.float32)
    plain = head(learning_rate=1e-2).fit(X, y)
    balanced = head(learning_rate=1e-2, class_weight="balanced").fit(X, y)
    assert plain.predict(X)[y == 1].mean() < 0.7 < 0.85 < balanced.predict(X)[y == 1].mean()


def test_rows_without_weight_are_not_seen():
    X, y = clouds()
    wrong = np.where(np.arange(120) < 30, (y + 1) % 3, y)
    weights = (np.arange(120) >= 30).astype(float)
    assert (head().fit(X, wrong, sample_weight=weights).coef_ == head().fit(X[30:], y[30:]).coef_).all()


def test_the_columns_own_units_are_kept_but_a_common_unit_changes_nothing():
    X, y = clouds(dtype=np.float64)
    assert head().fit(1000.0 * X + 5.0, y).predict_proba(1000.0 * X + 5.0) == pytest.approx(
        head().fit(X, y).predict_proba(X), abs=1e-6
    )


@pytest.fixture
def in_file(tmp_path):
    def put(X):
        found = file_array(tmp_path, X.shape, X.dtype)
        found[:] = X
        return found

    return put


def test_where_the_features_are_in_a_file_so_is_all_that_a_network_holds(in_file, monkeypatch):
    X, y = clouds()
    held = []

    def spy(beside, shape, dtype):
        held.append(array_stored_like(beside, shape, dtype))
        return held[-1]

    monkeypatch.setattr(featurecache.classify.arrays.memmap, "WORTH_A_FILE", 1)
    array_stored_like = featurecache.classify.heads.mlp.array_stored_like
    monkeypatch.setattr(featurecache.classify.heads.mlp, "array_stored_like", spy)
    one = head(dropout=0.5)
    one.classes_ = np.unique(y)
    training = Training([one], in_file(X), y, np.ones(len(y)), np.arange(120) >= 90)
    training.epoch()
    (kept,) = held
    assert mapped(kept) is not None
    weights, mean, first, second = kept[:, : 16 * 6]
    networks = training.networks
    assert (weights == networks.layers[0][0].numpy().ravel()).all()
    assert (mean == networks.learned(0)[0].ravel()).all()
    optimiser = networks.optimisers[0]
    assert (first == optimiser.first[0].numpy().ravel()).all()
    assert (second == optimiser.second[0].numpy().ravel()).all()
    assert np.ptp(first) > 0
    assert second.max() > 0
