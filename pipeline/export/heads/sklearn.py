"""Classifiers of scikit-learn as nodes: linear ones as they are, others by skl2onnx, checked on random rows."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import UsageError
from featurecache.classify.arrays.array_types import AnyArray
from featurecache.export.heads.softmax import Answers, answers_by_scores
from featurecache.export.nodes import OPSET, Nodes

if TYPE_CHECKING:
    import onnx

# Trees take float64 from this version of the operators of machine learning on.
ML = "ai.onnx.ml"
ML_OPSET = 3
# The input of a converted classifier.
ROWS = "rows"
# The severity from which onnxruntime writes a line.
FATAL = 4
# Rows that a converted classifier is checked on, and how far its numbers may be from scikit-learn's.
N_CHECKED = 256
NEAR = 1e-4
# Labels may differ where two classes are equally likely but for rounding.
MOST_OTHER_LABELS = 0.02


def sklearn_answers(nodes: Nodes, head: Any, features: str, n_features: int) -> Answers:
    """Add what a `ForeignHead` answers: its own probabilities, those of its scores, or 1 for its label.

    Raises UsageError where skl2onnx is missing, cannot convert the classifier, or gives other numbers than it.
    """
    if _is_linear(head.estimator_):
        return _linear_answers(nodes, head, features)
    model, is_wide = _converted(head, n_features)
    label, *_, found = nodes.include(model, {ROWS: nodes.cast(features, np.float64) if is_wide else features}).values()
    known = nodes.constant(head.estimator_.classes_[None, :], np.int64)
    is_class = nodes.cast(nodes.add("Equal", nodes.add("Reshape", label, nodes.axes(-1, 1)), known), np.float64)
    codes = nodes.add("ArgMax", is_class, axis=1, keepdims=0)
    kind = _kind(head.estimator_)
    if kind == "labels":
        return Answers(is_class, codes)
    if kind == "probabilities":
        return Answers(_without_dust(nodes, model, found), codes)
    own = answers_by_scores(nodes, _class_columns(nodes, found, len(head.classes_)), head.temperature)
    return Answers(own.proba, codes, own.scores, own.temperature)


def _kind(estimator: Any) -> str:
    """Return what a `ForeignHead` makes probabilities of."""
    if hasattr(estimator, "predict_proba"):
        return "probabilities"
    return "scores" if hasattr(estimator, "decision_function") else "labels"


def _is_linear(estimator: Any) -> bool:
    """Return whether the scores are X coef^T + intercept, and the probabilities, if it has some, their softmax."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression
    from sklearn.linear_model._base import LinearClassifierMixin

    if not isinstance(estimator, LinearClassifierMixin):
        return False
    if isinstance(estimator, LogisticRegression):
        return estimator.solver != "liblinear" or len(estimator.classes_) == 2
    return isinstance(estimator, LinearDiscriminantAnalysis) or not hasattr(estimator, "predict_proba")


def _linear_answers(nodes: Nodes, head: Any, features: str) -> Answers:
    estimator = head.estimator_
    coef = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    wide = nodes.add("MatMul", nodes.cast(features, np.float64), nodes.constant(coef.T, np.float64))
    intercept = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64), len(coef))
    scores = nodes.add("Add", wide, nodes.constant(intercept, np.float64))
    own = answers_by_scores(nodes, _class_columns(nodes, scores, len(head.classes_)), head.temperature)
    # `temper_head` tempers probabilities that are the classifier's own.
    return own if _kind(estimator) == "scores" else Answers(own.proba, own.codes)


def _class_columns(nodes: Nodes, scores: str, n_classes: int) -> str:
    """Add the scores of two classes, the last column, as (0, s), float64; leave others as they are."""
    wide = nodes.cast(scores, np.float64)
    if n_classes > 2:
        return wide
    last = nodes.add("Gather", wide, nodes.axes(-1), axis=1)
    return nodes.add("Mul", last, nodes.constant([[0.0, 1.0]], np.float64))


