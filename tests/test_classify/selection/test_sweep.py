import numpy as np
import pytest

from featurecache.base.errors import BadLabels, BadSplit, UnknownHead
from featurecache.classify.evaluation.calibration import fit_tempering
from featurecache.classify.evaluation.metrics import score
from featurecache.classify.heads.table import HEADS, HeadInfo, build_head
from featurecache.classify.selection.holdouts import fold_rounds, val_round
from featurecache.classify.selection.splits import assign_folds
from featurecache.classify.selection.sweep import SweepStopped, edge_notes, sweep

OWN = list(HEADS)


def clouds(n, seed=0, n_classes=3, feature_dim=12, distance=1.5):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return (rng.normal(size=(n, feature_dim)) + distance * np.eye(feature_dim)[y]).astype(np.float32), y


@pytest.fixture(autouse=True)
def small_mlp(monkeypatch):
    """A layer of 16 and 4 quick epochs: the sweep is the same, only smaller."""
    grid = tuple({"hidden": 16, "epochs": 4, "learning_rate": rate} for rate in (0.01, 0.03))
    info = HEADS["mlp"]
    monkeypatch.setitem(HEADS, "mlp", HeadInfo(info.name, info.summary, info.location, grid))


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_sweep_chooses_refits_and_reports(name, n_classes):
    X, y = clouds(150, n_classes=n_classes)
    found = sweep(name, X, y, rounds=val_round(100, len(y)), seed=1)
    assert found.grid_size == len(HEADS[name].grid)
    assert (len(found.grid) < found.grid_size) == any("were not tried" in note for note in found.notes)
    assert max(row["val_accuracy"] for row in found.grid) == found.val["accuracy"] > 0.6
    assert found.params in [row["params"] for row in found.grid]
    assert set(found.grid[0]) == {"params", "val_accuracy", "val_log_loss", "converged", "seconds"}
    refitted = build_head(name, seed=1, **found.params).fit(X, y)
    assert (found.head.predict_proba(X) == refitted.predict_proba(X)).all()
    assert found.fit_seconds >= sum(row["seconds"] for row in found.grid)


@pytest.mark.parametrize("name", OWN)
def test_the_same_seed_gives_the_same_numbers(name):
    X, y = clouds(120, distance=1.0)
    first, second = (sweep(name, X, y, rounds=val_round(80, len(y)), seed=3) for _ in range(2))
    assert first.params == second.params
    assert first.val == second.val
    assert (first.head.predict_proba(X) == second.head.predict_proba(X)).all()


@pytest.mark.parametrize("name", OWN)
def test_a_shared_fit_is_the_fit_of_each_setting_alone(name):
    X, y = clouds(120, distance=1.0)
    found = sweep(name, X, y, rounds=val_round(80, len(y)), seed=2)
    for row in found.grid:
        alone = build_head(name, seed=2, **row["params"]).fit(X[:80], y[:80])
        metrics = score(y[80:], alone.predict_proba(X[80:]), alone.predict(X[80:]))
        # One row of the 40 may lie so near between two classes that the last digits of an optimum decide.
        assert row["val_accuracy"] == pytest.approx(metrics["accuracy"], abs=1.5 / 40)
        assert row["val_log_loss"] == pytest.approx(metrics["log_loss"], rel=1e-2)


def test_equal_settings_are_decided_for_the_simplest(monkeypatch):
    info = HEADS["knn"]
    monkeypatch.setitem(HEADS, "knn", HeadInfo(info.name, info.summary, info.location, ({"k": 500}, {"k": 400})))
    X, y = clouds(60)
    assert sweep("knn", X, y, rounds=val_round(40, len(y))).params["k"] == 500


def test_the_temperature_is_the_best_for_val():
    X, y = clouds(300, distance=1.0)
    found = sweep("ridge", X, y, rounds=val_round(200, len(y)))
    for factor in (0.8, 1.25):
        params = {**found.params, "temperature": found.params["temperature"] * factor}
        other = build_head("ridge", **params).fit(X[:200], y[:200])
        assert score(y[200:], other.predict_proba(X[200:]), other.predict(X[200:]))["log_loss"] > found.val["log_loss"]


