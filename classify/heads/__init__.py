"""Heads: scikit-learn classifiers that fit whole grids at once.

table         the table of heads: list_heads, parse_heads, head_grid, build_head
base          heads with scores
linear        heads with coef_ and intercept_
gaussian      heads of class moments
parameters    allowed values of parameters
validation    checks of fit and predict
learned       tables of learned values, to check heads from files
trials        the result of one setting in one round
votes         votes of neighbours
sklearn_head  any scikit-learn classifier
saving        a fitted head as a folder, without pickle
logistic, ridge, linear_svm, rbf_svm, lda, centroid, naive_bayes, knn, mlp  one head each
"""
