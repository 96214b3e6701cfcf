"""Grids of settings: those of the table of heads, with the values that a user gives in place of their own.

given: {head: {parameter: values}}, as from "logistic.C=0.1,1". One value fixes a parameter, several are its axis of the
grid; a parameter that the table does not try becomes a new axis.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from typing import Any

from featurecache.base.errors import BadSetting, UnknownHead
from featurecache.classify.heads.table import CLASS_WEIGHTS, HEADS, build_head, head_grid, head_parameters

Given = Mapping[str, Mapping[str, Sequence[Any]]]
Grid = list[dict[str, Any]]
NO_WEIGHT = CLASS_WEIGHTS[0]
WORDS: Mapping[str, object] = {"none": None, "null": None, "true": True, "false": False}
# 512x256, sizes of layers.
SIZES = re.compile(r"\d+(x\d+)+")
DEVICES = re.compile(r"cpu|mps|cuda(:\d+)?")
OPENING, CLOSING, QUOTES = "([{", ")]}", "\"'"
# A value that is this part nearer to the end of what is possible is taken as beyond it.
STEP = 1e-6


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """Return {head: {parameter: values}} of texts HEAD.NAME=VALUE[,VALUE...]; the last dot before = divides.

    A value is a number, true, false, none, a text, a list such as [512,256] or 512x256; a text with commas is quoted.
    Raises BadSetting for a text of another form and for a parameter that is given twice.
    """
    given: dict[str, dict[str, list[Any]]] = {}
    for text in texts:
        place, equals, values = text.partition("=")
        head, _, name = place.strip().rpartition(".")
        if not (equals and head and name):
            raise BadSetting(f"'{text}' is not HEAD.NAME=VALUE[,VALUE...]: give one such as logistic.C=0.1,1,10.")
        if name in given.setdefault(head, {}):
            raise BadSetting(f"{head}.{name} is given twice: give all its values at once, with commas between them.")
        given[head][name] = [_literal(each, text) for each in _split(values)]
    return given


def format_settings(given: Given) -> list[str]:
    """Return the texts that `parse_settings` reads as this."""
    return [
        f"{head}.{name}={','.join(map(_text, values))}"
        for head, parameters in given.items()
        for name, values in parameters.items()
    ]


def listed_settings(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """Return the same with a list for each parameter: a list holds several values, anything else is one."""
    return {
        head: {name: list(value) if isinstance(value, list) else [value] for name, value in parameters.items()}
        for head, parameters in given.items()
    }


def build_grids(heads: Sequence[str], given: Given, class_weight: str = NO_WEIGHT) -> dict[str, Grid]:
    """Return the settings that a sweep of each head tries, the simplest first, every one of them checked.

    class_weight: "balanced" for every head that weighs classes and is not given another; see `weighs_classes`. Raises
    UnknownHead for a head that is not among the heads and a parameter that a head does not have, with the nearest
    names, BadSetting for a value that is not possible.
    """
    for head in given:
        if head not in heads:
            raise UnknownHead(
                f"Parameters are given for the head '{head}', which is not among those to train: "
                f"{_nearest(head, heads)}."
            )
    return {head: build_grid(head, given.get(head, {}), class_weight) for head in heads}


def build_grid(head: str, given: Mapping[str, Sequence[Any]], class_weight: str = NO_WEIGHT) -> Grid:
    """Return the settings of one head, as `build_grids` does, which raises what this does.

    Values of an axis that the table has as numbers are put in its order; others stay in the order given.
    """
    known = head_parameters(head)
    for name in given:
        if name not in known:
            raise UnknownHead(f"The head '{head}' has no parameter '{name}' to give: {_nearest(name, list(known))}.")
    axes: dict[str, list[Any]] = {}
    for setting in head_grid(head):
        for name, value in setting.items():
            axes[name] = [*axes.get(name, []), *([] if value in axes.get(name, []) else [value])]
    for name, values in given.items():
        meant = {repr(each): each for each in (_as_meant(head, name, value, known[name]) for value in values)}
        if not meant:
            raise BadSetting(f"{head}.{name} is given no value.")
        axes[name] = _in_order(list(meant.values()), axes.get(name, []))
    if class_weight != NO_WEIGHT and "class_weight" in known and "class_weight" not in given:
        axes["class_weight"] = [class_weight]
    grid = [dict(zip(axes, setting, strict=True)) for setting in product(*axes.values())]
    if given or class_weight != NO_WEIGHT:
        _check(head, grid)
    return grid


def weighs_classes(head: str) -> bool:
    """Return whether a head can weigh classes: all of the table do, of scikit-learn's those with class_weight."""
    return "class_weight" in head_parameters(head)


