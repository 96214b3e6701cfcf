"""Saved heads: a fitted head as a folder without pickle, checked before it is used.

folder        save_head, load_head, load_fitted
documents     head.json
mapped_arrays its arrays, left in their file
sameness      comparison of a loaded head with the saved one
sklearn_file  a scikit-learn classifier as head.skops
skops_file    the nodes of such a file, checked before anything is built
skops_types   the types that it may name
compiled      checks of arrays that compiled code reads
"""
