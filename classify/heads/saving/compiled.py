"""Checks of the arrays of fitted scikit-learn estimators that compiled code reads without bounds checks.

A decision tree goes to the child that its array names, libsvm reads as many support vectors as its counts say, a k-d
tree the rows that its index lists: numbers out of range there end the process or read memory of others. scikit-learn
writes only numbers that fit, a file may hold any. What is checked is what predicting reads; sources are the .pyx files
of scikit-learn 1.6 to 1.9.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray
from featurecache.classify.heads.saving.skops_types import BALL_TREE, KD_TREE, PREDICTOR, RANDOM_STATE, TREE

LEAF = -1
# Squares of such numbers can be added in float32: beyond, a distance would be infinite and a neighbour none at all.
LARGEST = 1e15
KERNELS = ("linear", "poly", "rbf", "sigmoid")
# Distances that scikit-learn's search without a tree computes from the rows alone.
DISTANCES = ("minkowski", "euclidean", "l2", "manhattan", "cityblock", "l1", "chebyshev", "cosine")


class Unsound(ValueError):
    """Arrays that compiled code must not get."""


def check_compiled(estimator: Any) -> None:
    """Raise Unsound for the first object in a fitted estimator whose arrays compiled code could not be given."""
    for each in objects_in(estimator):
        name = type_name(each)
        hidden = [key for key in getattr(each, "__dict__", ()) if not isinstance(key, str) or hasattr(type(each), key)]
        _must(not hidden, f"{name} has a value {hidden[:1]} where its class has something else")
        learned, check = CHECKS.get(name, ("", None))
        if check and hasattr(each, learned):  # one that is not fitted predicts nothing
            try:
                check(each)
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                raise Unsound(f"{name}: {error}") from error


def objects_in(root: Any) -> Iterator[Any]:
    """Yield an object and all objects that it holds in attributes, dicts, lists and arrays, each once."""
    seen: dict[int, Any] = {}
    left = [root]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, str | bytes | int | float | None):
            continue
        seen[id(each)] = each
        yield each
        if isinstance(each, Mapping):
            left += each.values()
        elif isinstance(each, list | tuple):
            left += each
        elif isinstance(each, np.ndarray):
            left += each.ravel().tolist() if each.dtype.kind == "O" else []
        left += getattr(each, "__dict__", {}).values()


def type_name(value: Any) -> str:
    """Return the exact name of the type of a value."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Unsound(otherwise)


def _is_whole(values: AnyArray, low: int, high: int) -> bool:
    """Return whether an array holds whole numbers from low to below high."""
    return values.dtype.kind in "iu" and bool(((values >= low) & (values < high)).all())


def _check_tree(tree: Any) -> None:
    """One output; children after their parents, as scikit-learn numbers them, so that every way down ends."""
    n = tree.node_count
    _must(1 <= n == tree.capacity and tree.n_outputs == 1 and tree.max_n_classes >= 1, "the counts of nodes disagree")
    nodes = tree.__getstate__()["nodes"]
    inner = nodes["left_child"] != LEAF
    parents = np.flatnonzero(inner)
    for side in ("left_child", "right_child"):
        children = nodes[side][inner]
        _must(bool(((children > parents) & (children < n)).all()), f"a {side} is no node after its parent")
    _must(_is_whole(nodes["feature"][inner], 0, tree.n_features), "a node asks for a column that is not there")


def _check_tree_estimator(estimator: Any) -> None:
    _must(type_name(estimator.tree_) == TREE, "tree_ is no tree")
    _must(estimator.tree_.n_features == estimator.n_features_in_, "tree_ has another number of columns")


