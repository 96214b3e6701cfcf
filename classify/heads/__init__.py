"""Heads: scikit-learn classifiers that fit whole grids at once.

A head has `allowed` (its parameters), `common` (those that all settings of a grid share), `learned` (what is
saved) and `try_grid`; `centroid` is the simplest.

table         the table of heads: list_heads, parse_heads, head_grid, build_head
fitted        fitted heads as they predict, by numpy alone
shared        what heads have in common
sklearn_head  any scikit-learn classifier
saving        a fitted head as a folder, without pickle
logistic, ridge, linear_svm, rbf_svm, lda, centroid, naive_bayes, knn, mlp  one head each
"""
