"""Stage two: light heads on feature vectors. This package sees arrays only: X float32 (N, D) and y (N,).

The rooms:

    errors         what is raised on purpose
    heads          the table of heads: list_heads, parse_heads, head_grid, build_head
    logistic ridge linear_svm rbf_svm lda centroid naive_bayes knn mlp      one head a file
    foreign        any scikit-learn classifier as a head
    contract       scikit-learn's checks at the doors of fit and predict
    scored linear  what heads with scores, and linear ones, share
    rows scaling   features in blocks, never copied as a whole; standardisation, folded into the fitted head
    spectrum       counts, means and one eigendecomposition of every round, for ridge and LDA
    losses objective     the loss of many settings in many rounds, in one pass
    curvature lbfgs paths rungs     what is known of the curvature; L-BFGS side by side; all strengths of a head
    newton         the same for the linear SVM
    moments moment_heads      counts, means and variances of every class and round; heads that need no more
    neighbours votes     one table of nearest rows for every k, metric and fold; how they vote
    networks race batches      networks trained side by side; which of them go on; rows as scaled batches
    kernels landmarks coupling      the RBF kernel; its linear problem on landmarks; pairs of classes made probabilities
    plain files    features of any kind as numpy; arrays in files without a name, as large as features
    calibration    softmax and temperature
    units dividing splits     what stays together; units sent to sides; train, val and test by content; folds
    rounds trials outcomes sums     which rows are held out; one setting tried; its rounds joined; metrics as sums
    sweep          choose on val, refit on train and val, never see test
    metrics statistics     the numbers, their intervals, which heads are tied
    closeness doubt    which rows lie close together; labels that heads trained without them do not believe
    leave_one_out transferability      how well features suit labels, without a sweep
    saved alike documents      a head as a folder without pickle, compared with what was saved; its JSON
    learned        what each head learns: its table, checked when it comes from a file
    foreign_file skops_file skops_types compiled      a classifier of scikit-learn as a file: its nodes, the types that
                   may be named, arrays that compiled code reads
    arrays         names of the array types

Names are imported from their room, `from classify.sweep import sweep`, so that `import classify` costs nothing;
`classify.heads` lists the table without scikit-learn or torch.
"""