@pytest.mark.parametrize("folds", [None, 3])
def test_tempering_is_fitted_on_what_the_chosen_setting_said_about_held_out_rows(folds):
    X, y = clouds(150, distance=0.7)
    rounds = val_round(100, len(y)) if folds is None else fold_rounds(np.arange(150) // 3 % folds)
    found = sweep("logistic", X, y, rounds=rounds, calibrate=True)
    proba = np.full((150, 3), np.nan)
    for held_out in rounds:
        alone = build_head("logistic", **found.params).fit(X[~held_out], y[~held_out])
        proba[held_out] = alone.predict_proba(X[held_out])
    seen = np.isfinite(proba[:, 0])
    # Folds of 50 rows each have their own, which are combined; the log loss differs by far less.
    near = 1e-2 if folds is None else 3e-2
    assert found.tempering == pytest.approx(fit_tempering(proba[seen], y[seen]), rel=near)
    assert sweep("logistic", X, y, rounds=rounds).tempering is None


def test_folds_hold_out_every_row_once():
    X, y = clouds(90)
    by_hand = np.arange(90) // 3 % 3
    given = sweep("centroid", X, y, rounds=fold_rounds(by_hand))
    held_out = np.empty(90, dtype=int)
    for fold in range(3):
        setting = {key: given.params[key] for key in ("metric", "shrink")}
        head = build_head("centroid", **setting).fit(X[by_hand != fold], y[by_hand != fold])
        held_out[by_hand == fold] = head.predict(X[by_hand == fold])
    assert given.val["accuracy"] == pytest.approx(np.mean(held_out == y))


def test_folds_agree_on_a_whole_number_of_epochs():
    X, y = clouds(90)
    folds = fold_rounds(assign_folds(np.arange(90), y, 3))
    assert type(sweep("mlp", X, y, rounds=folds).params["epochs"]) is int


def test_a_class_that_train_lacks_in_a_round_counts_as_an_error():
    X, y = clouds(60)
    y[-1] = 7
    found = sweep("ridge", X, y, rounds=val_round(50, len(y)))
    assert found.val["accuracy"] <= 0.9
    assert found.head.classes_.tolist() == [0, 1, 2, 7]


@pytest.mark.parametrize(
    "name", ["sklearn.svm.LinearSVC", "sklearn.ensemble.ExtraTreesClassifier", "sklearn.linear_model.Perceptron"]
)
def test_a_scikit_learn_classifier_is_swept_like_any_other(name):
    X, y = clouds(150)
    found = sweep(name, X, y, rounds=val_round(100, len(y)), seed=1)
    assert found.grid_size == 1
    assert found.head.predict_proba(X).shape == (150, 3)
    assert found.val["accuracy"] > 0.5


def test_what_did_not_converge_is_said_and_not_warned_about():
    X, y = clouds(150, distance=0.3)
    found = sweep("sklearn.neural_network.MLPClassifier", X, y, rounds=val_round(100, len(y)))
    assert found.grid[0]["converged"] is False
    assert "hasn't converged" in found.notes[0]
    assert found.notes[1].startswith("The refit did not converge: ")


def test_our_own_descent_says_when_it_was_cut_short(monkeypatch):
    info, short = HEADS["logistic"], ({"C": 1.0, "max_iter": 1},)
    monkeypatch.setitem(HEADS, "logistic", HeadInfo(info.name, info.summary, info.location, short))
    X, y = clouds(150)
    found = sweep("logistic", X, y, rounds=val_round(100, len(y)))
    assert found.grid[0]["converged"] is False
    assert found.notes[0].startswith("C=1: not converged after 1 passes")


def test_progress_counts_every_setting_and_the_refit_and_says_the_best_so_far():
    X, y = clouds(60)
    told = []
    found = sweep("centroid", X, y, rounds=val_round(40, len(y)), progress=lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(done, found.grid_size + 1) for done in range(1, found.grid_size + 2)]
    best = f"{found.val['accuracy']:.2%}"
    assert told[-2][2] == f"best so far {best}"
    assert told[-1][2] == f"{best}, refitted"


def test_the_best_at_the_edge_of_its_grid_is_said():
    grid = [{"C": C, "metric": "cosine"} for C in (0.1, 1.0, 10.0)]
    said = "The best C, 10, is the largest of its grid: a better one may lie beyond."
    assert edge_notes("logistic", {"C": 10.0, "metric": "cosine", "temperature": 2.0}, grid) == [said]
    assert edge_notes("logistic", {"C": 1.0, "metric": "cosine"}, grid) == []
    assert edge_notes("logistic", {"C": 0.1}, grid[:2]) == []


@pytest.mark.parametrize(
    ("name", "parameter", "values", "ends"),
    [
        ("knn", "k", (1, 2, 3), (False, True)),
        ("lda", "shrinkage", (0.0, 0.5, 1.0), (False, False)),
        ("lda", "shrinkage", (0.1, 0.5, 0.9), (True, True)),
        ("centroid", "shrink", (0.0, 1.0, 2.0), (False, True)),
        ("mlp", "dropout", (0.0, 0.25, 0.5), (False, True)),
        ("mlp", "hidden", (1, 64, 256), (False, True)),
        ("sklearn.ensemble.RandomForestClassifier", "max_features", (0.1, 0.5, 1.0), (True, False)),
        ("sklearn.ensemble.RandomForestClassifier", "n_estimators", (1, 10, 100), (False, True)),
        ("sklearn.svm.SVC", "C", (1, 10, 100), (True, True)),
    ],
)
def test_no_grid_is_too_short_that_ends_where_the_parameter_does(name, parameter, values, ends):
    grid = [{parameter: value} for value in values]
    found = [bool(edge_notes(name, {parameter: value}, grid)) for value in (values[0], values[-1])]
    assert tuple(found) == ends


def test_what_cannot_be_swept_is_refused():
    X, y = clouds(60)
    with pytest.raises(UnknownHead, match="There is no head 'tree'"):
        sweep("tree", X, y, rounds=val_round(40, 60))
    with pytest.raises(BadSplit, match="Val is empty"):
        val_round(60, 60)
    with pytest.raises(BadSplit, match="A round of 2 rows was given for 60 rows"):
        sweep("knn", X, y, rounds=[np.array([True, False])])
    with pytest.raises(BadSplit, match="holds out no row or all of them"):
        sweep("knn", X, y, rounds=[np.ones(60, dtype=bool)])
    with pytest.raises(BadSplit, match="No round was given"):
        sweep("knn", X, y, rounds=[])
    with pytest.raises(BadLabels, match="hold 1 class"):
        sweep("knn", X, y * 0, rounds=val_round(40, 60))


def interrupting(after, told=None):
    """A progress that is interrupted once, after so many steps, and notes them."""
    told = [] if told is None else told

    def progress(*step):
        told.append(step)
        if len(told) == after:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("name", OWN)
def test_ctrl_c_in_a_sweep_ends_it_with_the_best_of_the_settings_that_are_through(name):
    X, y = clouds(120, distance=1.0)
    rounds = val_round(80, len(y))
    with pytest.raises(SweepStopped) as stopped:
        sweep(name, X, y, rounds=rounds, seed=1, calibrate=True, progress=interrupting(1))
    found, whole = stopped.value.result, sweep(name, X, y, rounds=rounds, seed=1)
    (row,) = found.grid
    assert row["params"] == found.params
    assert found.grid_size == whole.grid_size
    assert found.notes[-1] == f"Stopped after 1 of {whole.grid_size} settings: the best of those is kept."
    refitted = build_head(name, seed=1, **found.params).fit(X, y)
    assert (found.head.predict_proba(X) == refitted.predict_proba(X)).all()
    assert found.tempering > 0


def test_a_setting_that_is_not_through_all_folds_cannot_be_the_best():
    X, y = clouds(90)
    rounds, told = fold_rounds(np.arange(90) // 3 % 3), []
    with pytest.raises(SweepStopped) as stopped:
        sweep("knn", X, y, rounds=rounds, progress=interrupting(2 * len(HEADS["knn"].grid) + 5, told))
    found = stopped.value.result
    assert len(found.grid) == 5
    assert found.val["accuracy"] == max(row["val_accuracy"] for row in found.grid)
    assert told[-2][2].endswith(", stopped to refit it")
    assert told[-1][0] == told[-1][1]


def test_ctrl_c_before_a_setting_is_through_all_folds_is_ctrl_c():
    X, y = clouds(90)
    with pytest.raises(KeyboardInterrupt) as stopped:
        sweep("knn", X, y, rounds=fold_rounds(np.arange(90) // 3 % 3), progress=interrupting(5))
    assert stopped.type is KeyboardInterrupt


def test_a_second_ctrl_c_ends_the_refit_at_once(monkeypatch):
    X, y = clouds(60)

    def fit(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(build_head("ridge")), "fit", fit)
    with pytest.raises(KeyboardInterrupt) as stopped:
        sweep("ridge", X, y, rounds=val_round(40, len(y)), progress=interrupting(3))
    assert stopped.type is KeyboardInterrupt
