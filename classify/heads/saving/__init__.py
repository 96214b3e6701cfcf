"""Saved heads: a fitted head as a folder without pickle, believed only after it was checked.

folder        save_head, load_head
documents     its JSON
sameness      whether what is loaded is what was saved
sklearn_file  a scikit-learn classifier as head.skops
skops_file    what such a file would build
skops_types   the types that it may name
compiled      arrays that compiled code reads
"""
