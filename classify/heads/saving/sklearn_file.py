"""head.skops, a fitted scikit-learn classifier: written by skops, read by skops after checks of names and arrays."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurecache.base.errors import HeadFailed, SavedHeadError
from featurecache.classify.heads.saving.compiled import Unsound, check_compiled, type_name
from featurecache.classify.heads.saving.skops_file import Node, NotAHead, SkopsFile, plain_value, read_skops
from featurecache.classify.heads.saving.skops_types import CLASSIFIERS
from featurecache.classify.heads.sklearn_head import ForeignHead

# How heads of format 1 were saved: with the object around the estimator, by the name that its class had then.
WRAPPER = "classify.foreign.ForeignHead"
TRUST = (
    "Only if you made this head yourself, or trust who did, load it with --trust-head (in Python: trust=True): then "
    "scikit-learn gets its arrays unchecked."
)


@dataclass(frozen=True)
class ForeignFile:
    """A checked head.skops: the file, the node of the fitted estimator in it, and the other learned values."""

    file: SkopsFile
    estimator: Node
    learned: dict[str, Any]

    @property
    def sklearn_version(self) -> str | None:
        """The version of scikit-learn that the estimator was saved by, where it says so."""
        node = self.estimator["content"]["content"].get("_sklearn_version")
        return None if node is None else str(plain_value(node))


def dump_estimator(estimator: Any) -> bytes:
    """Return a fitted scikit-learn classifier as the bytes of a skops file.

    Raises SavedHeadError for one that skops cannot save, or that holds what would not be loaded.
    """
    from skops.io import dumps
    from skops.io.exceptions import UnsupportedTypeException

    try:
        blob: bytes = dumps(estimator)
        _read(blob, is_wrapped=False)
    except NotAHead as error:
        name = type(estimator).__name__
        raise SavedHeadError(f"{name} cannot be saved, for its file {error}: leave this head out.") from error
    except (UnsupportedTypeException, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SavedHeadError(f"{type(estimator).__name__} cannot be saved ({error}): leave this head out.") from error
    return blob


def read_foreign(blob: bytes, *, is_wrapped: bool = False) -> ForeignFile:
    """Read what a head.skops would build; nothing of it is built. is_wrapped: as format 1 has it, in a ForeignHead.

    Raises SavedHeadError for types and ways of building that no head needs, and for what is no classifier.
    """
    try:
        return _read(blob, is_wrapped=is_wrapped)
    except NotAHead as error:
        raise SavedHeadError(f"head.skops {error}, and is not loaded: train and save the head again.") from error


def _read(blob: bytes, *, is_wrapped: bool) -> ForeignFile:
    file = read_skops(blob, wrapper=WRAPPER if is_wrapped else "")
    node, learned = file.root, {}
    if is_wrapped:
        parts = file.root["content"]["content"]
        node = parts["estimator_"]
        learned = {key: plain_value(parts[key]) for key in LEARNED if key in parts}
    name = f"{node['__module__']}.{node['__class__']}"
    if name not in CLASSIFIERS and name != "sklearn.pipeline.Pipeline":
        raise NotAHead(f"holds {name}, which is no scikit-learn classifier")
    return ForeignFile(file, node, learned)


LEARNED = ("temperature", "n_features_in_", "converged_", "note_")


def build_estimator(read: ForeignFile, *, trust: bool) -> Any:
    """Build the estimator of a checked file. trust: give compiled code its arrays unchecked.

    Raises SavedHeadError for one that is no fitted classifier, and for arrays that could end the process.
    """
    from sklearn.base import BaseEstimator, is_classifier
    from sklearn.exceptions import InconsistentVersionWarning
    from skops.io import loads

    if read.file.unchecked and not trust:
        raise SavedHeadError(f"head.skops holds {read.file.unchecked[0]}, whose arrays are not checked. {TRUST}")
    file = read.file if read.estimator is read.file.root else read.file.only(read.estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)  # LoadedHead says it
        estimator = loads(file.blob, trusted=sorted(file.types))
    if not (isinstance(estimator, BaseEstimator) and is_classifier(estimator)):
        raise SavedHeadError(
            f"head.skops holds {type_name(estimator)}, which is no scikit-learn classifier: train and save the head "
            "again."
        )
    if not trust:
        try:
            check_compiled(estimator)
        except Unsound as error:
            raise SavedHeadError(f"head.skops could crash Python or read its memory ({error}). {TRUST}") from error
    return estimator


def try_out(head: ForeignHead) -> None:
    """Let a loaded head predict two rows of zeros, so that missing parts are found now; it may refuse such rows.

    Raises whatever scikit-learn does on attributes that are missing or of another kind.
    """
    rows = np.zeros((2, head.n_features_in_), dtype=np.float32)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            labels, proba = head.predict_both(rows)
        except HeadFailed:
            return
    if labels.shape != (2,) or proba.shape != (2, len(head.classes_)):
        raise ValueError(f"it predicts {labels.shape} labels and {proba.shape} probabilities for 2 rows")
