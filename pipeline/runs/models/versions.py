"""What is known of the versions of models, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featurecache.base.errors import FeatureCacheError
from featurecache.base.text import printable
from featurecache.classify.heads.saving.folder import load_meta
from featurecache.extract.cache.spec import KEY_DIGITS, FeatureSpec
from featurecache.runs.documents import FeatureRow, HeadRow, Results
from featurecache.runs.head_choice import choose_head, features_of, metric_of, value_of
from featurecache.runs.models.places import MODELS_ROOT, current_version, model_names, version_numbers
from featurecache.runs.record_checks import read_results, saved_folder

# So many classes that differ are named.
NAMED_CLASSES = 5


@dataclass(frozen=True)
class ModelVersion:
    """A version of a model: its folder, which is a run of one head, and the test number of that head.

    value: of `metric` on test; None where the run has none. classes: their number. source: the run that it is from.
    notes: what differs from the version before, or why the version cannot be read.
    """

    name: str
    version: int
    folder: Path
    is_current: bool
    head: str = ""
    features: str = ""
    metric: str = ""
    value: float | None = None
    classes: int = 0
    n_test: int | None = None
    promoted: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**asdict(self), "folder": str(self.folder), "notes": list(self.notes)}


def list_models(root: Path = MODELS_ROOT) -> list[ModelVersion]:
    """Return every version of every model, by name and number; one that cannot be read has the reason in its notes."""
    found = list[ModelVersion]()
    for name in model_names(root):
        model, notes = root / name, list[str]()
        try:
            current = current_version(model)
        except FeatureCacheError as error:
            current, notes = 0, [str(error)]
        for number in version_numbers(model):
            try:
                found.append(describe(model, number, is_current=number == current, notes=notes))
            except FeatureCacheError as error:
                found.append(
                    ModelVersion(name, number, model / f"v{number}", number == current, notes=(*notes, str(error)))
                )
    return found


def describe(model: Path, number: int, *, is_current: bool, notes: Sequence[str] = ()) -> ModelVersion:
    """Return what is known of a version of a model. Raises UsageError, PipelineError where it is damaged."""
    folder = model / f"v{number}"
    results = read_results(folder)
    head, metric = main_head(results), metric_of(results)
    value = value_of(head.get("test", {}), metric)
    record: dict[str, Any] = dict(results.get("promoted", {}))
    dataset = results.get("dataset", {})
    return ModelVersion(
        model.name,
        number,
        folder,
        is_current,
        head=head["name"],
        features=features_of(head),
        metric=metric,
        value=None if value != value else value,
        classes=len(dataset.get("classes", [])),
        n_test=dataset.get("n_test"),
        promoted=str(record.get("at", "")),
        source=str(record.get("from", "")),
        notes=tuple(notes),
    )


def main_head(results: Results) -> HeadRow:
    """Return the head of a version, the one that `predict` takes."""
    return choose_head(results["heads"], None, metric=metric_of(results))


def differences(before: Path, after: Path) -> list[str]:
    """Return what differs between two versions, in sentences: their classes and their features."""
    old, new = read_results(before), read_results(after)
    return [*_of_classes(old, new, before.name), *_of_features(old, new, before, after)]


def _of_classes(old: Results, new: Results, name: str) -> list[str]:
    had, has = old.get("dataset", {}).get("classes", []), new.get("dataset", {}).get("classes", [])
    if had == has:
        return []
    known_before, known_now = set(had), set(has)
    parts = [
        f"{word} {_named(classes)}"
        for word, classes in (
            ("new", [each for each in has if each not in known_before]),
            ("missing", [each for each in had if each not in known_now]),
        )
        if classes
    ]
    return [f"The classes differ from those of {name}: {'; '.join(parts) or 'they are in another order'}."]


def _named(classes: Sequence[str]) -> str:
    more = len(classes) - NAMED_CLASSES
    named = ", ".join(map(printable, classes[:NAMED_CLASSES]))
    return f"{named} and {more:,} more" if more > 0 else named


def _of_features(old: Results, new: Results, before: Path, after: Path) -> list[str]:
    had, has = ({_identity(row) for row in each.get("features", [])} for each in (old, new))
    if had == has:
        return []
    names = [sorted(name for name, _ in each) for each in (had, has)]
    if names[0] == names[1]:
        fields = _other_fields(before, main_head(old), after, main_head(new))
        other = f"another {', '.join(fields)}" if fields else "another key"
        return [f"The features of {', '.join(map(printable, names[1]))} differ from those of {before.name}: {other}."]
    was, now = (", ".join(map(printable, each)) for each in names)
    return [f"The backbone differs from that of {before.name}: {now} instead of {was}."]


def _identity(row: FeatureRow) -> tuple[str, str]:
    return row.get("name", row["backbone"]), str(row.get("key", ""))[:KEY_DIGITS]


def _other_fields(before: Path, old: HeadRow, after: Path, new: HeadRow) -> list[str]:
    """Return the fields of the feature specs in which two heads differ; none where they have none or several."""
    try:
        specs = [
            FeatureSpec.from_dict(load_meta(saved_folder(folder, head))["spec"])
            for folder, head in ((before, old), (after, new))
        ]
    except (FeatureCacheError, KeyError, TypeError, ValueError):
        return []
    return list(specs[0].differences(specs[1]))
