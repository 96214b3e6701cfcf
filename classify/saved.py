"""A fitted head as a folder, without pickle.

    head.json           format, head name, parameters, learned values that are not arrays, the caller's meta, SHA-256
    head.safetensors    every learned array exactly, so that predictions after loading are the same to the bit
    head.skops          instead, for a scikit-learn classifier; its types are checked against an allow-list at loading

The folder appears whole or not at all: it is written beside its place under a temporary name and renamed.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from classify.errors import ClassifyError, SavedHeadError
from classify.heads import HEADS, build_head

FORMAT = 1
FOREIGN = "foreign"
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
        document, blob = _describe(head)
        (fresh / document["file"]).write_bytes(blob)
        document |= {"format": FORMAT, "sha256": sha256(blob).hexdigest(), "meta": dict(meta)}
        (fresh / "head.json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
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
        blob = (root / document["file"]).read_bytes()
        if sha256(blob).hexdigest() != document["sha256"]:
            raise SavedHeadError(f"{root / document['file']} is damaged, its SHA-256 differs: {AGAIN}")
        head = _load_foreign(root, blob) if document["name"] == FOREIGN else _load_own(document, blob)
        return LoadedHead(head, document["meta"])
    except SavedHeadError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OSError, ClassifyError) as error:
        raise SavedHeadError(f"{root} is not a whole head ({type(error).__name__}: {error}): {AGAIN}") from error


AGAIN = "train and save it again."


def _describe(head: Any) -> tuple[dict[str, Any], bytes]:
    """Return the document of a fitted head and the content of the file beside it."""
    if not hasattr(head, "classes_"):
        raise SavedHeadError(f"{type(head).__name__} is not fitted: fit it before it is saved.")
    name = _name_of(head)
    if name == FOREIGN:
        return {"name": FOREIGN, "file": "head.skops"}, _dump_foreign(head)
    from safetensors.numpy import save

    learned = {key: value for key, value in vars(head).items() if key.endswith("_")}
    arrays = {key: np.ascontiguousarray(value) for key, value in learned.items() if _is_numeric(value)}
    values = {key: _plain(value) for key, value in learned.items() if key not in arrays}
    document = {"name": name, "file": "head.safetensors", "params": head.get_params(deep=False), "learned": values}
    return document, save(arrays)


def _name_of(head: Any) -> str:
    location = f"{type(head).__module__}:{type(head).__name__}"
    return next((info.name for info in HEADS.values() if info.location == location), FOREIGN)


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _plain(value: Any) -> Any:
    """Return a learned value as JSON: text arrays become {"text": [...]}."""
    if isinstance(value, np.ndarray):
        return {"text": value.tolist(), "dtype": "object" if value.dtype.kind == "O" else "str"}
    return value


def _restored(value: Any) -> Any:
    return np.array(value["text"], dtype=value["dtype"]) if isinstance(value, dict) else value


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


def _load_own(document: Mapping[str, Any], blob: bytes) -> Any:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if document["name"] not in HEADS:
        raise SavedHeadError(f"The head '{document['name']}' is unknown to this version: {AGAIN}")
    try:
        arrays = load(blob)
    except SafetensorError as error:
        raise SavedHeadError(f"head.safetensors cannot be read ({error}): {AGAIN}") from error
    head = build_head(document["name"]).set_params(**document["params"])
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


def _load_foreign(root: Path, blob: bytes) -> Any:
    from zipfile import BadZipFile

    from skops.io import loads

    try:
        return loads(blob, trusted=_trusted_types(blob))
    except BadZipFile as error:
        raise SavedHeadError(f"{root / 'head.skops'} cannot be read ({error}): {AGAIN}") from error


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
