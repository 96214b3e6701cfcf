"""A run's head as one file for other programs, which need neither this package nor torch.

resizing     resizing and cropping as a graph, to the pixels of `fit_pixels`
nodes        a graph that is being built
odd_images   files that programs read differently
differences  what a difference of pixels looks like
"""
