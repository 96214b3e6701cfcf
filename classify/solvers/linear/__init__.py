"""Solvers of linear heads: regularised losses, and descents that solve every strength together.

losses               softmax and squared hinge
optimum              what they return, and their limits of memory
objective            the loss of many members in one pass
certificate          the same in float64, with a proven gap to the minimum
preconditioning      estimates of the curvature
lbfgs                L-BFGS for many members at once
regularization_path  every strength of a head, from weak to strong
rungs                strengths at which the path is continued
newton               Newton's method for the SVM
active_rows          its matrices, updated row by row
conjugate_gradient   its steps without matrices
kernel_steps         its steps for few rows
point                where its members are
line_search          its exact line minimum
"""
