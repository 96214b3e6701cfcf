"""Linear heads: their regularised losses, and descents that solve every strength together.

losses               softmax and squared hinge
objective            the loss of many members in one pass
certificate          the same in float64, and the gap that its gradient proves
preconditioning      what is known of the curvature
lbfgs                L-BFGS side by side
regularization_path  every strength of a head, climbed from weak to strong
rungs                the strengths of the climb
newton               Newton's method for the SVM
active_rows          its matrices
conjugate_gradient   the same without matrices
line_search          its exact line minimum
"""
