"""The two stages joined again: F(x) = T(P(x)) on any images, with a head that a run saved."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from extract.digests import Refusal
from extract.errors import CacheError
from extract.fill import Settings, extract_features
from extract.manifest import Manifest, Sample, merge, read_images
from extract.request import FeatureRequest
from extract.spec import FeatureSpec
from pipeline.console import Console
from pipeline.errors import UsageError
from pipeline.rundir import CONFIG_FILE, RESULTS_FILE, WEIGHTS_FILE, read_json, reading_run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from classify.saved import LoadedHead


@dataclass(frozen=True)
class Predictions:
    """One label per image: `codes` (N,) into classes, `proba` (N, C)."""

    head: str
    classes: list[str]
    samples: tuple[Sample, ...]
    codes: NDArray[np.int64]
    proba: NDArray[np.floating[Any]]
    refusals: tuple[Refusal, ...]
    cache_root: Path

    def rows(self) -> list[tuple[str, str, float]]:
        """Path, label and its probability, an image a row."""
        return [
            (sample.name, self.classes[code], float(row[code]))
            for sample, code, row in zip(self.samples, self.codes, self.proba, strict=True)
        ]

    def accuracy(self) -> tuple[int, int]:
        """How many of the images that have a label got it, and how many have one."""
        labelled = [(s.label, self.classes[c]) for s, c in zip(self.samples, self.codes, strict=True) if s.label]
        return sum(label == predicted for label, predicted in labelled), len(labelled)


def predict(
    run: Path,
    images: Sequence[str],
    console: Console,
    *,
    head: str | None = None,
    cache_root: Path | None = None,
    settings: Settings | None = None,
    trust_head: bool = False,
) -> Predictions:
    """Label images with a run's head, the best on val unless named; their features are kept in the cache like any.

    trust_head: use a scikit-learn classifier even if its arrays could crash the process, see `classify.saved`.

    Raises UsageError for a folder that is no run or a head it does not have, PipelineError for a damaged run,
    SavedHeadError for a head that is damaged or must not be loaded, CacheError when the backbone at hand is not the one
    the head was trained on.
    """
    import numpy as np

    from classify.calibration import temper_head
    from classify.metrics import SMALLEST_PROBABILITY
    from classify.saved import load_head

    with reading_run(run):
        chosen = choose_head(read_json(run / RESULTS_FILE), head)
        loaded = load_head(head_folder(run, chosen), trust=trust_head)
        name = f"{chosen['name']} on {features_of(chosen)}"
        request = with_own_weights(run, FeatureRequest(**loaded.meta["request"]))
        spec = FeatureSpec.from_dict(loaded.meta["spec"])
        classes: list[str] = loaded.meta["classes"]
        check_head(loaded, spec)
        root = cache_root or Path(read_json(run / CONFIG_FILE)["cache"])
    for note in loaded.notes:
        console.say(note)
    manifest = merge(read_named(path, several=len(images) > 1) for path in images)
    report = extract_features(manifest, [request], root, settings=settings, progress=console)
    filled = report.filled[0]
    check_spec(spec, filled.resolved.spec)
    codes: NDArray[np.int64] = np.empty(0, np.int64)
    proba: NDArray[np.floating[Any]] = np.empty((0, len(classes)))
    if report.samples:  # no head of scikit-learn takes no rows at all
        X = filled.cache.lookup(report.digests)
        codes, proba = loaded.head.predict_both(X)
        # Runs that do not name a floor tempered probabilities with this one.
        floor = loaded.meta.get("tempering_floor", SMALLEST_PROBABILITY)
        proba = temper_head(loaded.head, X, proba, loaded.meta.get("tempering") or 1.0, floor=floor)
    return Predictions(name, classes, report.samples, codes, proba, report.refusals, root)


def head_folder(run: Path, row: Mapping[str, Any]) -> Path:
    """The folder of a head in its run, by its row in results.json; raises ValueError for one that is elsewhere."""
    saved = PurePosixPath(row["saved"])
    if saved.is_absolute() or ".." in saved.parts:
        raise ValueError(f"the head is said to be in {str(saved)!r}, outside of the run")
    return run / saved


def check_head(loaded: LoadedHead, spec: FeatureSpec) -> None:
    """Raises ValueError where what was saved with a head is not about that head: its classes, features, tempering."""
    head, names, tempering = loaded.head, loaded.meta["classes"], loaded.meta.get("tempering")
    codes = head.classes_.tolist()
    is_named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_named or not all(type(code) is int and 0 <= code < len(names) for code in codes):
        raise ValueError(f"its head tells {len(codes)} classes apart, which have other names or none")
    if head.n_features_in_ != spec.feature_dim:
        raise ValueError(f"its head takes {head.n_features_in_} columns, and its features have {spec.feature_dim}")
    if not (tempering is None or (_is_number(tempering) and 0 < tempering < float("inf"))):
        raise ValueError(f"a tempering of {tempering!r}")
    floor = loaded.meta.get("tempering_floor", 0.0)
    if not (_is_number(floor) and 0 <= floor < 1):
        raise ValueError(f"a smallest probability of {floor!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def with_own_weights(run: Path, request: FeatureRequest) -> FeatureRequest:
    """The request with the weights that a fine-tuned run carries, wherever its folder is now."""
    own = run / WEIGHTS_FILE
    return replace(request, weights=str(own)) if own.exists() else request


def read_named(images: str, *, several: bool) -> Manifest:
    """The samples of one argument; beside others each name begins with the argument, to tell two `1.png` apart."""
    manifest = read_images(images)
    if not several:
        return manifest
    path = Path(images)
    named = (path if sample.path == str(path) else path / sample.name for sample in manifest.samples)
    samples = [replace(s, name=name.as_posix()) for s, name in zip(manifest.samples, named, strict=True)]
    return replace(manifest, samples=tuple(samples))


def rank_on_val(val: Mapping[str, float]) -> tuple[float, float]:
    """What the best head has most of, by its metrics on val: accuracy, then probability of the truth."""
    return val["accuracy"], -val["log_loss"]


def choose_head(results: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The head called `head` or `backbone--head`; without a name the best on val, since test is for reporting only.

    Raises UsageError that lists the heads of the run.
    """
    heads: list[dict[str, Any]] = results["heads"]
    if name is None:
        return max(heads, key=lambda head: rank_on_val(head["val"]))
    matching = [h for h in heads if name in (h["name"], f"{features_of(h)}--{h['name']}")]
    if len(matching) == 1:
        return matching[0]
    several = len({features_of(h) for h in heads}) > 1
    names = [f"{features_of(h)}--{h['name']}" if several else h["name"] for h in heads]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names
    problem = "has no head" if not matching else "has more than one head"
    raise UsageError(f"The run {problem} '{name}'. Did you mean {', '.join(near)}? It has: {', '.join(names)}.")


def features_of(head: dict[str, Any]) -> str:
    """The name of the features that a head takes; runs from before layers could be compared say the backbone only."""
    return str(head.get("features", head["backbone"]))


def check_spec(trained: FeatureSpec, found: FeatureSpec) -> None:
    """Raises CacheError where a head would get other features than it was trained on."""
    if trained != found:
        fields = ", ".join(trained.differences(found))
        raise CacheError(
            f"The head was trained on features with another {fields} than this machine's {found.backbone} gives. "
            "Use the same weights file and library versions, or train a head on the new features."
        )
