"""The table of heads: names, summaries, classes and grids."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from typing import Any

from featurecache.base.errors import UnknownHead
from featurecache.classify.heads.shared.parameters import parameter_names

# Classifiers named by a dotted path come from here and nowhere else: a name must not import arbitrary code.
FOREIGN = "sklearn."
# How much the images of a class weigh in training: all the same, or all classes the same, n / (C n_c).
CLASS_WEIGHTS = ("none", "balanced")
# Parameters that come from the seed of the run, or from val.
DECIDED = ("random_state", "temperature")


@dataclass(frozen=True)
class HeadInfo:
    """One row of the table of heads."""

    name: str
    summary: str
    location: str
    """"module:class" of the estimator."""
    grid: tuple[Mapping[str, Any], ...]
    """The settings of its sweep, the simplest (most regularised) first: ties are broken towards the first."""
    is_layers: bool = False
    """Whether it is one linear layer, or two with a relu between, which can be trained on above a network."""
    fitted: tuple[str, ...] = ()
    """Settings, besides a temperature, that its fit finds by val and that no sweep tries."""


def _grid(**values: Sequence[Any]) -> tuple[Mapping[str, Any], ...]:
    """Return every combination; the first named parameter varies slowest."""
    return tuple(dict(zip(values, setting, strict=True)) for setting in product(*values.values()))


def _decades(low: int, high: int, steps: int) -> tuple[float, ...]:
    """Return `steps` values evenly spaced in the logarithm from 10^low to 10^high, to three digits."""
    return tuple(float(f"{10 ** (low + (high - low) * i / (steps - 1)):.3g}") for i in range(steps))


_HEADS = (
    HeadInfo(
        "logistic",
        "multinomial logistic regression, the linear probe",
        "featurecache.classify.heads.logistic:LogisticHead",
        # The 45 strengths of the linear-probe protocol of CLIP and DINO, four to a decade.
        _grid(C=_decades(-6, 5, 45)),
        is_layers=True,
    ),
    HeadInfo(
        "ridge",
        "ridge regression on class signs, closed form",
        "featurecache.classify.heads.ridge:RidgeHead",
        _grid(alpha=_decades(-3, 8, 45)[::-1]),
        is_layers=True,
    ),
    HeadInfo(
        "linear_svm",
        "one-versus-rest linear SVM, squared hinge",
        "featurecache.classify.heads.linear_svm:LinearSVMHead",
        _grid(C=_decades(-7, 2, 19)),
        is_layers=True,
    ),
    HeadInfo(
        "rbf_svm",
        "SVM with the RBF kernel; exact up to 10,000 rows, Nystroem beyond",
        "featurecache.classify.heads.rbf_svm:RBFSVMHead",
        _grid(gamma=(0.06, 0.125, 0.25, 0.5), C=(1.0, 10.0, 100.0)),
    ),
    HeadInfo(
        "lda",
        "linear discriminant analysis with shrinkage",
        "featurecache.classify.heads.lda:LDAHead",
        _grid(shrinkage=(1.0, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5)),
        is_layers=True,
    ),
    HeadInfo(
        "centroid",
        "nearest class mean, shrunken",
        "featurecache.classify.heads.centroid:CentroidHead",
        _grid(metric=("euclidean", "cosine"), shrink=(64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.0)),
    ),
    HeadInfo(
        "naive_bayes",
        "Gaussian naive Bayes with smoothed variances",
        "featurecache.classify.heads.naive_bayes:NaiveBayesHead",
        _grid(smoothing=_decades(-6, 2, 17)[::-1]),
    ),
    HeadInfo(
        "knn",
        "k nearest neighbours by cosine or distance, votes equal or by nearness",
        "featurecache.classify.heads.knn:KNNHead",
        _grid(
            k=(200, 100, 50, 30, 20, 14, 10, 7, 5, 3, 1), metric=("cosine", "euclidean"), sharpness=(None, 0.1, 0.03)
        ),
    ),
    HeadInfo(
        "mlp",
        "one hidden layer of 1024, AdamW, stopped early on val",
        "featurecache.classify.heads.mlp:MLPHead",
        _grid(learning_rate=(3e-4, 1e-3, 3e-3, 1e-2), dropout=(0.5, 0.25, 0.0)),
        is_layers=True,
        fitted=("epochs",),
    ),
)
HEADS: Mapping[str, HeadInfo] = {info.name: info for info in _HEADS}


def list_heads() -> list[HeadInfo]:
    """Return the table of this package's own heads, cheapest to understand first; imports nothing heavy."""
    return list(_HEADS)


