"""Fitted classifiers with arrays that would crash the process or read its memory: refused before anything predicts."""

import io
import json
import zipfile

import numpy as np
import pytest
from prepared import run_program
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from skops.io import dumps

from featurecache.base.errors import SavedHeadError
from featurecache.classify.heads.saving.folder import load_head

LABELS = np.arange(60) % 3
X = np.random.default_rng(0).normal(size=(60, 5)) + np.eye(5)[LABELS]


# Fitted, then spoilt: what compiled code would read without looking, so that it is used in a process of its own only.


def spoilt_tree(**changes):
    def spoil():
        estimator = DecisionTreeClassifier(random_state=0).fit(X, LABELS)
        set_nodes(estimator.tree_, **changes)
        return estimator

    return spoil


def set_nodes(tree, **changes):
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    for name, value in changes.items():
        nodes[name][0] = value
    tree.__setstate__(state | {"nodes": nodes})


def fewer_nodes():
    """A tree that cannot be saved: its count is put into the file."""
    with zipfile.ZipFile(io.BytesIO(dumps(spoilt_tree()()))) as file:
        schema = json.loads(file.read("schema.json"))
        members = {name: file.read(name) for name in file.namelist() if name != "schema.json"}
    schema["content"]["content"]["tree_"]["content"]["content"]["node_count"]["content"] = "-5"
    spoilt = io.BytesIO()
    with zipfile.ZipFile(spoilt, "w") as file:
        for name, blob in {**members, "schema.json": json.dumps(schema)}.items():
            file.writestr(name, blob)
    return spoilt.getvalue()


def forest():
    estimator = RandomForestClassifier(n_estimators=2, random_state=0).fit(X, LABELS)
    set_nodes(estimator.estimators_[1].tree_, right_child=10**7)
    return estimator


def narrow_tree():
    """A tree of five columns in an estimator that says it has two."""
    estimator = DecisionTreeClassifier(random_state=0).fit(X, LABELS)
    estimator.n_features_in_ = 2
    return estimator


def boosted(spoil):
    def made():
        estimator = GradientBoostingClassifier(n_estimators=2, random_state=0).fit(X, LABELS)
        spoil(estimator)
        return estimator

    return made


def more_trees_than_scores(estimator):
    estimator.estimators_ = np.concatenate([estimator.estimators_] * 2, axis=1)


def histogram(**changes):
    def made():
        estimator = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=2).fit(X, LABELS)
        for name, value in changes.items():
            estimator._predictors[0][0].nodes[name][0] = value
        return estimator

    return made


def neighbours(algorithm, spoil):
    def made():
        estimator = KNeighborsClassifier(algorithm=algorithm, leaf_size=5).fit(X, LABELS)
        spoil(estimator)
        return estimator

    return made


def set_index(estimator):
    index = np.asarray(estimator._tree.get_arrays()[1]).copy()
    index[:] = 10**9
    set_state(estimator._tree, 1, index)


def set_ends(estimator):
    nodes = np.asarray(estimator._tree.get_arrays()[2]).copy()
    nodes["idx_end"] = 10**8
    set_state(estimator._tree, 2, nodes)


def set_leaves(estimator):
    nodes = np.asarray(estimator._tree.get_arrays()[2]).copy()
    nodes["is_leaf"] = 0
    set_state(estimator._tree, 2, nodes)


def set_bounds(estimator):
    set_state(estimator._tree, 3, np.zeros((2, 1, 1)))


def set_state(tree, place, value):
    state = list(tree.__getstate__())
    state[place] = value
    tree.__setstate__(tuple(state))


def set_value(name, value):
    return lambda estimator: setattr(estimator, name, value)


def machine(spoil):
    def made():
        estimator = SVC().fit(X, LABELS)
        spoil(estimator)
        return estimator

    return made


def move_counts(estimator):
    estimator._n_support = np.array([-(10**6), 10**6, len(estimator.support_)], dtype=np.int32)


