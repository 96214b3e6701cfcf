"""The features of a data set, from wherever they come: the cache, an extraction, a file of vectors.

requested     the requests for the features of a data set
new_images    features of new images for a saved head, kept or extracted
file_vectors  vectors from a file for a saved head
"""
