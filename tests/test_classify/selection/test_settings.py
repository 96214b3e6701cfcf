"""Grids of settings with the values that a user gives."""

import pytest

from featurecache.base.errors import BadSetting, UnknownHead
from featurecache.classify.heads.table import head_grid, head_parameters
from featurecache.classify.selection.settings import (
    build_grid,
    build_grids,
    format_settings,
    listed_settings,
    parse_settings,
)

FOREST = "sklearn.ensemble.RandomForestClassifier"
NETWORK = "sklearn.neural_network.MLPClassifier"


def grid(*texts):
    """The grid of the one head that the texts are about."""
    ((head, given),) = parse_settings(texts).items()
    return build_grid(head, given)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-2.5", -2.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("none", None),
        ("null", None),
        ("None", None),
        ("sqrt", "sqrt"),
        ("l1/l2", "l1/l2"),
        ("512x256", (512, 256)),
        ("[512, 256]", (512, 256)),
        ("(7,)", (7,)),
        ("'a,b'", "a,b"),
        ('"1"', "1"),
    ],
)
def test_a_value_is_read_as_what_it_looks_like_and_written_so_that_it_is_read_again(text, value):
    given = parse_settings([f"ridge.alpha={text}"])
    assert given == {"ridge": {"alpha": [value]}}
    assert type(given["ridge"]["alpha"][0]) is type(value)
    assert parse_settings(format_settings(given)) == given


def test_the_last_dot_before_the_sign_divides_head_and_parameter():
    assert parse_settings([f"{FOREST}.n_estimators=100,300", "knn.sharpness=none,0.1"]) == {
        FOREST: {"n_estimators": [100, 300]},
        "knn": {"sharpness": [None, 0.1]},
    }


@pytest.mark.parametrize("text", ["C=1", "logistic.C", "logistic.=1", ".C=1", "=1", ""])
def test_a_text_of_another_form_is_refused(text):
    with pytest.raises(BadSetting, match=r"is not HEAD\.NAME=VALUE"):
        parse_settings([text])


@pytest.mark.parametrize("text", ["", "1,,2", "1,", "{1: 2}", "[1", "'a", "2j", "[[1]]", "((((" * 99])
def test_what_is_no_value_is_refused(text):
    with pytest.raises(BadSetting, match="is no value: give a number"):
        parse_settings([f"logistic.C={text}"])


def test_a_parameter_is_given_once_and_a_value_counts_once():
    with pytest.raises(BadSetting, match=r"logistic\.C is given twice: give all its values at once"):
        parse_settings(["logistic.C=1", "knn.k=3", "logistic.C=10"])
    assert grid("logistic.C=1,1.0,1e0") == [{"C": 1.0}]


def test_one_value_fixes_a_parameter_and_several_are_its_axis():
    assert grid("centroid.metric=cosine") == [each for each in head_grid("centroid") if each["metric"] == "cosine"]
    assert grid("rbf_svm.C=3,30", "rbf_svm.gamma=0.5") == [{"gamma": 0.5, "C": 3.0}, {"gamma": 0.5, "C": 30.0}]
    assert grid("mlp.hidden=64,128", "mlp.dropout=0", "mlp.learning_rate=1e-3") == [
        {"learning_rate": 1e-3, "dropout": 0.0, "hidden": hidden} for hidden in (64, 128)
    ]


def test_numbers_are_tried_in_the_order_of_the_table_the_simplest_first():
    assert [each["C"] for each in grid("logistic.C=10,0.1,1")] == [0.1, 1.0, 10.0]
    assert [each["alpha"] for each in grid("ridge.alpha=10,0.1,1")] == [10.0, 1.0, 0.1]
    assert [each["sharpness"] for each in grid("knn.sharpness=0.1,none", "knn.k=1", "knn.metric=cosine")] == [0.1, None]