def _without_dust(nodes: Nodes, model: onnx.ModelProto, proba: str) -> str:
    """Add probabilities as float64, and as zero where float32 has nothing but rounding, as in 1 less the others."""
    from onnx import TensorProto

    wide = nodes.cast(proba, np.float64)
    if model.graph.output[-1].type.tensor_type.elem_type == TensorProto.DOUBLE:
        return wide
    is_some = nodes.add("Greater", wide, nodes.constant(2 * np.finfo(np.float32).eps, np.float64))
    return nodes.add("Where", is_some, wide, nodes.constant(0.0, np.float64))


def _converted(head: Any, n_features: int) -> tuple[onnx.ModelProto, bool]:
    """Return the estimator of a head as a model that answers as it does, and whether it takes float64.

    Raises UsageError for one that cannot be converted.
    """
    estimator = head.estimator_
    rows = np.random.default_rng(0).normal(size=(N_CHECKED, n_features)).astype(np.float32)
    rows = np.abs(rows) if _needs_positive(estimator, rows) else rows
    reason = ""
    for is_wide in (True, False):
        try:
            with _silenced():
                model = _convert(estimator, n_features, is_wide=is_wide)
                reason = _difference(model, estimator, rows.astype(np.float64) if is_wide else rows)
        except ImportError as error:
            raise UsageError(
                f"{type(estimator).__name__} is a classifier of scikit-learn, and its export needs skl2onnx, which is "
                "not installed: `pip install 'featurecache[export]'`."
            ) from error
        except Exception as error:  # noqa: BLE001 skl2onnx and onnxruntime raise many kinds for what they lack
            reason = reason or " ".join(str(error).split())[:160].rstrip(". ") or type(error).__name__
            continue
        if not reason:
            return model, is_wide
    raise UsageError(
        f"{type(estimator).__name__} cannot be exported ({reason}): choose another head with --head, such as logistic."
    )


def _needs_positive(estimator: Any, rows: AnyArray) -> bool:
    try:
        estimator.predict(rows)
    except ValueError:
        return True
    return False


def _convert(estimator: Any, n_features: int, *, is_wide: bool) -> onnx.ModelProto:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    numbers = DoubleTensorType if is_wide else FloatTensorType
    options: list[dict[str, Any]] = [{"zipmap": False}, {}]
    if _kind(estimator) == "scores":
        options.insert(0, {"zipmap": False, "raw_scores": True})
    for each in options:
        with contextlib.suppress(NameError):  # an option that this classifier's converter does not have
            model: onnx.ModelProto = to_onnx(
                estimator,
                initial_types=[(ROWS, numbers([None, n_features]))],
                options={id(estimator): each} if each else None,
                target_opset={"": OPSET, ML: ML_OPSET},
            )
            return model
    raise NameError("its converter has none of the usual options")


def _difference(model: onnx.ModelProto, estimator: Any, rows: AnyArray) -> str:
    """Return in what a converted model answers rows (M, D) otherwise than the estimator; empty for nothing."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = FATAL, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {ROWS: rows})
    if (found[0] != estimator.predict(rows)).mean() > MOST_OTHER_LABELS:
        return "converted by skl2onnx it gives other labels"
    kind = _kind(estimator)
    if kind == "labels":
        return ""
    wanted = estimator.predict_proba(rows) if kind == "probabilities" else estimator.decision_function(rows)
    ours = np.asarray(found[1])
    ours = ours.reshape(len(ours), -1)[:, -1] if wanted.ndim == 1 else ours
    if ours.shape != wanted.shape:
        return "converted by skl2onnx it has other columns"
    largest = float(np.abs(ours - wanted).max() / max(1.0, float(np.abs(wanted).max())))
    return "" if largest <= NEAR else f"converted by skl2onnx its {kind} differ by up to {largest:.2g}"


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Suppress warnings and messages of the converter, which concern its internals; failures raise exceptions."""
    logger = logging.getLogger("skl2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
