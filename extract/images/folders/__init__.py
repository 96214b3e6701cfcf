"""Folders of images as a Manifest.

scan         a folder as samples and what is left out
tree         the files and folders below a folder
skipped      files of operating systems, and featurecache's own
layouts      the levels of a folder: which name a split, a class, a group
reading      a folder read in a layout: labels, splits, groups
split_names  words for train, val and test
"""
