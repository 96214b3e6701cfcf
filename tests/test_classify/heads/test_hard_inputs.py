"""What every head makes of inputs that break heads: a right answer, or one clear sentence."""

import numpy as np
import pytest
import torch

from featurecache.base.errors import BadLabels
from featurecache.classify.heads.knn import KNNHead
from featurecache.classify.heads.saving.folder import load_head, save_head
from featurecache.classify.heads.table import build_head, list_heads
from featurecache.classify.selection.holdouts import fold_rounds, val_round
from featurecache.classify.selection.sweep import sweep

OWN = [info.name for info in list_heads()]
SMALL = {"mlp": {"hidden": 32, "epochs": 3, "learning_rate": 0.01}}
EVERY_HEAD = pytest.mark.parametrize("name", OWN)


def head(name, **params):
    return build_head(name, **{**SMALL.get(name, {}), **params})


def clouds(n=60, feature_dim=6, n_classes=3, seed=0, apart=4.0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    centres = apart * rng.normal(size=(n_classes, feature_dim)) / np.sqrt(2.0)
    return (rng.normal(size=(n, feature_dim)) + centres[y]).astype(dtype), y


def finite(proba, n_classes):
    return (
        bool(np.isfinite(proba).all())
        and np.allclose(proba.sum(axis=1), 1.0, atol=1e-4)
        and proba.shape[1] == n_classes
    )


@EVERY_HEAD
def test_one_class_is_refused_in_a_sentence(name):
    X, y = clouds()
    with pytest.raises(ValueError) as refused:
        head(name).fit(X, np.full(len(y), "cat"))
    assert str(refused.value) == "Found 1 class, 'cat', in 60 rows: a head needs at least two classes."


@EVERY_HEAD
def test_a_class_of_one_sample_is_learned_with_the_rest(name):
    X, y = clouds()
    X, y = np.vstack([X, X.mean(axis=0) + 30.0]).astype(np.float32), np.append(y, 7)
    fitted = head(name).fit(X, y)
    assert fitted.classes_.tolist() == [0, 1, 2, 7]
    assert finite(fitted.predict_proba(X), 4)
    assert np.mean(fitted.predict(X[:60]) == y[:60]) > 0.9


@EVERY_HEAD
def test_constant_and_duplicate_columns_change_nothing_but_rounding(name):
    X, y = clouds()
    wide = np.column_stack([X, X, np.full(len(X), 5.0), np.zeros(len(X))]).astype(np.float32)
    fitted = head(name).fit(wide, y)
    assert finite(fitted.predict_proba(wide), 3)
    assert fitted.score(wide, y) > 0.9


@EVERY_HEAD
def test_nothing_but_constant_columns_gives_finite_probabilities(name):
    fitted = head(name).fit(np.ones((20, 3), np.float32), np.arange(20) % 2)
    proba = fitted.predict_proba(np.ones((4, 3), np.float32))
    assert finite(proba, 2)
    assert np.allclose(proba, 0.5, atol=0.05)


@EVERY_HEAD
def test_fewer_rows_than_columns(name):
    X, y = clouds(n=24, feature_dim=200)
    fitted = head(name).fit(X, y)
    assert finite(fitted.predict_proba(X), 3)
    assert fitted.score(X, y) > 0.9


@EVERY_HEAD
def test_one_column(name):
    y = np.arange(40) % 2
    X = (np.where(y == 1, 3.0, -3.0) + np.random.default_rng(0).normal(size=40))[:, None].astype(np.float32)
    assert head(name).fit(X, y).score(X, y) > 0.95


@EVERY_HEAD
def test_perfectly_separable_classes_are_told_apart_with_finite_probabilities(name):
    X, y = clouds(apart=100.0)
    fitted = head(name).fit(X, y)
    assert fitted.score(X, y) == 1.0
    assert finite(fitted.predict_proba(1000.0 * X), 3)


@EVERY_HEAD
@pytest.mark.parametrize(("bad", "said"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_a_number_that_is_none_is_refused_at_fit_and_predict(name, bad, said):
    X, y = clouds()
    broken = X.copy()
    broken[17, 2] = bad
    with pytest.raises(ValueError, match=said):
        head(name).fit(broken, y)
    fitted = head(name).fit(X, y)
    with pytest.raises(ValueError, match=said):
        fitted.predict(broken)


# Two rows of a class in 12 columns, 1,000 classes well apart: what else than its defaults a head needs for them.
FOR_A_THOUSAND = {"logistic": {"C": 1.0}, "linear_svm": {"C": 1.0}, "knn": {"k": 1}, "mlp": {"epochs": 20}}


@EVERY_HEAD
def test_a_thousand_classes(name):
    X, y = clouds(n=4000, feature_dim=12, n_classes=1000, apart=8.0)
    fitted = head(name, **FOR_A_THOUSAND.get(name, {})).fit(X[:2000], y[:2000])
    proba, predicted = fitted.predict_proba(X[2000:]), fitted.predict(X[2000:])
    assert finite(proba, 1000)
    assert (predicted == proba.argmax(axis=1)).all()
    # Least squares of signs hide a class that lies between others (Hastie et al. 2009, section 4.2) in few columns.
    assert np.mean(predicted == y[2000:]) > (0.5 if name == "ridge" else 0.97)


@EVERY_HEAD
@pytest.mark.parametrize(
    "labels",
    [np.array(["eel", "cat", "dog"]), np.array([-5, 1000, 7]), np.array([0.0, 2.0, 5.0])],
    ids=["text", "gaps", "floats"],
)
def test_labels_of_any_kind_come_back_as_they_were_given(name, labels):
    X, y = clouds()
    fitted = head(name).fit(X, labels[y])
    assert fitted.predict(X).dtype == labels.dtype
    assert np.mean(fitted.predict(X) == labels[y]) > 0.9


@EVERY_HEAD
def test_bools_are_labels(name):
    X, y = clouds(n_classes=2)
    fitted = head(name).fit(X, y == 1)
    assert fitted.predict(X).dtype == bool
    assert fitted.score(X, y == 1) > 0.9


@EVERY_HEAD
def test_a_class_missing_from_what_a_round_trains_on_costs_only_its_own_rows(name):
    X, y = clouds(n=90)
    X, y = X[np.argsort(y, kind="stable")], np.sort(y)
    held_out = (np.arange(90) >= 58) | (np.arange(90) % 5 == 0)
    ((_, _, trial),) = type(head(name)).try_grid([head(name)], X, y, [held_out])
    assert np.isfinite([trial.sums.loss, trial.sums.squares]).all()
    assert trial.sums.right > 0.9 * np.isin(y[held_out], [0, 1]).sum()


@pytest.mark.parametrize("name", [*OWN, "sklearn.svm.LinearSVC"])
def test_a_round_that_holds_out_a_class_whole_says_nothing_about_the_temperature(name):
    X, y = clouds()
    for _, number, trial in type(head(name)).try_grid([head(name)], X, y, [y == 0, y == 1, y == 2]):
        assert np.isfinite([trial.sums.loss, trial.sums.squares]).all()
        assert number not in trial.classes[trial.sums.named > 0]
        assert trial.decided.get("temperature", 1.0) == 1.0


@pytest.mark.parametrize("name", [name for name in OWN if "temperature" in build_head(name).get_params()])
def test_rows_of_a_class_that_was_not_trained_have_no_say_in_the_temperature(name):
    X, y = clouds(n=90, apart=1.0)
    held_out = (np.arange(90) >= 45) | (y == 2)
    moved = np.where((y == 2)[:, None], 5.0 - 3.0 * X, X).astype(np.float32)
    one_epoch = {"epochs": 1} if name == "mlp" else {}
    found = [
        next(iter(type(head(name)).try_grid([head(name, **one_epoch)], rows, y, [held_out])))[2] for rows in (X, moved)
    ]
    assert found[0].sums.squares != pytest.approx(found[1].sums.squares, rel=1e-3)
    assert found[0].decided["temperature"] == pytest.approx(found[1].decided["temperature"], rel=1e-3)


# One row cannot move what is least squares, a vote of ten, or a batch now and then: they need its class weighed up.
OUTVOTED = {"ridge", "knn", "mlp"}


@EVERY_HEAD
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_one_in_ten_thousand_is_learned_without_losing_the_rest(name, class_weight):
    rng = np.random.default_rng(0)
    y = (np.arange(10_001) == 5_000).astype(int)
    X = (rng.normal(size=(10_001, 4)) + 20.0 * y[:, None]).astype(np.float32)
    few = {"n_landmarks": 100} if name == "rbf_svm" else {}
    fitted = head(name, class_weight=class_weight, **few).fit(X, y)
    predicted = fitted.predict(X)
    assert finite(fitted.predict_proba(X[4_990:5_010]), 2)
    # By cosine a few common rows have the rare one among their ten nearest.
    assert np.mean(predicted[y == 0] == 0) > (0.998 if (name, class_weight) == ("knn", "balanced") else 0.9999)
    if class_weight == "balanced" or name not in OUTVOTED:
        assert predicted[5_000] == 1


@EVERY_HEAD
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_half_and_double_precision_give_the_same_head(name, dtype):
    X, y = clouds(dtype=np.float64)
    X = X.astype(np.float16)
    wide, narrow = head(name).fit(X.astype(np.float64), y), head(name).fit(X.astype(dtype), y)
    learned = [value for value in vars(narrow).values() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    assert narrow.predict_proba(X.astype(np.float32)) == pytest.approx(
        wide.predict_proba(X.astype(np.float64)), abs=2e-3
    )
    if dtype == np.float32:
        assert any(value.dtype == np.float32 and value.size > 3 for value in learned) or name == "naive_bayes"


@EVERY_HEAD
def test_a_tensor_is_as_good_as_an_array(name):
    X, y = clouds()
    fitted, same = head(name).fit(X, y), head(name).fit(torch.from_numpy(X), y)
    assert same.predict_proba(torch.from_numpy(X)) == pytest.approx(fitted.predict_proba(X), abs=1e-4)


EVERY_DOOR = pytest.mark.parametrize("name", [*OWN, "sklearn.linear_model.LogisticRegression"])


@EVERY_DOOR
def test_labels_and_weights_may_be_tensors_wherever_they_lie(name):
    X, y = clouds(n_classes=2)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, size=60)
    # numpy takes no tensor with a history, as it takes none from a device.
    far = [torch.from_numpy(each.astype(np.float64)).requires_grad_() for each in (X, y, weights)]
    fitted, same = head(name).fit(X.astype(np.float64), y, weights), head(name).fit(*far)
    assert same.classes_.tolist() == [0.0, 1.0]
    assert same.predict_proba(far[0]) == pytest.approx(fitted.predict_proba(X.astype(np.float64)), abs=1e-4)
    ((_, _, trial),) = type(same).try_grid([head(name)], *far[:2], val_round(40, 60), far[2])
    assert trial.sums.n_rows == 20


def test_a_sweep_takes_labels_and_weights_as_tensors():
    X, y = clouds()
    far = torch.from_numpy(y.astype(np.float64)).requires_grad_()
    found = sweep("ridge", X, far, rounds=val_round(40, 60), sample_weight=torch.ones(60, requires_grad=True))
    assert found.params == sweep("ridge", X, y, rounds=val_round(40, 60)).params


@EVERY_DOOR
@pytest.mark.parametrize("kind", [torch.from_numpy, lambda X: X.astype(np.float16)], ids=["tensor", "half"])
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda X: X[:, :4], "X has 4 features, but .* is expecting 6 features as input"),
        (lambda X: X[0], r"X has shape \(6,\): give features \(N, D\)"),
        (lambda X: X[:0], r"X has shape \(0, 6\): give features \(N, D\)"),
        (lambda X: np.where(np.arange(60)[:, None] == 17, np.nan, X), "NaN or infinity, first in row 17"),
    ],
    ids=["narrow", "flat", "empty", "hole"],
)
def test_tensors_and_half_precision_are_checked_at_predict_as_at_fit(name, kind, broken, said):
    X, y = clouds()
    fitted = head(name).fit(X, y)
    for ask in (fitted.predict, fitted.predict_proba, fitted.predict_both):
        with pytest.raises(ValueError, match=said):
            ask(kind(broken(X)))
    if "features, but" not in said:
        with pytest.raises(ValueError, match=said):
            head(name).fit(kind(broken(X)), y)


