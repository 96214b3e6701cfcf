"""A fitted head as a folder, without pickle.

    head.json           format, head name, parameters, learned values that are not arrays, the caller's meta, SHA-256;
                        a number that is none, such as an infinite slope, is null there
    head.safetensors    every learned array exactly, so that predictions after loading are the same to the bit
    head.skops          instead, for a scikit-learn classifier; its types are checked against an allow-list at loading

The folder appears whole or not at all: it is written beside its place under a temporary name and renamed.
"""

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from stat import S_IMODE
from typing import Any

import numpy as np

from classify.errors import ClassifyError, SavedHeadError
from classify.heads import HEADS, build_head

FORMAT = 1
FOREIGN = "foreign"
# Parameters that heads of this format did not always have, and what those without them were fitted with.
BEFORE: Mapping[str, Mapping[str, Any]] = {"mlp": {"label_smoothing": 0.0}}
# skops builds objects by name: only these packages may be named in a file that is loaded.
TRUSTED = ("sklearn.", "numpy.", "scipy.")


@dataclass(frozen=True)
class LoadedHead:
    """A fitted head from a folder, and the meta it was saved with."""

    head: Any
    meta: dict[str, Any]


def save_head(head: Any, root: Path, *, meta: Mapping[str, Any]) -> None:
    """Write a fitted head and its JSON-able meta as the folder `root`, replacing what is there.

    Raises SavedHeadError for a head that is not fitted, or holds what could not be loaded again.
    """
    root = Path(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        document = _write_arrays(head, fresh)
        path = fresh / document["file"]
        document |= {"format": FORMAT, "sha256": _digest(path), "meta": dict(meta)}
        text = json.dumps(_plain(document), indent=2, allow_nan=False)
        (fresh / "head.json").write_text(text + "\n", encoding="utf-8")
        # safetensors keeps its files to their owner.
        path.chmod(S_IMODE((fresh / "head.json").stat().st_mode))
        if root.exists():
            root.rename(Path(scratch) / "replaced")
        fresh.rename(root)


def load_head(root: Path) -> LoadedHead:
    """Read the folder `root` that `save_head` wrote.

    Raises SavedHeadError where it is missing, damaged, of another format, or names types that are not trusted.
    """
    root = Path(root)
    document = _read_document(root)
    try:
        path = root / document["file"]
        if _digest(path) != document["sha256"]:
            raise SavedHeadError(f"{path} is damaged, its SHA-256 differs: {AGAIN}")
        head = _load_foreign(path) if document["name"] == FOREIGN else _load_own(document, path)
        return LoadedHead(head, document["meta"])
    except SavedHeadError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OSError, ClassifyError) as error:
        raise SavedHeadError(f"{root} is not a whole head ({type(error).__name__}: {error}): {AGAIN}") from error


AGAIN = "train and save it again."


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _write_arrays(head: Any, folder: Path) -> dict[str, Any]:
    """Write what a fitted head learned into a file of the folder; return the document that goes beside it."""
    if not hasattr(head, "classes_"):
        raise SavedHeadError(f"{type(head).__name__} is not fitted: fit it before it is saved.")
    name = _name_of(head)
    if name == FOREIGN:
        (folder / "head.skops").write_bytes(_dump_foreign(head))
        return {"name": FOREIGN, "file": "head.skops"}
    from safetensors.numpy import save_file

    learned = {key: value for key, value in vars(head).items() if key.endswith("_")}
    arrays = {key: np.ascontiguousarray(value) for key, value in learned.items() if _is_numeric(value)}
    save_file(arrays, folder / "head.safetensors")
    values = {key: _textual(value) for key, value in learned.items() if key not in arrays}
    params = {key: _keyed(value) for key, value in head.get_params(deep=False).items()}
    return {"name": name, "file": "head.safetensors", "params": params, "learned": values}


def _name_of(head: Any) -> str:
    location = f"{type(head).__module__}:{type(head).__name__}"
    return next((info.name for info in HEADS.values() if info.location == location), FOREIGN)


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers of numpy as Python's, those that are none as null."""
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _textual(value: Any) -> Any:
    """Return a learned value that is no array of numbers; an array of text becomes {"text": [...]}."""
    if isinstance(value, np.ndarray):
        return {"text": value.tolist(), "dtype": "object" if value.dtype.kind == "O" else "str"}
    return value


def _restored(value: Any) -> Any:
    return np.array(value["text"], dtype=value["dtype"]) if isinstance(value, dict) else value


def _keyed(value: Any) -> Any:
    """Return a parameter; a mapping whose keys JSON would turn into text becomes {"pairs": [[key, value], ...]}."""
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        return {"pairs": list(value.items())}
    return value


def _rekeyed(value: Any) -> Any:
    # The weight of a class called "pairs" would be a number.
    is_keyed = isinstance(value, dict) and isinstance(value.get("pairs"), list)
    return dict(value["pairs"]) if is_keyed else value


def _read_document(root: Path) -> dict[str, Any]:
    path = root / "head.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SavedHeadError(f"{root} holds no head.json: name a folder that was saved as a head.") from None
    except (OSError, ValueError) as error:
        raise SavedHeadError(f"{path} cannot be read ({error}): {AGAIN}") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise SavedHeadError(f"{path} has format {found!r}, this version reads {FORMAT}: {AGAIN}")
    if document.get("file") not in ("head.safetensors", "head.skops"):
        raise SavedHeadError(f"{path} names the file {document.get('file')!r}, which no head has: {AGAIN}")
    checked: dict[str, Any] = document
    return checked


def _load_own(document: Mapping[str, Any], path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if document["name"] not in HEADS:
        raise SavedHeadError(f"The head '{document['name']}' is unknown to this version: {AGAIN}")
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise SavedHeadError(f"head.safetensors cannot be read ({error}): {AGAIN}") from error
    params = {key: _rekeyed(value) for key, value in document["params"].items()}
    head = build_head(document["name"]).set_params(**{**BEFORE.get(document["name"], {}), **params})
    for key, value in {**arrays, **document["learned"]}.items():
        if not key.isidentifier() or not key.endswith("_") or key.startswith("_"):
            raise SavedHeadError(f"'{key}' is not something a head learns: {AGAIN}")
        setattr(head, key, _restored(value))
    return head


def _dump_foreign(head: Any) -> bytes:
    from skops.io import dumps

    blob: bytes = dumps(head)
    _trusted_types(blob)
    return blob


def _load_foreign(path: Path) -> Any:
    from zipfile import BadZipFile

    from skops.io import loads

    blob = path.read_bytes()  # once: what is loaded is what was checked
    try:
        return loads(blob, trusted=_trusted_types(blob))
    except BadZipFile as error:
        raise SavedHeadError(f"{path} cannot be read ({error}): {AGAIN}") from error


def _trusted_types(blob: bytes) -> list[str]:
    """Return the types in a skops file that skops itself does not vouch for; raises SavedHeadError for foreign ones."""
    from skops.io import get_untrusted_types

    types: list[str] = get_untrusted_types(data=blob)
    strange = [name for name in types if not name.startswith(TRUSTED) and name != "classify.foreign.ForeignHead"]
    if strange:
        raise SavedHeadError(
            f"The head holds {strange[0]}, which is not trusted: only scikit-learn, numpy and scipy are."
        )
    return types
