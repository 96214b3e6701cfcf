"""Benchmarks: our figures beside those of what a user would otherwise run, in one process run.

extract     `bench extract`
passes      its own side
rivals      the other side
inputs      photographs and weights for it
heads       `bench heads`
lines       its lines
solvers     logistic and SVM
neighbours  kNN and mlp
features    the features of both
classify    `bench classify`: seconds and memory
finetune    `bench finetune`
starts      `bench starts`
output      what all of them print and write
clock       seconds
demo_data   the data sets of `make data`
"""
