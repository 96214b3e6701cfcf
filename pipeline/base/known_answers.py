"""What requests resolve to, in the folder of the user: a new cache needs no network loaded that any other knows.

That a stored graph has passed its checks is kept here, too.

    <user folder>/networks/<SHA-256 of the question>.json    {"question", "answer"}, as the memo of a cache has them

An answer counts only while the weights file that it names is unchanged, as in the memo.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from featurecache.base.files import replacing_file
from featurecache.base.plain_files import read_json_file
from featurecache.base.user_folder import make_user_folder, user_folder

FOLDER = "networks"
# Answers that stay, the newest; one has about a kilobyte.
MOST_ANSWERS, MOST_BYTES = 200, 1 << 20


def known_answer(question: str) -> str | None:
    """Return the answer to a question; None where the user's folder has none."""
    path = _path(question)
    if path is None:
        return None
    try:
        document = read_json_file(path, path.parent, most_bytes=MOST_BYTES)
        return str(document["answer"]) if document["question"] == question else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_answer(question: str, answer: str) -> None:
    """Keep an answer for other caches, where the folder can be written."""
    path = _path(question)
    if path is None or make_user_folder() is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps({"question": question, "answer": answer}), encoding="utf-8")
        dated = sorted(((other.stat().st_mtime, other) for other in path.parent.glob("*.json")), reverse=True)
        for _, other in dated[MOST_ANSWERS:]:
            other.unlink(missing_ok=True)


def _path(question: str) -> Path | None:
    folder = user_folder()
    return None if folder is None else folder / FOLDER / f"{hashlib.sha256(question.encode()).hexdigest()}.json"