def _check_boosting(estimator: Any) -> None:
    """Its trees are read one after the other in compiled code, a column of scores for each tree of a round."""
    trees = estimator.estimators_
    _must(isinstance(trees, np.ndarray) and trees.ndim == 2 and trees.size > 0, "estimators_ is no table of trees")
    for each in trees.ravel():
        _must(type_name(each) == "sklearn.tree._classes.DecisionTreeRegressor", "estimators_ holds what is no tree")
        _check_tree_estimator(each)
        _must(each.n_features_in_ == estimator.n_features_in_, "a tree has another number of columns")
    begins = estimator.init_
    plain = isinstance(begins, str) or type_name(begins) == "sklearn.dummy.DummyClassifier"
    _must(plain, "init_ is neither 'zero' nor a DummyClassifier")
    found = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32))
    _must(found.shape == (1, trees.shape[1]), "scores and trees of a round disagree")


def _check_predictor(predictor: Any) -> None:
    """A tree of histogram boosting; splits by category, which features do not have, are refused."""
    nodes = predictor.nodes
    _must(nodes.ndim == 1 and len(nodes) > 0, "there are no nodes")
    inner = nodes["is_leaf"] == 0
    parents = np.flatnonzero(inner)
    _must(not nodes["is_categorical"][inner].any(), "it splits by category")
    for side in ("left", "right"):
        children = nodes[side][inner].astype(np.int64)
        _must(bool(((children > parents) & (children < len(nodes))).all()), f"a {side} is no node after its parent")


def _check_histogram_boosting(estimator: Any) -> None:
    n_features = estimator.n_features_in_
    _must(isinstance(n_features, int) and estimator._preprocessor is None, "its columns are recoded")
    is_categorical = estimator._bin_mapper.is_categorical_
    _must(is_categorical.shape == (n_features,) and not is_categorical.any(), "it has columns of categories")
    for each in (each for round_ in estimator._predictors for each in round_):
        _must(type_name(each) == PREDICTOR, "a predictor is no tree")
        used = each.nodes["feature_idx"][each.nodes["is_leaf"] == 0]
        _must(_is_whole(used, 0, n_features), "a node asks for a column that is not there")


def _check_binary_tree(tree: Any) -> None:
    """A k-d tree or ball tree: children of node i are 2 i + 1 and 2 i + 2, which share out its rows."""
    data, index, nodes, bounds, *_, metric, weight = tree.__getstate__()
    n_rows, n_features = data.shape
    n_bounds = {KD_TREE: 2, BALL_TREE: 1}[type_name(tree)]
    _must(bounds.shape == (n_bounds, len(nodes), n_features), "bounds and nodes disagree")
    _must(bool(np.array_equal(np.sort(index), np.arange(n_rows))), "its index is no order of its rows")
    _must(weight is None and n_rows > 0 and np.isfinite(data).all(), "it has no rows, or rows that are no numbers")
    starts, ends = nodes["idx_start"].astype(np.int64), nodes["idx_end"].astype(np.int64)
    _must(len(nodes) > 0 and starts[0] == 0 and ends[0] == n_rows, "its root does not hold all rows")
    level = np.array([0])
    while len(level):
        level = level[nodes["is_leaf"][level] == 0]
        left, right = 2 * level + 1, 2 * level + 2
        _must(bool((right < len(nodes)).all()), "a node has no children")
        shared = (starts[left] == starts[level]) & (ends[left] == starts[right]) & (ends[right] == ends[level])
        ordered = (starts[left] <= ends[left]) & (starts[right] <= ends[right])
        _must(bool((shared & ordered).all()), "children do not share out the rows of a node")
        level = np.concatenate([left, right])
    _check_distance(metric, n_features)


def _check_distance(metric: Any, n_columns: int) -> None:
    _must(type_name(metric).startswith("sklearn.metrics._dist_metrics."), "it has no distance")
    if "Minkowski" in type_name(metric):
        _must(len(metric.__getstate__()[1]) in (0, n_columns), "a weight for each column is missing")