def test_values_take_the_type_of_their_parameter():
    (setting,) = grid("knn.k=1e1", "knn.metric=cosine", "knn.sharpness=1")
    assert [(type(value), value) for value in setting.values()] == [(int, 10), (str, "cosine"), (float, 1.0)]
    assert grid(f"{NETWORK}.hidden_layer_sizes=64,64x32") == [
        {"hidden_layer_sizes": (64,)},
        {"hidden_layer_sizes": (64, 32)},
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("logistic.C=-1", r"logistic: C=-1.0 is not possible: use a number above 0\."),
        ("logistic.C=0.1,nan", r"logistic: C='nan' is not possible"),
        ("logistic.C=1e999", r"logistic: C=inf is not possible"),
        ("logistic.C=true", r"logistic: C=True is not possible"),
        ("knn.k=2.5", r"knn: k=2.5 is not possible: use 1 neighbour or more"),
        ("knn.metric=manhattan", r"knn: metric='manhattan' is unknown: use 'cosine' or 'euclidean'\."),
        ("mlp.dropout=1", r"mlp: dropout=1.0 is not possible: use a number from 0 to below 1\."),
        ("mlp.hidden=512x256", r"mlp: hidden=\(512, 256\) is not possible: use a whole number"),
        ("mlp.batch_size=64,128", r"mlp: All settings of a grid must have the same batch_size"),
        ("mlp.device=gpu", r"mlp: device='gpu' is unknown: use cpu, mps, cuda"),
        ("ridge.class_weight=even", r"ridge: class_weight='even' is unknown: use none or balanced\."),
        (
            f"{FOREST}.n_estimators=0",
            rf"{FOREST}: The 'n_estimators' parameter of RandomForestClassifier must be an int",
        ),
        (f"{FOREST}.criterion=ginni", "The 'criterion' parameter of RandomForestClassifier must be a str among"),
    ],
)
def test_a_value_that_is_not_possible_is_refused_before_any_training(text, said):
    with pytest.raises(BadSetting, match=said):
        grid(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("logistic.c=1", r"The head 'logistic' has no parameter 'c' to give: .*C, class_weight, tol, max_iter\."),
        ("mlp.learning_rat=1", "no parameter 'learning_rat' to give: did you mean learning_rate"),
        (f"{FOREST}.n_estimator=9", "no parameter 'n_estimator' to give: did you mean n_estimators"),
        ("mlp.random_state=1", "no parameter 'random_state' to give"),
        ("ridge.temperature=2", "no parameter 'temperature' to give"),
    ],
)
def test_a_parameter_that_a_head_does_not_have_is_refused_with_the_nearest(text, said):
    with pytest.raises(UnknownHead, match=said):
        grid(text)


def test_a_head_that_is_not_trained_is_refused_with_the_nearest():
    said = "for the head 'logistik', which is not among those to train: did you mean logistic"
    with pytest.raises(UnknownHead, match=said):
        build_grids(["logistic", "knn"], parse_settings(["logistik.C=1"]))
    with pytest.raises(UnknownHead, match="not among those to train: there are knn"):
        build_grids(["knn"], parse_settings(["ridge.alpha=1"]))


def test_heads_without_given_values_keep_the_grid_of_the_table():
    names = ["logistic", "knn", FOREST]
    assert build_grids(names, {}) == {name: head_grid(name) for name in names}


def test_from_python_a_list_is_several_values_and_anything_else_is_one():
    given = listed_settings({"logistic": {"C": [0.1, 1], "max_iter": 50}, NETWORK: {"hidden_layer_sizes": (8, 4)}})
    assert given == {"logistic": {"C": [0.1, 1], "max_iter": [50]}, NETWORK: {"hidden_layer_sizes": [(8, 4)]}}
    with pytest.raises(BadSetting, match=r"logistic\.C is given no value"):
        build_grid("logistic", {"C": []})


def test_parameters_that_can_be_given_are_those_of_the_constructor_without_seed_and_temperature():
    assert list(head_parameters("ridge")) == ["alpha", "class_weight"]
    assert not {"temperature", "random_state"} & set(head_parameters("mlp"))
