"""Arrays: features in memory or in files, in blocks of rows, and standardised.

array_types  names of the array types
as_numpy     arrays of any kind as numpy
namespaces   the functions that work on an array
memmap       arrays in files without a name
blocks       rows in blocks, never copied as a whole
member_rows  the rows of each round, for members side by side
minibatches  rows as scaled batches
scaling      the standardisation of all heads
softmax      scores to probabilities
"""
