"""Stage two: light heads on feature vectors. This package sees arrays only: X float32 (N, D) and y (N,).

The rooms:

    errors         what is raised on purpose
    heads          the table of heads: list_heads, parse_heads, head_grid, build_head
    logistic ridge svm lda centroid knn mlp      one head a file; svm holds the linear and the RBF one
    foreign        any scikit-learn classifier as a head
    contract       scikit-learn's checks at the doors of fit and predict
    scored linear  what heads with scores, and linear ones, share
    spectrum descent     one eigendecomposition for all strengths; L-BFGS in its basis
    scaling        standardisation, folded into the fitted head
    calibration    softmax and temperature
    splits         train, val and test by content; folds
    trials sweep   one setting tried; choose on val, refit on train and val, never see test
    metrics statistics     the numbers, their intervals, which heads are tied
    saved          a head as a folder without pickle
    arrays         names of the array types

What differs from DESIGN.md, and why: a grid is solved in `descent` and `spectrum` one strength after the other, each
started at the last optimum, rather than side by side in `paths`; and there is no few-shot split yet.

Names are imported from their room, `from classify.sweep import sweep`, so that `import classify` costs nothing;
`classify.heads` lists the table without scikit-learn or torch.
"""