CRASHES = {
    "a child beyond all nodes": (spoilt_tree(left_child=10**7), "a left_child is no node after its parent"),
    "a child before its parent": (spoilt_tree(right_child=0), "a right_child is no node after its parent"),
    "a column beyond all": (spoilt_tree(feature=10**7), "a node asks for a column that is not there"),
    "a column before the first": (spoilt_tree(feature=-(10**7)), "a node asks for a column that is not there"),
    "more nodes than there are": (fewer_nodes, "the counts of nodes disagree"),
    "a tree of a forest": (forest, "a right_child is no node after its parent"),
    "a tree of more columns": (narrow_tree, "tree_ has another number of columns"),
    "more trees than scores": (boosted(more_trees_than_scores), "scores and trees of a round disagree"),
    "a boosted tree that is none": (
        boosted(lambda e: setattr(e.estimators_[0, 0], "tree_", None)),
        "tree_ is no tree",
    ),
    "a boosted tree beyond its nodes": (
        boosted(lambda e: set_nodes(e.estimators_[0, 0].tree_, left_child=10**7)),
        "a left_child is no node after its parent",
    ),
    "a histogram's child beyond all": (histogram(left=10**7), "a left is no node after its parent"),
    "a histogram's child before its parent": (histogram(right=0), "a right is no node after its parent"),
    "a histogram's column beyond all": (histogram(feature_idx=10**8), "a node asks for a column that is not there"),
    "a histogram's categories": (histogram(is_categorical=1, bitset_idx=10**8), "it splits by category"),
    "a k-d tree's index": (neighbours("kd_tree", set_index), "its index is no order of its rows"),
    "a k-d tree's rows": (neighbours("kd_tree", set_ends), "its root does not hold all rows"),
    "a k-d tree without leaves": (neighbours("kd_tree", set_leaves), "a node has no children"),
    "a ball tree's index": (neighbours("ball_tree", set_index), "its index is no order of its rows"),
    "a k-d tree's bounds": (neighbours("kd_tree", set_bounds), "bounds and nodes disagree"),
    "a label that is no class": (
        neighbours("brute", lambda e: setattr(e, "_y", np.full(60, 10**9))),
        "a row has a label that is no class",
    ),
    "more neighbours than rows": (neighbours("brute", set_value("n_neighbors", 10**6)), "more neighbours than"),
    "rows beyond all numbers": (neighbours("brute", set_value("_fit_X", np.full((60, 5), 1e200))), "not finite or"),
    "counts of support vectors": (machine(move_counts), "a count of support vectors is none"),
    "classes without support": (
        machine(set_value("_n_support", np.array([10, 10], dtype=np.int32))),
        "a count of support vectors is none",
    ),
    "coefficients that are missing": (machine(set_value("_dual_coef_", np.ones((1, 1)))), "coefficients are missing"),
    "an intercept that is missing": (machine(set_value("_intercept_", np.ones(1))), "an intercept is missing"),
    "support vectors of other columns": (
        machine(lambda e: setattr(e, "support_vectors_", e.support_vectors_[:, :1].copy())),
        "its support vectors have other columns",
    ),
    "a kernel of the training rows": (machine(set_value("kernel", "precomputed")), "kernel='precomputed'"),
}

PROGRAM = """
import sys
from pathlib import Path
from featurecache.base.errors import SavedHeadError
from featurecache.classify.heads.saving.folder import load_head

for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        load_head(folder)
        print(folder.name, "loaded", flush=True)
    except SavedHeadError as error:
        print(folder.name, error, flush=True)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory, write_skops_head):
    """What is said of each spoilt head, in a process of its own that may crash."""
    root = tmp_path_factory.mktemp("spoilt")
    for number, (make, _) in enumerate(CRASHES.values()):
        made = make()
        write_skops_head(root / f"{number:02d}", made if isinstance(made, bytes) else dumps(made))
    ended = run_program(PROGRAM, root)
    lines = [line.split(" ", 1) for line in ended.stdout.splitlines()]
    return {int(number): said for number, said in lines}


@pytest.mark.parametrize("case", CRASHES)
def test_arrays_that_would_crash_the_process_are_refused(case, told):
    said = told.get(list(CRASHES).index(case), "the process ended before")
    assert CRASHES[case][1] in said
    assert "load it with --trust-head (in Python: trust=True)" in said


def test_a_distance_that_is_not_checked_is_loaded_only_if_it_is_trusted(tmp_path, write_skops_head):
    X_round = np.clip(X[:, :2], -1, 1)
    estimator = KNeighborsClassifier(metric="haversine", algorithm="ball_tree").fit(X_round, LABELS)
    learned = {"n_features_in_": 2, "converged_": True, "note_": ""}
    folder = write_skops_head(tmp_path / "head", dumps(estimator), learned=learned)
    with pytest.raises(SavedHeadError, match=r"HaversineDistance64, whose arrays are not checked\. Only if you made"):
        load_head(folder)
    head = load_head(folder, trust=True).head
    assert (head.predict(X_round) == estimator.predict(X_round)).all()


def test_a_head_of_scikit_learn_that_is_harmless_is_loaded(tmp_path, write_skops_head):
    estimator = GaussianNB().fit(X, LABELS)
    head = load_head(write_skops_head(tmp_path / "head", dumps(estimator))).head
    assert (head.predict_proba(X) == estimator.predict_proba(X)).all()
