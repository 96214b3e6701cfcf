"""Stage two: light heads on feature vectors. This package sees arrays only: X float32 (N, D) and y (N,).

arrays < solvers < evaluation < heads < selection      each imports only what is before it

arrays      features in memory or in files, blocks of rows, standardisation
solvers     whole grids of settings solved at once
evaluation  metrics, intervals, tests, calibration, label errors
heads       the table of heads, one file per head, saving
selection   splits, folds, sweeps, few labels
"""

if __name__ != "featurecache.classify":
    raise ImportError(f"'{__name__}' has become 'featurecache.classify'.")
