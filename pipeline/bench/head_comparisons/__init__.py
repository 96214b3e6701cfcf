"""Our heads and scikit-learn's on the same features: what `bench heads` compares.

features    the features of both
lines       the lines of the table
solvers     logistic and SVM
neighbours  kNN and mlp
"""
