import subprocess
import sys

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurecache.base.errors import UnknownHead
from featurecache.classify.heads.sklearn_head import ForeignHead
from featurecache.classify.heads.table import HEADS, build_head, head_grid, list_heads, parse_heads

OWN = ["logistic", "ridge", "linear_svm", "rbf_svm", "lda", "centroid", "naive_bayes", "knn", "mlp"]
# The checks fit some fifty times: a small layer says as much about the contract.
SMALL = {"mlp": {"hidden": 16, "epochs": 2, "learning_rate": 0.03}}
# Those that learn from weights of classes.
WEIGHTED = [name for name in OWN if "class_weight" in build_head(name).get_params()]
# A row of weight 2 is two rows to all heads but these, as to scikit-learn's own.
NOT_TO_THE_DIGIT = {"MLPHead": "batches are drawn at random", "RBFSVMHead": "libsvm stops at 1e-3"}


def expected_failed_checks(head):
    reason = NOT_TO_THE_DIGIT.get(type(head).__name__)
    return {"check_sample_weight_equivalence_on_dense_data": reason} if reason else {}


@parametrize_with_checks(
    [build_head(name, **SMALL.get(name, {})) for name in OWN]
    + [build_head(name, class_weight="balanced", **SMALL.get(name, {})) for name in WEIGHTED]
    + [ForeignHead(GaussianNB())],
    expected_failed_checks=expected_failed_checks,
)
def test_every_head_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", [*OWN, "sklearn.naive_bayes.GaussianNB"])
def test_predictions_and_probabilities_together_are_those_apart(name, n_classes):
    rng = np.random.default_rng(0)
    y = np.arange(90) % n_classes
    X = rng.normal(size=(90, 5)) + np.eye(n_classes, 5)[y]
    head = build_head(name, **SMALL.get(name, {})).fit(X, y)
    predicted, proba = head.predict_both(X)
    assert (predicted == head.predict(X)).all()
    assert (proba == head.predict_proba(X)).all()


def test_the_table_is_listed_without_scikit_learn_torch_or_numpy():
    code = (
        "import sys, featurecache.classify.heads.table as h; h.list_heads(); h.parse_heads('all'); "
        "print([m for m in ('numpy', 'scipy', 'sklearn', 'torch') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_table_names_all_heads_with_a_summary():
    assert {info.name for info in list_heads()} == set(OWN)
    assert all(info.summary for info in list_heads())


@pytest.mark.parametrize("name", OWN)
def test_every_setting_of_a_grid_can_be_built_and_all_differ(name):
    grid = head_grid(name)
    assert len({tuple(setting.items()) for setting in grid}) == len(grid) > 1
    for setting in grid:
        assert setting.items() <= build_head(name, **setting).get_params().items()


def test_a_grid_is_a_copy_that_cannot_hurt_the_table():
    head_grid("knn")[0]["k"] = -1
    assert all(setting["k"] > 0 for setting in HEADS["knn"].grid)


def test_names_are_parsed_in_order_once_and_all_means_all():
    assert parse_heads(" knn, logistic,knn ") == ["knn", "logistic"]
    assert set(parse_heads("all")) == set(OWN)
    assert parse_heads("all,sklearn.naive_bayes.GaussianNB")[-1] == "sklearn.naive_bayes.GaussianNB"


def test_an_unknown_name_lists_its_neighbours():
    with pytest.raises(UnknownHead) as refused:
        parse_heads("logistics")
    assert str(refused.value) == (
        "There is no head 'logistics': did you mean 'logistic'? List all with: featurecache heads; "
        "or give a scikit-learn classifier's path such as sklearn.ensemble.ExtraTreesClassifier."
    )


def test_no_name_at_all_is_refused():
    with pytest.raises(UnknownHead, match="No head was named"):
        parse_heads(" , ")


def test_an_unknown_parameter_lists_the_allowed_ones():
    with pytest.raises(UnknownHead) as refused:
        build_head("knn", neighbours=3)
    assert str(refused.value) == (
        "The head 'knn' has no parameter 'neighbours': it takes k, metric, sharpness, class_weight, temperature."
    )


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("sklearn.nothing.Here", "scikit-learn has no 'sklearn.nothing.Here'"),
        ("sklearn.ensemble.Missing", "scikit-learn has no 'sklearn.ensemble.Missing'"),
        ("sklearn.linear_model.LinearRegression", "is not a scikit-learn classifier"),
        ("sklearn.base.clone", "is not a scikit-learn classifier"),
        ("sklearn.multiclass.OneVsRestClassifier", "needs estimator, which a head.s name cannot give"),
        ("os.system", "There is no head 'os.system'"),
        ("sklearn.", "scikit-learn has no 'sklearn.'"),
    ],
)
def test_only_classifiers_of_scikit_learn_can_be_named_by_path(path, said):
    with pytest.raises(UnknownHead, match=said):
        build_head(path)


def test_a_path_builds_that_classifier_with_the_seed():
    head = build_head("sklearn.ensemble.ExtraTreesClassifier", seed=7, n_estimators=5)
    assert type(head.estimator).__name__ == "ExtraTreesClassifier"
    assert (head.estimator.random_state, head.estimator.n_estimators) == (7, 5)
    assert head_grid("sklearn.ensemble.ExtraTreesClassifier") == [{}]


def test_the_seed_becomes_the_random_state_where_there_is_one():
    assert build_head("mlp", seed=3).random_state == 3
    assert "random_state" not in build_head("ridge", seed=3).get_params()


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("labels", [["cat", "dog"], ["cat", "dog", "eel"]])
def test_predictions_are_the_most_probable_class(name, labels):
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(len(labels)), 20)
    X = (rng.normal(size=(len(codes), 6)) + 4 * np.eye(6)[codes]).astype(np.float32)
    head = build_head(name, **SMALL.get(name, {})).fit(X, np.array(labels)[codes])
    proba = head.predict_proba(X)
    assert proba.shape == (len(X), len(labels))
    assert np.allclose(proba.sum(axis=1), 1.0, atol=1e-5)
    assert (head.predict(X) == head.classes_[proba.argmax(axis=1)]).all()
    assert np.mean(head.predict(X) == np.array(labels)[codes]) > 0.8
