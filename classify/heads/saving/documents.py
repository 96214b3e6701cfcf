"""head.json: its keys, reading within bounds, and values that JSON cannot express."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypedDict

import numpy as np

from featurecache.base.errors import SavedHeadError

# The names and meta of 100,000 classes take 10 MB.
MOST_BYTES = 2**26
AGAIN = "train and save it again."


class HeadDocument(TypedDict, total=False):
    """head.json: `file` holds what was learned beyond `learned`; `versions`: those of the libraries it was saved by."""

    format: int
    name: str
    file: str
    params: dict[str, Any]
    learned: dict[str, Any]
    sha256: str
    versions: dict[str, str | None]
    meta: dict[str, Any]


def check_regular(path: Path) -> None:
    """Raise SavedHeadError for a link, which may lead anywhere, and for what is no regular file, such as a pipe."""
    if path.is_symlink() or not S_ISREG(path.lstat().st_mode):
        raise SavedHeadError(f"{path} is a link or not a regular file: copy the head itself to that place.")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises SavedHeadError if it is no JSON, too large or nested too deep."""
    try:
        check_regular(path)
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise SavedHeadError(f"{path.parent} holds no {path.name}: name a folder that was saved as a head.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SavedHeadError(f"{path} cannot be read ({error}): {AGAIN}") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def json_value(value: Any) -> Any:
    """Return a value as JSON has it: numpy's numbers as Python's, NaN and infinity as null."""
    if isinstance(value, np.generic):
        return json_value(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {json_value(key): json_value(each) for key, each in value.items()}
    return [json_value(each) for each in value] if isinstance(value, list | tuple) else value


def textual(value: Any) -> Any:
    """Return a learned value that is no array of numbers; an array of text becomes {"text": [...]}."""
    if isinstance(value, np.ndarray):
        return {"text": value.tolist(), "dtype": "object" if value.dtype.kind == "O" else "str"}
    return value


def restored(value: Any) -> Any:
    """Return what `textual` was given; raises ValueError for an array of anything but text."""
    if not isinstance(value, dict):
        return value
    if value["dtype"] not in ("object", "str"):
        raise ValueError(f"an array of {value['dtype']!r} is not something a head learns")
    return np.array(value["text"], dtype=value["dtype"])


def keyed(value: Any) -> Any:
    """Return a parameter; a mapping whose keys JSON would turn into text becomes {"pairs": [[key, value], ...]}."""
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        return {"pairs": list(value.items())}
    return value


def rekeyed(value: Any) -> Any:
    """Return what `keyed` was given."""
    # The weight of a class called "pairs" would be a number.
    is_keyed = isinstance(value, dict) and isinstance(value.get("pairs"), list)
    return dict(value["pairs"]) if is_keyed else value
