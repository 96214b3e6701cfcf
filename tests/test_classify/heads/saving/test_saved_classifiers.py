"""Classifiers of scikit-learn come back from their folder as they were, whatever they are made of."""

import importlib
import inspect
import warnings

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, GradientBoostingClassifier, StackingClassifier, VotingClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from sklearn.linear_model import SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from featurecache.classify.heads.saving.folder import load_head, save_head
from featurecache.classify.heads.saving.skops_types import CLASSIFIERS
from featurecache.classify.heads.sklearn_head import ForeignHead
from featurecache.classify.heads.table import build_head

# These need to be given what they are made of.
COMPOSED = {"FixedThresholdClassifier", "OneVsOneClassifier", "OneVsRestClassifier", "OutputCodeClassifier",
            "SelfTrainingClassifier", "StackingClassifier", "VotingClassifier"}  # fmt: skip
EVERY = sorted(path for path in CLASSIFIERS if path.rpartition(".")[2] not in COMPOSED)


def test_every_classifier_that_needs_no_arguments_may_be_saved():
    found = {f"{kind.__module__}.{name}": kind for name, kind in all_estimators(type_filter="classifier")}
    complete = {
        path
        for path, kind in found.items()
        if all(each.default is not each.empty for each in inspect.signature(kind).parameters.values())
    }
    assert complete - CLASSIFIERS == set()
    assert set(found) >= CLASSIFIERS


@pytest.mark.parametrize("path", EVERY)
def test_every_classifier_that_needs_no_arguments_comes_back_to_the_bit(path, tmp_path):
    module, _, name = path.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    few = {"n_estimators": 3} if "n_estimators" in parameters else {}
    few |= {"max_iter": 5} if name in ("MLPClassifier", "HistGradientBoostingClassifier") else {}
    few |= {"radius": 9.0} if name == "RadiusNeighborsClassifier" else {}
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    X = np.abs(rng.normal(size=(60, 5)) + np.eye(5)[labels]).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = build_head(path, **few).fit(X, np.array(["cat", "dog", "eel"])[labels])
        save_head(head, tmp_path / "head", meta={})
        loaded = load_head(tmp_path / "head").head
        assert (loaded.predict(X) == head.predict(X)).all()
        assert (loaded.predict_proba(X) == head.predict_proba(X)).all()


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), PCA(2), SVC()),
        SVC(kernel="poly", class_weight={"cat": 2.0}),
        BaggingClassifier(KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"), n_estimators=2),
        KNeighborsClassifier(algorithm="brute", weights="distance"),
        SGDClassifier(loss="log_loss", max_iter=5, tol=None, random_state=np.random.RandomState(0)),
        GaussianProcessClassifier(1.0 * Matern() + WhiteKernel()),
        GradientBoostingClassifier(init="zero", n_estimators=2),
        VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())]),
        StackingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())], cv=2),
        CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=2),
        LabelSpreading(kernel="knn"),
        OneVsRestClassifier(SVC()),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_other_settings_and_classifiers_made_of_others_come_back_to_the_bit(estimator, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    X = (rng.normal(size=(60, 5)) + np.eye(5)[labels]).astype(np.float32)
    names = labels if isinstance(estimator, LabelSpreading) else np.array(["cat", "dog", "eel"])[labels]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = ForeignHead(estimator).fit(X, names)
        save_head(head, tmp_path / "head", meta={})
        loaded = load_head(tmp_path / "head").head
        assert (loaded.predict_proba(X) == head.predict_proba(X)).all()
