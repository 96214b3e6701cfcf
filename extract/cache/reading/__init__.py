"""Rows of a cache for programs: block by block, and as a data set of PyTorch.

rows     ReadableRows: what every cache offers
dataset  FeatureDataset: a data set of PyTorch, which workers open for themselves
"""
