"""Solvers: whole grids of settings in all rounds at once, from shared statistics.

linear              losses of linear heads, and their descents
covariance          mean, covariance and eigendecomposition of every round
class_moments       counts, means and variances of classes
kernels             the RBF kernel
nystroem            linear problems on landmark columns
pairwise_coupling   decisions between pairs made into scores
neighbours          one table of nearest rows
batched_networks    two-layer networks side by side
successive_halving  which of them go on
mixed_precision     their matrix products
"""