@EVERY_HEAD
def test_a_memory_map_is_as_good_as_an_array(name, tmp_path):
    X, y = clouds()
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert (head(name).fit(mapped, y).predict_proba(X) == head(name).fit(X, y).predict_proba(X)).all()
    trials = type(head(name)).try_grid([head(name)], mapped, y, val_round(40, 60))
    assert len(list(trials)) == 1


@EVERY_HEAD
def test_the_same_seed_gives_the_same_head_and_folds_come_each_once(name):
    X, y = clouds()
    rounds = fold_rounds(np.arange(60) // 3 % 4)
    both = [
        sorted(((n, t.sums) for _, n, t in type(head(name)).try_grid([head(name)], X, y, rounds)), key=lambda x: x[0])
        for _ in range(2)
    ]
    assert [n for n, _ in both[0]] == [0, 1, 2, 3]
    for (_, first), (_, second) in zip(*both, strict=True):
        assert (first.loss, first.squares, first.right) == (second.loss, second.squares, second.right)


@EVERY_HEAD
@pytest.mark.parametrize("labels", [np.array(["eel", "cat", "dog"]), np.array([3, 1, 7])], ids=["text", "numbers"])
def test_a_saved_head_predicts_the_same_to_the_bit(name, labels, tmp_path):
    X, y = clouds()
    fitted = head(name).fit(100.0 * X + 7.0, labels[y])
    save_head(fitted, tmp_path / "head", meta={})
    loaded = load_head(tmp_path / "head").head
    assert (loaded.predict_proba(100.0 * X + 7.0) == fitted.predict_proba(100.0 * X + 7.0)).all()
    assert (loaded.predict(100.0 * X + 7.0) == fitted.predict(100.0 * X + 7.0)).all()
    assert loaded.classes_.tolist() == fitted.classes_.tolist()
    assert not list((tmp_path / "head").glob("*.pkl"))


def test_a_sweep_over_one_class_is_refused():
    X, _ = clouds()
    with pytest.raises(BadLabels, match="Train and val hold 1 class"):
        sweep("ridge", X, np.zeros(60), rounds=val_round(40, 60))


def test_rows_whose_sum_is_no_number_of_float32_are_taken():
    X = np.full((40, 6), 3e38, np.float32)
    X[::2] = -1e38
    assert KNNHead().fit(X, np.arange(40) % 2).n_features_in_ == 6
    X[7, 1], X[8, 1] = np.inf, -np.inf
    with pytest.raises(ValueError, match="NaN or infinity, first in row 7"):
        KNNHead().fit(X, np.arange(40) % 2)
