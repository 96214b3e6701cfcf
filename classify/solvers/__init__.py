"""Solvers: whole grids of settings in all rounds at once, from shared statistics.

linear              losses of linear heads, and their descents
covariance          covariance and eigendecomposition of every round, least squares
positive_definite   systems solved by a Cholesky factor
class_moments       counts, means and variances of classes
kernels             the RBF kernel
nystroem            linear problems on landmark columns
pairwise_coupling   scores from decisions between pairs of classes
neighbours          nearest rows, shared by folds
nearest_rows        nearest rows by numpy alone
batched_networks    two-layer networks trained together
successive_halving  early stopping of the worse ones
mixed_precision     their matrix products
"""
