"""A fitted head as a folder, without pickle.

    head.json           format, head name, parameters, learned values that are not arrays, the caller's meta, SHA-256,
                        library versions; a number that is none, such as an infinite slope, is null there
    head.safetensors    every learned array exactly, so that predictions after loading are the same to the bit
    head.skops          instead, for a scikit-learn classifier: the fitted estimator alone

The folder is written under a temporary name next to its place, loaded once and compared with what was saved, then
renamed: it appears complete or not at all. A folder from elsewhere is not trusted: nothing in it names code of this
package, learned values are checked against the table `learned` of the head, a head.skops may contain only types on a
list of exact names (`classify.heads.saving.skops_types`), and arrays that compiled code reads are checked first
(`classify.heads.saving.compiled`).

Format 1: as here, but head.skops holds the ForeignHead. Format 2, of scikit-learn's classifiers only: the estimator.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from stat import S_IMODE
from typing import Any

import numpy as np

from featurecache.base.errors import SavedHeadError
from featurecache.base.files import replacing_folder
from featurecache.base.versions import installed_version
from featurecache.classify.arrays.array_types import AnyArray
from featurecache.classify.heads.fitted.build import empty_head
from featurecache.classify.heads.saving.documents import (
    AGAIN,
    HeadDocument,
    check_regular,
    json_value,
    keyed,
    read_json,
    rekeyed,
    restored,
    textual,
)
from featurecache.classify.heads.saving.mapped_arrays import mapped_arrays
from featurecache.classify.heads.saving.sameness import first_difference
from featurecache.classify.heads.shared.learned import OPTIONAL_LEARNED, check_fitted
from featurecache.classify.heads.table import HEADS, build_head

FORMATS = (1, 2)
OWN_FORMAT, FOREIGN_FORMAT = FORMATS
FOREIGN = "foreign"
# Parameters that heads of this format did not always have, and what those without them were fitted with.
BEFORE: Mapping[str, Mapping[str, Any]] = {
    "mlp": {"label_smoothing": 0.0},
    "lda": {"temperature": 1.0},
    "knn": {"temperature": 1.0},
}
# From a head.safetensors, its arrays by name.
ReadArrays = Callable[[Path], dict[str, AnyArray]]
# From the name of a head and its parameters, the head without learned values.
EmptyHead = Callable[[str, Mapping[str, Any]], Any]
RECORDED_LIBRARIES = ("featurecache", "numpy", "scikit-learn", "scipy", "safetensors", "skops")


@dataclass(frozen=True)
class LoadedHead:
    """A fitted head from a folder, the meta that it was saved with, and notes for its user."""

    head: Any
    meta: dict[str, Any]
    notes: tuple[str, ...] = ()


def save_head(head: Any, root: Path, *, meta: Mapping[str, Any]) -> None:
    """Write a fitted head and its JSON-able meta as the folder `root`, replacing what is there.

    Raises SavedHeadError for a head that is not fitted, or that could not be loaded again as it is.
    """
    root = Path(root)
    with replacing_folder(root, is_durable=False) as fresh:
        document = _write_learned(head, fresh)
        path = fresh / document["file"]
        versions = {name: installed_version(name) for name in RECORDED_LIBRARIES}
        document |= {"sha256": _digest(path), "versions": versions, "meta": dict(meta)}
        text = json.dumps(json_value(document), indent=2, allow_nan=False)
        (fresh / "head.json").write_text(text + "\n", encoding="utf-8")
        # safetensors keeps its files to their owner.
        path.chmod(S_IMODE((fresh / "head.json").stat().st_mode))
        _check_written(head, fresh)


def load_head(root: Path, *, trust: bool = False) -> LoadedHead:
    """Read the folder `root` that `save_head` wrote.

    trust: give compiled code of scikit-learn the arrays of its classifier unchecked. A hostile head could then crash
    the process or read its memory, though never run code of its own.

    Raises SavedHeadError, whatever is in the folder: where it is missing, damaged, of another format, names types that
    no head needs, or holds values that no head has learned.
    """
    from safetensors.numpy import load_file

    return _load(Path(root), trust=trust, read_arrays=load_file, empty=_unfitted)


def load_fitted(root: Path, *, trust: bool = False) -> LoadedHead:
    """Read the same folder to predict only: a head of the table comes without scikit-learn (`classify.heads.fitted`).

    Raises SavedHeadError as `load_head` does.
    """
    from safetensors.numpy import load_file

    return _load(Path(root), trust=trust, read_arrays=load_file, empty=empty_head)


def _load(root: Path, *, trust: bool, read_arrays: ReadArrays, empty: EmptyHead) -> LoadedHead:
    document = _read_document(root)
    try:
        path = _whole_file(root, document)
        if document["name"] == FOREIGN:
            head, notes = _load_foreign(document, path, trust=trust)
        else:
            head, notes = _load_own(document, path, read_arrays, empty), ()
        return LoadedHead(head, dict(document["meta"]), notes)
    except SavedHeadError:
        raise
    except Exception as error:
        raise SavedHeadError(f"{root} is not a complete head ({type(error).__name__}: {error}): {AGAIN}") from error


def check_saved(root: Path) -> None:
    """Raise SavedHeadError where the file of a saved head is missing or not the one that was saved; loads nothing."""
    document = _read_document(Path(root))
    try:
        _whole_file(Path(root), document)
    except (OSError, KeyError) as error:
        raise SavedHeadError(f"{root} is not a complete head ({type(error).__name__}: {error}): {AGAIN}") from error


def _whole_file(root: Path, document: HeadDocument) -> Path:
    path = root / document["file"]
    check_regular(path)
    if _digest(path) != document["sha256"]:
        raise SavedHeadError(f"{path} is damaged, its SHA-256 differs: {AGAIN}")
    return path


def load_meta(root: Path) -> dict[str, Any]:
    """Return the meta that a head was saved with, without loading it. Raises SavedHeadError as `load_head` does."""
    meta = _read_document(Path(root)).get("meta")
    if not isinstance(meta, dict):
        raise SavedHeadError(f"{root} is not a complete head (it has no meta): {AGAIN}")
    return meta


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _write_learned(head: Any, folder: Path) -> HeadDocument:
    """Write what a fitted head learned into a file of the folder; return the first part of its head.json."""
    if not hasattr(head, "classes_"):
        raise SavedHeadError(f"{type(head).__name__} is not fitted: fit it before it is saved.")
    name = _name_of(head)
    learned = _learned(head)
    if name == FOREIGN:
        from featurecache.classify.heads.saving.sklearn_file import dump_estimator

        (folder / "head.skops").write_bytes(dump_estimator(head.estimator_))
        values = {key: learned[key] for key in ("n_features_in_", "converged_", "note_")}
        params = {"temperature": head.temperature}
        return {"format": FOREIGN_FORMAT, "name": FOREIGN, "file": "head.skops", "params": params, "learned": values}
    from safetensors.numpy import save_file

    arrays = {key: np.ascontiguousarray(value) for key, value in learned.items() if _is_numeric(value)}
    save_file(arrays, folder / "head.safetensors")
    values = {key: textual(value) for key, value in learned.items() if key not in arrays}
    params = {key: keyed(value) for key, value in head.get_params(deep=False).items()}
    return {"format": OWN_FORMAT, "name": name, "file": "head.safetensors", "params": params, "learned": values}


def _check_written(head: Any, fresh: Path) -> None:
    """Load what was just written; raises SavedHeadError where that fails, or gives another head."""
    # Its arrays come from here: whether they may be given to compiled code is asked where it is loaded. They stay in
    # their file, for they may be as large as the features.
    loaded = _load(fresh, trust=True, read_arrays=mapped_arrays, empty=_unfitted).head
    difference = first_difference(json_value(_params_and_learned(head)), json_value(_params_and_learned(loaded)))
    if difference:
        raise SavedHeadError(
            f"{type(head).__name__} cannot be saved: its {difference} comes back as another value. Leave it out."
        )


def _params_and_learned(head: Any) -> dict[str, Any]:
    """Return the parameters and learned values of a head; of an estimator among the parameters the fitted one only."""
    return {key: value for key, value in head.get_params(deep=False).items() if key != "estimator"} | _learned(head)


def _learned(head: Any) -> dict[str, Any]:
    return {key: value for key, value in vars(head).items() if key.endswith("_")}


def _name_of(head: Any) -> str:
    location = f"{type(head).__module__}:{type(head).__name__}"
    return next((info.name for info in HEADS.values() if info.location == location), FOREIGN)


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _read_document(root: Path) -> HeadDocument:
    path = root / "head.json"
    document = read_json(path)
    found = document.get("format") if isinstance(document, dict) else None
    if type(found) is not int or found not in FORMATS:
        raise SavedHeadError(f"{path} has format {found!r}, this version reads 1 and 2: {AGAIN}")
    is_foreign = document.get("name") == FOREIGN
    if document.get("file") != ("head.skops" if is_foreign else "head.safetensors"):
        raise SavedHeadError(f"{path} names the file {document.get('file')!r}, which no such head has: {AGAIN}")
    checked: HeadDocument = document
    return checked


def _unfitted(name: str, params: Mapping[str, Any]) -> Any:
    """Return the estimator of a head with these parameters."""
    return build_head(name).set_params(**params)


def _load_own(document: HeadDocument, path: Path, read_arrays: ReadArrays, empty: EmptyHead) -> Any:
    from safetensors import SafetensorError

    if document["name"] not in HEADS:
        raise SavedHeadError(f"The head '{document['name']}' is unknown to this version: {AGAIN}")
    try:
        arrays = read_arrays(path)
    except SafetensorError as error:
        raise SavedHeadError(f"head.safetensors cannot be read ({error}): {AGAIN}") from error
    params = {key: rekeyed(value) for key, value in document["params"].items()}
    head = empty(document["name"], {**BEFORE.get(document["name"], {}), **params})
    for key, value in {**arrays, **document["learned"]}.items():
        if key not in head.learned and key not in OPTIONAL_LEARNED:
            raise SavedHeadError(f"'{key}' is not something a head learns: {AGAIN}")
        setattr(head, key, restored(value))
    check_fitted(head)
    return head


def _load_foreign(document: HeadDocument, path: Path, *, trust: bool) -> tuple[Any, tuple[str, ...]]:
    """Return a classifier of scikit-learn as a head, and what there is to say about it."""
    from sklearn.base import clone

    from featurecache.classify.heads.saving.sklearn_file import build_estimator, read_foreign, try_out
    from featurecache.classify.heads.sklearn_head import ForeignHead

    read = read_foreign(path.read_bytes(), is_wrapped=document["format"] == 1)  # once: what is built is what was read
    kept = read.learned if document["format"] == 1 else {**document["params"], **document["learned"]}
    saved_by = read.sklearn_version or document.get("versions", {}).get("scikit-learn")
    estimator = build_estimator(read, trust=trust)
    head = ForeignHead(clone(estimator), temperature=kept["temperature"])
    head.classes_ = np.asarray(estimator.classes_)
    for key in ("n_features_in_", "converged_", "note_"):
        setattr(head, key, kept[key])
    check_fitted(head)
    head.estimator_ = estimator
    try_out(head)
    return head, _version_notes(estimator, saved_by)


def _version_notes(estimator: Any, saved_by: Any) -> tuple[str, ...]:
    here = installed_version("scikit-learn")
    if saved_by is None or saved_by == here:
        return ()
    name = type(estimator).__name__
    return (
        f"The head {name} was saved by scikit-learn {saved_by} and is used by {here}, which may predict differently: "
        f"install scikit-learn {saved_by}, or classify again.",
    )
