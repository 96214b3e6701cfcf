"""The features of a data set, from wherever they come: the cache, an extraction, a file of vectors, several joined.

feature_set       Features: an array of one kind; Source: what any of them are looked up in
requested         the requests for the features of a data set
finding           the cache of a request
nearest_features  what a cache holds instead of what was asked for
feature_arrays    features larger than memory
joined            features of several backbones side by side
saved_with_head   the record that a head has of its features
new_images        features of new images for a saved head, kept or extracted
file_vectors      vectors from a file for a saved head
"""
