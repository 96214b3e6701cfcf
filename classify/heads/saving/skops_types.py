"""The types that a head of scikit-learn may be made of, by their exact names: nothing else is ever built from a file.

Fitting every scikit-learn classifier that needs no arguments takes the types below, and so do other settings of these,
the classifiers made of others, and scalers before one. None of them calls what a file names. Types whose arrays are
read by compiled code are checked before they are used (`classify.heads.saving.compiled`), but for UNCHECKED.
"""


def _of(module: str, names: str) -> list[str]:
    return [f"{module}.{name}" for name in names.split()]


# Numbers and labels of numpy, as scalars and as the keys of dicts.
SCALARS = frozenset(
    _of(
        "numpy",
        "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 longlong ulonglong float16 float32 float64 str_",
    )
)
KEYS = SCALARS | frozenset(_of("builtins", "bool int float str"))
DICTS = frozenset(["builtins.dict", "sklearn.utils._bunch.Bunch"])
TREE = "sklearn.tree._tree.Tree"
KD_TREE, BALL_TREE = "sklearn.neighbors._kd_tree.KDTree", "sklearn.neighbors._ball_tree.BallTree"
PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
RANDOM_STATE = "numpy.random.mtrand.RandomState"
GENERATOR = "numpy.random._generator.Generator"
# Distances whose own numbers are checked, if they have any.
DISTANCES = frozenset(
    _of(
        "sklearn.metrics._dist_metrics",
        "EuclideanDistance64 ManhattanDistance64 ChebyshevDistance64 MinkowskiDistance64",
    )
)
# Distances with arrays that nothing here checks: compiled code reads beyond them if they are too short.
UNCHECKED = frozenset(
    _of("sklearn.metrics._dist_metrics", "SEuclideanDistance64 MahalanobisDistance64 HaversineDistance64")
)
LOSSES = frozenset(
    [
        *_of("sklearn._loss._loss", "CyHalfBinomialLoss CyHalfMultinomialLoss CyExponentialLoss"),
        *_of("sklearn._loss._loss", "CyHalfSquaredError CyHuberLoss"),
        *_of("sklearn.linear_model._sgd_fast", "Hinge SquaredHinge ModifiedHuber Log Huber SquaredLoss"),
        *_of("sklearn.linear_model._sgd_fast", "EpsilonInsensitive SquaredEpsilonInsensitive"),
    ]
)
CLASSIFIERS = frozenset(
    [
        *_of("sklearn.calibration", "CalibratedClassifierCV"),
        *_of("sklearn.discriminant_analysis", "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis"),
        *_of("sklearn.dummy", "DummyClassifier"),
        *_of("sklearn.ensemble._bagging", "BaggingClassifier"),
        *_of("sklearn.ensemble._forest", "ExtraTreesClassifier RandomForestClassifier"),
        *_of("sklearn.ensemble._gb", "GradientBoostingClassifier"),
        *_of("sklearn.ensemble._hist_gradient_boosting.gradient_boosting", "HistGradientBoostingClassifier"),
        *_of("sklearn.ensemble._stacking", "StackingClassifier"),
        *_of("sklearn.ensemble._voting", "VotingClassifier"),
        *_of("sklearn.ensemble._weight_boosting", "AdaBoostClassifier"),
        *_of("sklearn.gaussian_process._gpc", "GaussianProcessClassifier"),
        *_of("sklearn.linear_model._logistic", "LogisticRegression LogisticRegressionCV"),
        *_of("sklearn.linear_model._passive_aggressive", "PassiveAggressiveClassifier"),
        *_of("sklearn.linear_model._perceptron", "Perceptron"),
        *_of("sklearn.linear_model._ridge", "RidgeClassifier RidgeClassifierCV"),
        *_of("sklearn.linear_model._stochastic_gradient", "SGDClassifier"),
        *_of("sklearn.model_selection._classification_threshold", "FixedThresholdClassifier"),
        *_of("sklearn.multiclass", "OneVsOneClassifier OneVsRestClassifier OutputCodeClassifier"),
        *_of("sklearn.naive_bayes", "BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB"),
        *_of("sklearn.neighbors._classification", "KNeighborsClassifier RadiusNeighborsClassifier"),
        *_of("sklearn.neighbors._nearest_centroid", "NearestCentroid"),
        *_of("sklearn.neural_network._multilayer_perceptron", "MLPClassifier"),
        *_of("sklearn.semi_supervised._label_propagation", "LabelPropagation LabelSpreading"),
        *_of("sklearn.semi_supervised._self_training", "SelfTrainingClassifier"),
        *_of("sklearn.svm._classes", "LinearSVC NuSVC SVC"),
        *_of("sklearn.tree._classes", "DecisionTreeClassifier ExtraTreeClassifier"),
    ]
)
PARTS = frozenset(
    [
        *_of("sklearn._loss.link", "Interval IdentityLink LogitLink HalfLogitLink MultinomialLogit"),
        *_of("sklearn._loss.loss", "ExponentialLoss HalfBinomialLoss HalfMultinomialLoss"),
        *_of("sklearn.calibration", "_CalibratedClassifier _SigmoidCalibration"),
        *_of("sklearn.decomposition._pca", "PCA"),
        *_of("sklearn.ensemble._hist_gradient_boosting.binning", "_BinMapper"),
        *_of("sklearn.gaussian_process._gpc", "_BinaryGaussianProcessClassifierLaplace"),
        *_of("sklearn.gaussian_process.kernels", "CompoundKernel ConstantKernel DotProduct ExpSineSquared"),
        *_of("sklearn.gaussian_process.kernels", "Exponentiation Matern Product RBF RationalQuadratic Sum WhiteKernel"),
        *_of("sklearn.isotonic", "IsotonicRegression"),
        *_of("sklearn.multiclass", "_ConstantPredictor"),
        *_of("sklearn.neighbors._unsupervised", "NearestNeighbors"),
        *_of("sklearn.neural_network._stochastic_optimizers", "AdamOptimizer SGDOptimizer"),
        *_of("sklearn.pipeline", "Pipeline"),
        *_of("sklearn.preprocessing._data", "MaxAbsScaler MinMaxScaler Normalizer RobustScaler StandardScaler"),
        *_of("sklearn.preprocessing._label", "LabelBinarizer LabelEncoder"),
        *_of("sklearn.tree._classes", "DecisionTreeRegressor ExtraTreeRegressor"),
    ]
)
OBJECTS = CLASSIFIERS | PARTS | DISTANCES | UNCHECKED | {KD_TREE, BALL_TREE, PREDICTOR}
