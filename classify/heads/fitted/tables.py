"""Parameters and learned values of every head, by its name: what a saved head may hold."""

from collections.abc import Mapping

import numpy as np

from featurecache.classify.heads.shared.learned import COUNTED, FITTED, SLOPE, Array, Learned
from featurecache.classify.heads.shared.parameters import (
    COUNT,
    NOT_NEGATIVE,
    OPTIONAL,
    POSITIVE,
    SHARE,
    Allowed,
    Choice,
    Range,
)
from featurecache.classify.solvers.nearest_rows import DISTANCES

# Rows of weight zero are left out by a fit of knn.
SMALLEST_COUNT = float(np.finfo(np.float64).tiny)
BELOW_ONE = Range("a number from 0 to below 1", least=0.0, below=1.0)

ALLOWED: Mapping[str, Allowed] = {
    "logistic": {"C": POSITIVE, "tol": OPTIONAL, "max_iter": COUNT},
    "ridge": {"alpha": NOT_NEGATIVE, "temperature": POSITIVE},
    "linear_svm": {"C": POSITIVE, "temperature": POSITIVE, "tol": OPTIONAL, "max_iter": COUNT},
    "rbf_svm": {
        "C": POSITIVE,
        "gamma": POSITIVE,
        "method": Choice("auto", "exact", "nystroem"),
        "n_landmarks": COUNT,
        "temperature": POSITIVE,
    },
    "lda": {"shrinkage": SHARE, "temperature": POSITIVE},
    "centroid": {
        "metric": Choice("euclidean", "cosine"),
        "shrink": Range("0, for none, or more", least=0.0),
        "temperature": POSITIVE,
    },
    "naive_bayes": {"smoothing": Range("more than 0, for instance 0.01", above=0.0), "temperature": POSITIVE},
    "knn": {
        "k": Range("1 neighbour or more, a whole number", least=1.0, whole=True),
        "metric": Choice(*DISTANCES),
        "sharpness": OPTIONAL,
        "temperature": POSITIVE,
    },
    "mlp": {
        "hidden": COUNT,
        "learning_rate": POSITIVE,
        "dropout": BELOW_ONE,
        "weight_decay": NOT_NEGATIVE,
        "label_smoothing": BELOW_ONE,
        "batch_size": COUNT,
        "epochs": COUNT,
        "patience": COUNT,
        "temperature": POSITIVE,
    },
}
# Parameters that `check_fitted` checks for all heads.
COMMON = ("class_weight", "random_state", "device")

MAP: Learned = {"coef_": Array("C", "D"), "intercept_": Array("C")}
LINEAR: Learned = {**FITTED, **MAP, "n_iter_": COUNTED, "slope_": SLOPE}
LEARNED: Mapping[str, Learned] = {
    "logistic": LINEAR,
    "ridge": LINEAR,
    "linear_svm": LINEAR,
    "lda": LINEAR,
    "centroid": {**FITTED, **MAP},
    "naive_bayes": {**FITTED, "mean_": Array("D"), "squares_": Array("C", "D"), **MAP},
    "rbf_svm": {
        **FITTED,
        "method_": Choice("exact", "nystroem"),
        "origin_": Array("D"),
        "gamma_": NOT_NEGATIVE,
        "support_vectors_": Array("V", "D"),
        "coef_": Array("V", "P"),
        "intercept_": Array("P"),
    },
    "knn": {
        **FITTED,
        "rows_": Array("N", "D"),
        "codes_": Array("N", kind="iu", below="C"),
        "counts_": Array("N", least=SMALLEST_COUNT),
        "factors_": Array("C", least=0.0),
        "origin_": Array("D"),
        "variance_": NOT_NEGATIVE,
    },
    "mlp": {
        **FITTED,
        "hidden_coef_": Array("H", "D"),
        "hidden_intercept_": Array("H"),
        "coef_": Array("C", "H"),
        "intercept_": Array("C"),
    },
}
