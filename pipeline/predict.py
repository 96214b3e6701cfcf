"""The two stages joined again: F(x) = T(P(x)) on any images, with a head that a run saved."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from extract.cache import FeatureCache
from extract.digests import Refusal, digest_samples
from extract.errors import CacheError
from extract.fill import ExtractReport, Settings, extract_features
from extract.inventory import remember_use
from extract.manifest import Manifest, Sample, merge, printable, read_images
from extract.memo import FILE_NAME, Memo
from extract.plain_files import UnfitFile, check_plain_file
from extract.request import FeatureRequest
from extract.spec import FeatureSpec
from pipeline.console import Console
from pipeline.errors import PipelineError, UsageError
from pipeline.options import DEFAULT_CACHE
from pipeline.record_checks import HeadMeta, damaged, head_meta, need, read_config, read_results, saved_folder
from pipeline.rundir import CONFIG_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from classify.saved import LoadedHead


@dataclass(frozen=True)
class Predictions:
    """One label per image: `codes` (N,) into classes, `proba` (N, C).

    n_unread: folders whose images could not be seen.
    """

    head: str
    classes: list[str]
    samples: tuple[Sample, ...]
    codes: NDArray[np.int64]
    proba: NDArray[np.floating[Any]]
    refusals: tuple[Refusal, ...]
    cache_root: Path
    n_unread: int = 0

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

    The backbone is loaded only where the cache lacks an image. trust_head: use a scikit-learn classifier even if its
    arrays could crash the process, see `classify.saved`.

    Raises UsageError for a folder that is no run or a head it does not have, PipelineError for a damaged run,
    SavedHeadError for a head that is damaged or must not be loaded, CacheError when the backbone at hand is not the one
    the head was trained on.
    """
    import numpy as np

    from classify.calibration import temper_head
    from classify.metrics import SMALLEST_PROBABILITY
    from classify.saved import load_head

    chosen = choose_head(read_results(run), head)
    place = saved_folder(run, chosen)
    loaded = load_head(place, trust=trust_head)
    meta = head_meta(place, loaded.meta)
    check_head(place, loaded, meta)
    name = f"{chosen['name']} on {features_of(chosen)}"
    request, spec, classes = with_own_weights(run, meta.request), meta.spec, meta.classes
    root = cache_root or recorded_cache(run, read_config(run), console)
    manifest = merge(read_named(path, several=len(images) > 1) for path in images)
    for note in (*loaded.notes, *manifest.notes):
        console.say(note)
    wanted = _kept(manifest, FeatureCache(root, spec), console)
    if wanted is None:
        report = extract_features(manifest, [request], root, settings=settings, progress=console)
        wanted = _extracted(report, spec)
    for path in images:
        remember_use(root, [spec.folder_name], path)
    codes: NDArray[np.int64] = np.empty(0, np.int64)
    proba: NDArray[np.floating[Any]] = np.empty((0, len(classes)))
    if wanted.samples:  # no head of scikit-learn takes no rows at all
        X = wanted.cache.lookup(wanted.digests)
        codes, proba = loaded.head.predict_both(X)
        # Runs that do not name a floor tempered probabilities with this one.
        floor = SMALLEST_PROBABILITY if meta.tempering_floor is None else meta.tempering_floor
        proba = temper_head(loaded.head, X, proba, meta.tempering, floor=floor)
    return Predictions(name, classes, wanted.samples, codes, proba, wanted.refusals, root, len(manifest.unreadable))


class Vectors(NamedTuple):
    """The images that have features, their digests (N, 32), the cache that holds them, and what was refused."""

    samples: tuple[Sample, ...]
    digests: NDArray[np.uint8]
    cache: FeatureCache
    refusals: tuple[Refusal, ...]


def _kept(manifest: Manifest, cache: FeatureCache, console: Console) -> Vectors | None:
    """The images and their features, without the backbone; None where the cache lacks any."""
    if not len(cache):
        return None
    with Memo(cache.folder.parent, read_only=True) as memo:
        digested = digest_samples(manifest.samples, memo, on_progress=console.digesting)
    if digested.refusals or cache.missing(digested.digests).any():
        return None
    return Vectors(digested.samples, digested.digests, cache, ())


def _extracted(report: ExtractReport, spec: FeatureSpec) -> Vectors:
    """The same after what was missing is extracted. Raises CacheError where the backbone at hand is another."""
    filled = report.filled[0]
    check_spec(spec, filled.resolved.spec)
    return Vectors(report.samples, report.digests, filled.cache, report.refusals)


def check_head(place: Path, loaded: LoadedHead, meta: HeadMeta) -> None:
    """Raises PipelineError where what was saved with a head is not about that head: its classes, its features."""
    head, path = loaded.head, place / "head.json"
    codes = head.classes_.tolist()
    if not all(type(code) is int and 0 <= code < len(meta.classes) for code in codes):
        raise damaged(path, f"its head tells {len(codes)} classes apart, which have other names or none")
    if head.n_features_in_ != meta.spec.feature_dim:
        dim = meta.spec.feature_dim
        raise damaged(path, f"its head takes {head.n_features_in_} columns, and its features have {dim}")


def recorded_cache(run: Path, config: Mapping[str, Any], console: Console) -> Path:
    """The cache that a run had its features in, where it is a cache of this machine; else the usual one, which is said.

    A run from elsewhere names a folder of another machine: nothing is made there.
    """
    need(run / CONFIG_FILE, config, ["cache"])
    recorded = Path(config["cache"])
    if (recorded / FILE_NAME).is_file() or recorded == DEFAULT_CACHE.resolve():
        return recorded
    console.say(
        f"The cache of the run, '{printable(recorded)}', is not here: features are kept in '{DEFAULT_CACHE}' instead. "
        "Name another with --cache."
    )
    return DEFAULT_CACHE


def with_own_weights(run: Path, request: FeatureRequest) -> FeatureRequest:
    """The request with the weights that a fine-tuned run carries, wherever its folder is now.

    A weights file of the user's that is no longer where it was is looked for by its name in the working folder; that it
    is the same one is for `check_spec` to say.
    """
    own = run / WEIGHTS_FILE
    if not os.path.lexists(own):
        was = Path(request.weights or "")
        moved = was.is_absolute() and not was.exists() and Path(was.name).is_file()
        return replace(request, weights=was.name) if moved else request
    try:
        check_plain_file(own, run)
    except (OSError, UnfitFile) as error:
        raise PipelineError(
            f"'{printable(own)}' is not read: {printable(str(error))}. Take a run that is whole."
        ) from error
    return replace(request, weights=str(own))


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
