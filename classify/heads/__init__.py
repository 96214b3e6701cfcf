"""Heads: scikit-learn classifiers that fit whole grids at once.

table         the table of heads: list_heads, parse_heads, head_grid, build_head
base          heads with scores
linear        heads with coef_ and intercept_
gaussian      heads of class moments
parameters    what may be asked of a head
validation    scikit-learn's contract
learned       what a head has learned, checked when it comes from a file
trials        one setting in one round, tried
votes         how neighbours vote
sklearn_head  any scikit-learn classifier
saving        a fitted head as a folder, without pickle
logistic, ridge, linear_svm, rbf_svm, lda, centroid, naive_bayes, knn, mlp  one head each
"""
