"""Checks of results.json and config.json, field by field, before any of it is used.

A run may be somebody else's. Fields of the wrong type, numbers that cannot be, heads that lie outside the run folder:
each is refused in a sentence that names the file and the field. Fields that no reader uses are not checked, so runs
of earlier and later versions are read alike; a reader names the fields that it needs in `needed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from featurecache.base.errors import ExtractError, PipelineError
from featurecache.base.text import printable
from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA, METRICS
from featurecache.classify.heads.table import CLASS_WEIGHTS
from featurecache.extract.cache.spec import DTYPES, NAME
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.job.request import FeatureRequest
from featurecache.runs.documents import Config, HeadRow, Results
from featurecache.runs.folder import CONFIG_FILE, FORMATS, RESULTS_FILE
from featurecache.runs.reading import read_json

# More than any data set has, and few enough to be computed with.
MOST_ROWS = 1 << 40


@dataclass(frozen=True)
class Kind:
    """A kind of value: the test for it, and its description."""

    is_one: Callable[[Any], bool]
    description: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_end(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


TEXT = Kind(_is_text, "a text")
WORD = Kind(lambda v: isinstance(v, str) and NAME.fullmatch(v) is not None, "a name without a slash")
TEXT_OR_NONE = Kind(lambda v: v is None or _is_text(v), "a text or nothing")
FLAG = Kind(lambda v: isinstance(v, bool), "true or false")
COUNT = Kind(lambda v: type(v) is int and 0 <= v <= MOST_ROWS, "a whole number of 0 or more")
COUNT_OR_NONE = Kind(lambda v: v is None or COUNT.is_one(v), "a whole number of 0 or more, or nothing")
POSITIVE = Kind(lambda v: type(v) is int and 1 <= v <= MOST_ROWS, "a whole number of 1 or more")
SEED = Kind(lambda v: type(v) is int and 0 <= v < 1 << 32, "a seed")
NUMBER = Kind(_is_number, "a number")
NUMBER_OR_NONE = Kind(lambda v: v is None or _is_number(v), "a number or nothing")
SECONDS = Kind(lambda v: _is_number(v) and v >= 0, "a number of 0 or more")
SHARE = Kind(lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1")
SHARE_OR_NONE = Kind(lambda v: v is None or SHARE.is_one(v), "a number from 0 to 1, or nothing")
INTERVAL = Kind(
    lambda v: isinstance(v, list) and len(v) == 2 and all(map(SHARE.is_one, v)) and v[0] <= v[1], "an interval in 0..1"
)
LIMITS = Kind(
    lambda v: (
        isinstance(v, dict) and all(isinstance(e, list) and len(e) == 2 and all(map(_is_end, e)) for e in v.values())
    ),
    "intervals",
)
ABOUT = Kind(lambda v: isinstance(v, dict) and all(map(_is_text, v.values())), "an object of texts")
FLOOR = Kind(lambda v: _is_number(v) and 0 <= v < 1, "a probability below 1")
OBJECT = Kind(lambda v: isinstance(v, dict), "an object")
FORMAT = Kind(lambda v: type(v) is int and v in FORMATS, f"format {' or '.join(map(str, FORMATS))}")
DTYPE = Kind(lambda v: v is None or v in DTYPES, " or ".join(DTYPES))


def _is_value(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _are_params(value: Any) -> bool:
    """Whether it is {head: {parameter: values}}, a value being plain or a list of plain ones."""
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        return False
    values = [found for each in value.values() for found in each.values()]
    return all(
        isinstance(found, list)
        and all(_is_value(one) or (isinstance(one, list) and all(map(_is_value, one))) for one in found)
        for found in values
    )


METRIC = Kind(lambda v: isinstance(v, str) and v in METRICS, f"one of {', '.join(METRICS)}")
WEIGHT = Kind(lambda v: isinstance(v, str) and v in CLASS_WEIGHTS, f"{' or '.join(CLASS_WEIGHTS)}")
PARAMS = Kind(_are_params, "parameters of heads, each with a list of values")


def _is_request(value: Any) -> bool:
    try:
        FeatureRequest.from_dict(value)
    except ExtractError:
        return False
    return True


def _is_reading(value: Any) -> bool:
    try:
        ReadOptions.from_dict(value)
    except ExtractError:
        return False
    return True


READING = Kind(_is_reading, "options by which images are read")
REQUEST = Kind(_is_request, "a request for features")


@dataclass(frozen=True)
class Shape:
    """An object by its known fields; `needed`: those that it cannot do without; `or_none`: it may be nothing."""

    fields: Mapping[str, Any]
    needed: tuple[str, ...] = ()
    or_none: bool = False


Schema = Kind | Shape | list[Any]
CONFIG = Shape({
    "images": TEXT, "reading": READING, "requests": [REQUEST], "heads": [TEXT], "cache": TEXT, "seed": SEED,
    "folds": COUNT_OR_NONE,
    "memory": NUMBER_OR_NONE, "repeats": COUNT, "calibrate": FLAG, "min_per_class": COUNT,
    "params": PARAMS, "metric": METRIC, "class_weight": WEIGHT,
    "ensemble": FLAG,
})  # fmt: skip
TO_CHOOSE_BY = {name: NUMBER_OR_NONE if each.lower_is_better else SHARE_OR_NONE for name, each in CRITERIA.items()}
HEAD_METRICS = {
    **TO_CHOOSE_BY, ACCURACY: SHARE, "accuracy_ci": INTERVAL, "ece": NUMBER_OR_NONE, "brier": NUMBER_OR_NONE,
    "ci": LIMITS,
}  # fmt: skip
EFFECT = {"temperature": NUMBER, "ece_before": NUMBER, "ece_after": NUMBER, "log_loss_before": NUMBER,
          "log_loss_after": NUMBER}  # fmt: skip
TRIAL = {"params": OBJECT, **{f"val_{name}": kind for name, kind in TO_CHOOSE_BY.items()}}
HEAD = Shape({
    "name": TEXT, "backbone": WORD, "features": TEXT, "params": OBJECT, "grid_size": COUNT, "fit_seconds": SECONDS,
    "predict_seconds": SECONDS, "val": Shape({**HEAD_METRICS, "log_loss": NUMBER}, ("accuracy", "log_loss")),
    "test": Shape(HEAD_METRICS), "saved": TEXT, "p_vs_best": NUMBER_OR_NONE, "tied_with_best": FLAG,
    "members": [TEXT], "promoted": FLAG,
    "grid": [Shape(TRIAL, ("params",))], "tempering": Shape(EFFECT, tuple(EFFECT), or_none=True),
}, ("name", "backbone", "val"))  # fmt: skip
PART = {"backbone": WORD, "key": WORD, "scale": NUMBER}
FEATURES = Shape({
    "name": TEXT, "backbone": WORD, "layer": TEXT_OR_NONE, "pooling": TEXT_OR_NONE, "key": WORD, "dim": POSITIVE,
    "weights": TEXT_OR_NONE, "extract_seconds": NUMBER_OR_NONE, "images_per_second": NUMBER_OR_NONE,
    "parts": [Shape(PART, tuple(PART))],
    "about": ABOUT,
}, ("backbone",))  # fmt: skip
SHOTS = {"features": TEXT, "head": TEXT, "n_train": COUNT, "mean": NUMBER, "low": NUMBER, "high": NUMBER}
DOUBLING = {"features": TEXT, "head": TEXT, "n_now": COUNT, "n_doubled": NUMBER, "now": NUMBER, "expected": NUMBER,
            "low": NUMBER, "high": NUMBER}  # fmt: skip
TUNED = {"from": TEXT, "head": TEXT, "unfreeze": TEXT, "size": POSITIVE, "augment": TEXT, "recipe": OBJECT}
RESULTS = Shape({
    "format": FORMAT,
    "created": TEXT,
    "versions": OBJECT,
    "config": CONFIG,
    "dataset": Shape({"name": TEXT, "classes": [TEXT], "n_train": COUNT, "n_val": COUNT, "n_test": COUNT,
                      "skipped": COUNT, "n_test_units": COUNT, "test_units": TEXT}),
    "features": [FEATURES],
    "heads": [HEAD],
    "transfer": [TEXT],
    "warnings": [TEXT],
    "shots": [Shape({**SHOTS, "n_chosen": COUNT}, tuple(SHOTS))],
    "doubling": [Shape(DOUBLING, tuple(DOUBLING))],
    "finetune": Shape({**TUNED, "identity": TEXT, "views": COUNT, "dtype": DTYPE}, tuple(TUNED)),
    "promoted": Shape({"from": TEXT, "head": TEXT, "at": TEXT}),
}, ("heads",))  # fmt: skip


def read_results(folder: Path) -> Results:
    """results.json of a run folder, every known field of the right type and every head with its numbers on val.

    Raises UsageError where there is none, PipelineError that names the field where it is damaged.
    """
    results = read_json(folder / RESULTS_FILE)
    check_fields(folder / RESULTS_FILE, results, RESULTS)
    if not results["heads"]:
        raise damaged(folder / RESULTS_FILE, "'heads' is empty")
    return cast(Results, results)


def read_config(folder: Path) -> Config:
    """config.json of a run folder, every known field of the right type. Raises UsageError, PipelineError."""
    config = read_json(folder / CONFIG_FILE)
    check_fields(folder / CONFIG_FILE, config, CONFIG)
    return cast(Config, config)


def check_fields(path: Path, value: Any, schema: Schema, where: str = "") -> None:
    """Raise PipelineError for the first known field that is there and is of another kind than its own."""
    if isinstance(schema, Kind):
        if not schema.is_one(value):
            raise damaged(path, f"'{where}' is {_shown(value)} and has to be {schema.description}")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise damaged(path, f"'{where}' is {_shown(value)} and has to be a list")
        if not value and schema == [REQUEST]:
            raise damaged(path, f"'{where}' is empty")
        for number, each in enumerate(value):
            check_fields(path, each, schema[0], f"{where}[{number}]")
    elif value is not None or not schema.or_none:
        if not isinstance(value, dict):
            raise damaged(path, f"'{where}' is {_shown(value)} and has to be an object")
        need(path, value, schema.needed, where)
        for name, inner in schema.fields.items():
            if name in value:
                check_fields(path, value[name], inner, f"{where}.{name}" if where else name)


def need(path: Path, values: Mapping[str, Any], names: Iterable[str], where: str = "") -> None:
    """Raise PipelineError for the first of the names, such as `dataset.name`, that is not there."""
    for name in names:
        found: Any = values
        for part in name.split("."):
            if not isinstance(found, dict) or part not in found:
                raise damaged(path, f"'{where}.{name}' is missing" if where else f"'{name}' is missing")
            found = found[part]


def need_each(path: Path, values: Mapping[str, Any], listed: str, names: Iterable[str]) -> None:
    """Check every object of a list like `need`."""
    names = tuple(names)
    for number, each in enumerate(values[listed]):
        need(path, each, names, f"{listed}[{number}]")


def saved_folder(folder: Path, head: HeadRow) -> Path:
    """The folder of a head of a run, which lies in the run's. Raises PipelineError where it does not."""
    need(folder / RESULTS_FILE, head, ["saved"], "heads[...]")
    place: Path = folder / head["saved"]
    root = folder.resolve()
    try:
        is_inside = place.resolve().is_relative_to(root) and place.resolve() != root
    except (OSError, RuntimeError):  # a link to itself, or a name that is too long
        is_inside = False
    if not is_inside or Path(head["saved"]).is_absolute():
        raise damaged(
            folder / RESULTS_FILE, f"'saved' of the head '{printable(head['name'])}' leads out of the run folder"
        )
    return place


def damaged(path: Path, reason: str) -> PipelineError:
    """The error that names the file and the field, and says what to do."""
    return PipelineError(
        f"'{printable(path)}' is not what 'featurecache classify' writes: {reason}. Classify again, or take a run that "
        "is whole."
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = printable(str(value))
    return repr(text if len(text) <= 40 else f"{text[:37]}...") if isinstance(value, str) else text[:40]
