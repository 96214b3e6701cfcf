import warnings

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.naive_bayes import CategoricalNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.svm import NuSVC

from featurecache.base.errors import HeadFailed
from featurecache.classify.arrays.softmax import softmax
from featurecache.classify.heads.sklearn_head import ForeignHead, fit_noting_convergence

X = np.random.default_rng(0).normal(size=(60, 4)) + np.eye(4)[np.arange(60) % 3]
Y = np.arange(60) % 3


def test_its_own_probabilities_are_used_where_it_has_them():
    assert (ForeignHead(GaussianNB()).fit(X, Y).predict_proba(X) == GaussianNB().fit(X, Y).predict_proba(X)).all()


def test_scores_become_probabilities_by_softmax_over_the_temperature():
    head = ForeignHead(RidgeClassifier(), temperature=2.0).fit(X, Y)
    assert head.predict_proba(X) == pytest.approx(softmax(RidgeClassifier().fit(X, Y).decision_function(X) / 2.0))


def test_a_classifier_with_nothing_but_predictions_is_certain_of_them():
    class Silent(GaussianNB):
        predict_proba = property()

    head = ForeignHead(Silent()).fit(X, Y)
    assert (head.predict_proba(X) == np.eye(3)[GaussianNB().fit(X, Y).predict(X)]).all()


def test_the_estimator_that_was_given_stays_unfitted():
    head = ForeignHead(NuSVC(nu=0.3)).fit(X, Y)
    assert not hasattr(head.estimator, "support_")


@pytest.mark.parametrize(
    ("estimator", "rows", "said"),
    [
        (KNeighborsClassifier(), X[:3], "KNeighborsClassifier cannot predict: Expected n_neighbors <= n_samples_fit"),
        (MultinomialNB(), X, "MultinomialNB cannot be fitted: Negative values in data"),
        (CategoricalNB(), np.zeros((3, 4)), "CategoricalNB cannot predict: index 2 is out of bounds"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_both"])
def test_an_estimator_that_gives_up_is_named_with_what_it_said(estimator, rows, said, method):
    with pytest.raises(HeadFailed) as failed:
        getattr(ForeignHead(estimator).fit(rows, Y[: len(rows)]), method)(np.full((6, 4), 2.0))
    assert str(failed.value).startswith(said)
    assert str(failed.value).endswith(". Give more images, or leave this head out.")


def test_scores_of_an_estimator_that_gives_up_are_named_too():
    class Stubborn(RidgeClassifier):
        def decision_function(self, X):
            raise ValueError("not\n  today.")

    with pytest.raises(HeadFailed, match="Stubborn cannot predict: not today"):
        ForeignHead(Stubborn()).fit(X, Y).predict_proba(X)


def test_warnings_other_than_convergence_pass_on():
    class Loud(NearestNeighbors):
        def fit(self, X, y=None):
            warnings.warn("something else", UserWarning, stacklevel=1)
            return super().fit(X)

    with pytest.warns(UserWarning, match="something else"):
        assert fit_noting_convergence(Loud(), X, Y) == ""
