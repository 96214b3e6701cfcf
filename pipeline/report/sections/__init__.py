"""The sections of the report: each turns a run into figures, rows or cards.

table      the heads
intervals  accuracies with intervals, and swept settings
labels     what more labels bring
details    one head: confusion, calibration, classes
map        test images laid out flat
tsne       t-SNE in a process of its own
kept_maps  maps that are kept with the cache
galleries  images worth a look
audit      what `audit` found
reproduce  the commands of this run
"""
