"""Fitted heads as they predict: numpy alone, from their learned arrays, without scikit-learn and torch.

The estimators of `classify.heads` derive from these classes, so that a head that has just been fitted and one that was
read from a folder compute the same; an exported head has the same arithmetic.

tables   parameters and learned values of every head
rows     checks of the rows to predict
scored   scores, probabilities and labels
kinds    the scores of linear, quadratic, two-layer and kernel heads
voting   k nearest neighbours
build    a head from its saved values
"""
