"""Words for splits: `train`, `Training`, `val_images`, `seg_test`, `dev`, ... as train, val or test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Images to predict: a split of images without labels.
UNLABELLED = "unlabelled"
SPLIT_NAMES = {
    "train": "train", "training": "train", "trn": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "dev": "val", "devel": "val",
    "development": "val",
    "test": "test", "testing": "test", "tst": "test", "eval": "test", "evaluation": "test", "holdout": "test",
    "heldout": "test",
}  # fmt: skip
_UNLABELLED = {"pred", "predict", "prediction", "unlabeled", "unlabelled", "inference"}
_ROLES = SPLIT_NAMES | dict.fromkeys(_UNLABELLED, UNLABELLED)
# Words whose split depends on the others: `eval` next to `test` is val, `dev` without any train is train.
_SECOND_TEST = {"eval", "evaluation", "holdout", "heldout"}
_DEVELOPMENT = {"dev", "devel", "development"}
# What a folder of images may be called besides its split, and what a folder around them.
FILLERS = {
    "set", "sets", "data", "dataset", "datasets", "split", "image", "images", "img", "imgs", "picture", "pictures",
    "photo", "photos", "file", "files", "folder", "sample", "samples", "all", "jpg", "jpeg", "png",
}  # fmt: skip
_GLUED = re.compile(rf"({'|'.join(sorted(_ROLES, key=len, reverse=True))})({'|'.join(sorted(FILLERS))}|s)")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]", re.UNICODE)


class Named(NamedTuple):
    """What a folder name says: the word for a split and its role, and the other words, but for fillers and numbers."""

    word: str
    role: str
    rest: tuple[str, ...]


def split_word(name: str) -> Named | None:
    """Return the split that a name has one word for; None where it has none or several."""
    whole = re.sub(r"(?i)\b(hold|held)[\W_]+out\b", r"\1out", name.replace("_", " "))
    words = [word.casefold() for word in _WORDS.findall(whole)]
    found, rest = [], []
    for word in words:
        glued = _GLUED.fullmatch(word)
        bare = glued[1] if glued else word
        if bare in _ROLES:
            found.append(bare)
        elif word not in FILLERS:
            rest.append(word)
    return Named(found[0], _ROLES[found[0]], tuple(rest)) if len(found) == 1 else None


def is_filler(name: str) -> bool:
    """Return whether a name says nothing of what is in the folder, such as `images` or `data`."""
    words = [word.casefold() for word in _WORDS.findall(name.replace("_", " "))]
    return bool(words) and all(word in FILLERS or word in _UNLABELLED or word == "unknown" for word in words)


def split_roles(names: Sequence[str]) -> dict[str, str]:
    """Return {name: train, val, test or unlabelled} of the sibling folders that are splits by their names.

    A name is one where it has no word but that of a split, or where all such names share the other words and differ in
    the split, as `seg_train` and `seg_test` do.
    """
    said = {name: found for name in names if (found := split_word(name))}
    extra = {each.rest for each in said.values() if each.rest}
    shared = len(extra) == 1 and len({each.role for each in said.values()}) > 1
    splits = {name: each for name, each in said.items() if not each.rest or shared}
    roles = {each.role for each in splits.values()}
    if roles <= {UNLABELLED}:
        return {}
    words = {each.word for each in splits.values()}
    return {name: _role_among(each, words, roles) for name, each in splits.items()}


def _role_among(each: Named, words: set[str], roles: set[str]) -> str:
    tests = {word for word in words if SPLIT_NAMES.get(word) == "test"}
    if each.word in _SECOND_TEST and "val" not in roles and tests - _SECOND_TEST:
        return "val"
    if each.word in _DEVELOPMENT and "train" not in roles and "test" in roles and words.isdisjoint({"val", "valid"}):
        return "train"
    return each.role


def mixed_names(names: Iterable[str]) -> list[str]:
    """Return names that say a split and something else at once, such as trainA and testA next to trainB."""
    said = {name: found for name in names if (found := split_word(name)) and found.rest}
    roles: dict[tuple[str, ...], set[str]] = {}
    for each in said.values():
        roles.setdefault(each.rest, set()).add(each.role)
    return [name for name, each in said.items() if len(roles[each.rest]) > 1] if len(roles) > 1 else []
