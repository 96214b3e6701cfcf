"""What heads have in common.

estimator   the bases that make them estimators
base        heads with scores
linear      heads with coef_ and intercept_
moments     heads of the counts, means and variances of classes
parameters  allowed values of parameters
validation  checks of fit and predict
learned     tables of learned values, to check heads from files
trials      the result of one setting in one round
votes       votes of neighbours
"""