def parse_heads(text: str) -> list[str]:
    """Return the head names of "a,b,c", each once in the order given, or of "all"; dotted paths are checked as well.

    Raises UnknownHead for an unknown name, and for no name at all.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UnknownHead(
            "No head was named: give names such as 'logistic,knn', or 'all'; list them: featurecache heads."
        )
    names = [each for name in names for each in (HEADS if name == "all" else (name,))]
    for name in names:
        _check_name(name)
    return list(dict.fromkeys(names))


def head_grid(name: str) -> list[dict[str, Any]]:
    """Return the settings that a sweep of this head tries, the simplest first; scikit-learn's have one.

    Raises UnknownHead.
    """
    _check_name(name)
    return [dict(setting) for setting in HEADS[name].grid] if name in HEADS else [{}]


def head_parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a head that can be given, with their defaults: none that the seed or val decides.

    Raises UnknownHead.
    """
    _check_name(name)
    parameters = inspect.signature(_head_class(name)).parameters
    given = {key: each.default for key, each in parameters.items() if each.kind is not each.VAR_KEYWORD}
    return {key: default for key, default in given.items() if key not in DECIDED}


def build_head(name: str, *, seed: int = 0, **params: Any) -> Any:
    """Return an unfitted head: one of the table, or `sklearn.module.Classifier` in a ForeignHead.

    `seed` becomes its random_state where it has one. Raises UnknownHead for an unknown name or parameter.
    """
    _check_name(name)
    if name in HEADS:
        return _instantiate(_head_class(name), name, seed, params)
    from featurecache.classify.heads.sklearn_head import ForeignHead

    temperature = params.pop("temperature", 1.0)
    return ForeignHead(_instantiate(_head_class(name), name, seed, params), temperature=temperature)


def _head_class(name: str) -> Any:
    """Return the estimator of a known name."""
    if name not in HEADS:
        return _foreign_class(name)
    module, _, class_name = HEADS[name].location.partition(":")
    return getattr(importlib.import_module(module), class_name)


def _instantiate(head_class: Any, name: str, seed: int, params: dict[str, Any]) -> Any:
    names = parameter_names(head_class)
    allowed = [parameter for parameter in names if parameter != "random_state"]
    for key in params:
        if key not in allowed:
            raise UnknownHead(f"The head '{name}' has no parameter '{key}': it takes {', '.join(allowed) or 'none'}.")
    seeded = {"random_state": seed} if "random_state" in names else {}
    return head_class(**params, **seeded)


def _check_name(name: str) -> None:
    if name in HEADS:
        return
    if name.startswith(FOREIGN):
        _foreign_class(name)
        return
    near = get_close_matches(name, HEADS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? List" if near else "list"
    raise UnknownHead(
        f"There is no head '{name}': {hint} all with: featurecache heads; "
        "or give a scikit-learn classifier's path such as sklearn.ensemble.ExtraTreesClassifier."
    )


def _foreign_class(path: str) -> Any:
    """Return the scikit-learn classifier at a dotted path, which must start with "sklearn."; raises UnknownHead."""
    module, _, class_name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), class_name, None)
    except ImportError:
        found = None
    if found is None:
        raise UnknownHead(f"scikit-learn has no '{path}': give a path such as sklearn.ensemble.ExtraTreesClassifier.")
    from sklearn.base import ClassifierMixin

    if not (isinstance(found, type) and issubclass(found, ClassifierMixin)):
        raise UnknownHead(
            f"'{path}' is not a scikit-learn classifier: name one such as sklearn.naive_bayes.GaussianNB."
        )
    parameters = inspect.signature(found).parameters.values()
    needed = [each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
    if needed:
        raise UnknownHead(
            f"'{path}' needs {' and '.join(needed)}, which a head's name cannot give: "
            "name a classifier whose parameters all have defaults, such as sklearn.ensemble.ExtraTreesClassifier."
        )
    return found
