import inspect

import numpy as np
import pytest

from featurecache.classify.heads.table import HEADS, build_head
from featurecache.classify.selection.holdouts import val_round

REFUSED = [
    ("logistic", {"C": 0}, "C=0 is not possible: use a number above 0."),
    ("logistic", {"tol": -1e-3}, "tol=-0.001 is not possible: use a number above 0, or None."),
    ("logistic", {"max_iter": 0}, "max_iter=0 is not possible: use a whole number, 1 or more."),
    ("linear_svm", {"C": -1.0}, "C=-1.0 is not possible: use a number above 0."),
    ("linear_svm", {"C": np.nan}, "C=nan is not possible: use a number above 0."),
    ("ridge", {"alpha": -1.0}, "alpha=-1.0 is not possible: use 0 or more."),
    ("ridge", {"temperature": 0.0}, "temperature=0.0 is not possible: use a number above 0."),
    ("rbf_svm", {"gamma": 0.0}, "gamma=0.0 is not possible: use a number above 0."),
    ("rbf_svm", {"n_landmarks": 0.5}, "n_landmarks=0.5 is not possible: use a whole number, 1 or more."),
    ("rbf_svm", {"method": None}, "method=None is unknown: use 'auto', 'exact' or 'nystroem'."),
    ("lda", {"shrinkage": 1.5}, "shrinkage=1.5 is not possible: use a number from 0 to 1."),
    ("lda", {"shrinkage": "auto"}, "shrinkage='auto' is not possible: use a number from 0 to 1."),
    ("centroid", {"shrink": np.inf}, "shrink=inf is not possible: use 0, for none, or more."),
    ("naive_bayes", {"smoothing": 0.0}, "smoothing=0.0 is not possible: use more than 0, for instance 0.01."),
    ("knn", {"k": 2.5}, "k=2.5 is not possible: use 1 neighbour or more, a whole number."),
    ("knn", {"sharpness": 0.0}, "sharpness=0.0 is not possible: use a number above 0, or None."),
    ("mlp", {"dropout": 1.0}, "dropout=1.0 is not possible: use a number from 0 to below 1."),
    ("knn", {"k": True}, "k=True is not possible: use 1 neighbour or more, a whole number."),
    ("ridge", {"alpha": 10**400}, f"alpha={10**400} is not possible: use 0 or more."),
    ("mlp", {"epochs": 0}, "epochs=0 is not possible: use a whole number, 1 or more."),
    ("sklearn.svm.LinearSVC", {"temperature": -1.0}, "temperature=-1.0 is not possible: use a number above 0."),
]
# What they hold together decides for all heads of a grid; the linear heads take class weights one after the other.
COMMON = [
    ("mlp", "batch_size", 64, 256),
    ("mlp", "patience", 1, 2),
    ("mlp", "class_weight", None, "balanced"),
    ("mlp", "random_state", 0, 1),
    ("rbf_svm", "method", "exact", "nystroem"),
    ("rbf_svm", "n_landmarks", 10, 20),
    ("rbf_svm", "class_weight", None, {0: 2.0}),
    ("centroid", "class_weight", None, "balanced"),
    ("naive_bayes", "class_weight", "balanced", None),
]


def clouds(n=40):
    y = np.arange(n) % 2
    return np.random.default_rng(0).normal(size=(n, 4)) + y[:, None], y


def trials(heads, X, y):
    return list(type(heads[0]).try_grid(heads, X, y, val_round(30, len(y))))


@pytest.mark.parametrize(("name", "params", "said"), REFUSED)
def test_a_parameter_that_is_not_possible_is_refused_in_a_sentence(name, params, said):
    for begun in (
        lambda: build_head(name, **params).fit(*clouds()),
        lambda: trials([build_head(name), build_head(name, **params)], *clouds()),
    ):
        with pytest.raises(ValueError) as refused:
            begun()
        assert str(refused.value) == said


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_of_every_head_is_in_its_table(name):
    head = build_head(name)
    # Checked elsewhere: by `row_weights`, by numpy and by torch.
    others = {"class_weight", "random_state", "device"}
    assert set(inspect.signature(type(head)).parameters) - others == set(head.allowed)
    assert set(head.common) <= set(head.get_params())


@pytest.mark.parametrize("name", HEADS)
def test_numbers_of_numpy_and_the_ends_of_a_range_are_as_good_as_any(name):
    for setting in HEADS[name].grid:
        head = build_head(name, **setting)
        for key, value in setting.items():
            assert head.allowed[key].holds(np.asarray(value)[()] if isinstance(value, int | float) else value)


def test_a_strength_of_zero_beside_another_ends_in_a_sentence():
    heads = [build_head("logistic", C=C) for C in (0.0, 1.0)]
    with pytest.raises(ValueError, match=r"C=0\.0 is not possible"):
        trials(heads, *clouds())


@pytest.mark.parametrize("weight", [-1.0, np.nan, "heavy"])
@pytest.mark.parametrize("name", HEADS)
def test_the_weight_of_a_class_is_a_number_of_0_or_more(name, weight):
    with pytest.raises(ValueError, match=r"class_weight\[1\]=.* is not possible: use 0 or more\."):
        build_head(name, **({"epochs": 1} if name == "mlp" else {}), class_weight={1: weight}).fit(*clouds())


@pytest.mark.parametrize(("name", "parameter", "first", "other"), COMMON)
def test_settings_of_a_grid_that_do_not_agree_are_refused(name, parameter, first, other):
    heads = [build_head(name).set_params(**{parameter: value}) for value in (first, other)]
    with pytest.raises(ValueError) as refused:
        trials(heads, *clouds())
    assert str(refused.value) == (
        f"All settings of a grid must have the same {parameter}, but these have {first!r} and {other!r}: "
        f"fit one grid for each {parameter}."
    )