def _check_neighbours(estimator: Any) -> None:
    rows, method, tree = estimator._fit_X, estimator._fit_method, estimator._tree
    _must(isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.dtype.kind == "f", "its rows are no numbers")
    _must(rows.shape == (estimator.n_samples_fit_, estimator.n_features_in_), "its rows are of another shape")
    _must(bool((np.abs(rows) <= LARGEST).all()), f"its rows are not finite or above {LARGEST:g}")
    if method == "brute":
        known = estimator.metric in DISTANCES and estimator.effective_metric_ in DISTANCES
        _must(known and estimator.p in (1, 2) and not estimator.metric_params, f"metric={estimator.metric!r} and its p")
    else:
        _must(type_name(tree) in (KD_TREE, BALL_TREE), "it has no tree")
        _must(tree.__getstate__()[0].shape == rows.shape, "its tree is of other rows")
    if hasattr(estimator, "classes_"):
        codes = np.asarray(estimator._y)
        _must(not estimator.outputs_2d_ and codes.shape == (len(rows),), "it has not one label for each row")
        _must(_is_whole(codes, 0, len(estimator.classes_)), "a row has a label that is no class")
    if "n_neighbors" in estimator.get_params(deep=False) and hasattr(estimator, "classes_"):
        _must(1 <= estimator.n_neighbors <= len(rows), "it asks for more neighbours than it has rows")


def _check_svc(estimator: Any) -> None:
    """The sizes that libsvm takes for granted: model.l, nr_class, nSV, sv_coef, rho, probA and probB."""
    vectors, counts, n_classes = estimator.support_vectors_, estimator._n_support, len(estimator.classes_)
    n_pairs = n_classes * (n_classes - 1) // 2
    _must(isinstance(estimator.kernel, str) and estimator.kernel in KERNELS, f"kernel={estimator.kernel!r}")
    _must(estimator._sparse is False and n_classes >= 2, "it was fitted to sparse rows, or has no two classes")
    n_vectors, n_columns = vectors.shape
    _must(n_columns == estimator.n_features_in_ and n_vectors >= 1, "its support vectors have other columns")
    _must(counts.shape == (n_classes,) and _is_whole(counts, 0, n_vectors + 1), "a count of support vectors is none")
    _must(int(counts.sum()) == n_vectors == len(estimator.support_), "the counts of support vectors disagree")
    for dual in (estimator._dual_coef_, estimator.dual_coef_):
        _must(isinstance(dual, np.ndarray) and dual.shape == (n_classes - 1, n_vectors), "coefficients are missing")
    _must(estimator._intercept_.shape == (n_pairs,), "an intercept is missing")
    sizes = {estimator._probA.shape, estimator._probB.shape}
    _must(sizes in ({(0,)}, {(n_pairs,)}), "a probability of a pair is missing")


def _check_random_state(state: Any) -> None:
    _must(0 <= state.get_state(legacy=False)["state"]["pos"] <= 624, "its position is out of range")


# By the exact name of a type: what it has when it is fitted, and the check.
CHECKS: Mapping[str, tuple[str, Callable[[Any], None]]] = {
    TREE: ("node_count", _check_tree),
    PREDICTOR: ("nodes", _check_predictor),
    KD_TREE: ("data", _check_binary_tree),
    BALL_TREE: ("data", _check_binary_tree),
    RANDOM_STATE: ("get_state", _check_random_state),
    **{
        f"sklearn.tree._classes.{kind}Tree{what}": ("tree_", _check_tree_estimator)
        for kind in ("Decision", "Extra")
        for what in ("Classifier", "Regressor")
    },
    "sklearn.ensemble._gb.GradientBoostingClassifier": ("estimators_", _check_boosting),
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier": (
        "_predictors",
        _check_histogram_boosting,
    ),
    "sklearn.neighbors._classification.KNeighborsClassifier": ("_fit_method", _check_neighbours),
    "sklearn.neighbors._classification.RadiusNeighborsClassifier": ("_fit_method", _check_neighbours),
    "sklearn.neighbors._unsupervised.NearestNeighbors": ("_fit_method", _check_neighbours),
    "sklearn.svm._classes.SVC": ("support_vectors_", _check_svc),
    "sklearn.svm._classes.NuSVC": ("support_vectors_", _check_svc),
}