def is_last(head: str, name: str, value: float, *, upwards: bool) -> bool:
    """Return whether a parameter cannot be any larger (or smaller) than a value: a grid that ends there is whole."""
    sign = 1 if upwards else -1
    beyond: list[float] = [value + sign * STEP * (abs(value) or 1.0), *([value + sign] if value == int(value) else [])]
    return not any(_is_possible(head, {name: each}) for each in beyond)


def _is_possible(head: str, setting: dict[str, Any]) -> bool:
    try:
        _check(head, [setting])
    except (BadSetting, UnknownHead):
        return False
    return True


def _check(head: str, grid: Grid) -> None:
    """Raise BadSetting for the first setting that no fit would take, or those that cannot be tried together."""
    from featurecache.classify.heads.shared.parameters import check_common, check_parameters

    try:
        built = [build_head(head, **setting) for setting in grid]
        for one, setting in zip(built, grid, strict=True):
            if head not in HEADS:
                one.estimator._validate_params()  # what its fit begins with
                continue
            check_parameters(one)
            if setting.get("class_weight") not in (None, "balanced"):
                raise ValueError(f"class_weight={setting['class_weight']!r} is unknown: use none or balanced.")
            if not DEVICES.fullmatch(str(setting.get("device", "cpu"))):
                raise ValueError(f"device={setting['device']!r} is unknown: use cpu, mps, cuda or such as cuda:1.")
        check_common(built)
    except (ValueError, TypeError) as error:
        raise BadSetting(f"{head}: {error}") from error


def _as_meant(head: str, name: str, value: Any, default: Any) -> Any:
    """Return a value in the type of its parameter where that changes nothing: 1 for C is 1.0, 1e2 for k is 100."""
    if isinstance(value, list):
        value = tuple(value)
    if head not in HEADS:
        return (value,) if isinstance(default, tuple) and type(value) is int else value
    from featurecache.classify.heads.shared.parameters import Range

    allowed = build_head(head).allowed.get(name)
    if not isinstance(allowed, Range) or type(value) not in (int, float):
        return value
    if allowed.whole:
        return int(value) if value == value // 1 else value
    return float(value) if abs(value) < 2**53 else value


def _in_order(values: list[Any], own: Sequence[Any]) -> list[Any]:
    """Return values in the order of the table's own, where all are numbers."""
    if len(own) < 2 or not all(type(each) in (int, float) for each in [*values, *own]):
        return values
    return sorted(values, reverse=own[0] > own[-1])


def _split(text: str) -> list[str]:
    """Return the parts between the commas of a text that are in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in QUOTES:
            quote = sign
        else:
            depth += (sign in OPENING) - (sign in CLOSING)
        if sign == "," and not quote and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _literal(text: str, whole: str) -> Any:
    word = text.strip()
    if word.lower() in WORDS:
        return WORDS[word.lower()]
    if SIZES.fullmatch(word):
        return tuple(map(int, word.split("x")))
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None if not word or word[0] in OPENING + QUOTES else word
    value = tuple(value) if isinstance(value, list) else value
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(each, int | float | str) for each in parts):
        raise BadSetting(
            f"'{word}' in '{whole}' is no value: give a number, true, false, none, a text or a list such as 512x256."
        )
    return value


def _text(value: Any) -> str:
    """Return a value as `_literal` reads it."""
    if isinstance(value, tuple | list):
        is_short = len(value) > 1 and all(type(each) is int and each >= 0 for each in value)
        return "x".join(map(str, value)) if is_short else json.dumps(list(value), separators=(",", ":"))
    if not isinstance(value, str):
        return str(value).lower() if value is None or isinstance(value, bool) else repr(value)
    is_plain = re.fullmatch(r"[\w./:+-]+", value) and _literal(value, "") == value
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _nearest(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=3, cutoff=0.4)
    if near:
        return f"did you mean {' or '.join(near)}? There are {', '.join(names)}"
    return f"there are {', '.join(names)}"
