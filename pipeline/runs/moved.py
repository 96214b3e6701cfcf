"""What a run names, where it is now: its cache, its images, the run and the weights that it began from.

A run records absolute paths. Where nothing is there any more (the run was moved, or is on another machine), the same is
sought near the run: below the folder of the run and those above it, by the last parts of the recorded path. Folders are
recognised by what the run knows of their contents, never by their name alone; nothing is ever made at an old path.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, cast

from featurecache.base.defaults import DEFAULT_CACHE
from featurecache.base.errors import BackboneError, CacheError, PipelineError
from featurecache.base.plain_files import UnfitFile, check_plain_file, parse_json
from featurecache.base.text import count, printable
from featurecache.extract.backbones.named_file import SEPARATOR, file_and_part, with_part
from featurecache.extract.cache.memo import FILE_NAME, Memo
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.job.matching import load_if_here
from featurecache.extract.job.request import FeatureRequest, recall
from featurecache.runs.documents import Config, FeatureRow, Results, cache_folders
from featurecache.runs.folder import WEIGHTS_FILE, is_run

if TYPE_CHECKING:
    from featurecache.runs.record import Record

# Folders above the run, and last parts of a recorded path, that are looked at.
MOST_ABOVE, MOST_PARTS = 6, 4
# Images of the run by whose names its folder is recognised.
MOST_NAMES = 5
READ_BYTES = 1 << 20  # of a table, in which their names are sought
N_DIGITS = 12  # of a digest in an error message
# Files of any name that are read to find weights by their digest, and what their names end in.
MOST_FILES = 16
WEIGHTS_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")
MOVED = "Put the weights that the run was made with next to the run, or name their file by --weights."


def find_cache(run: Path, recorded: Path, features: Sequence[FeatureRow]) -> Path | None:
    """The cache root that has features of a run: as recorded, near the run or the usual one; else None.

    features: those of results.json. Without them the recorded one counts too, if it is a cache of this machine.
    """
    names = cache_folders(features)
    places = [recorded, *places_near(run, recorded), *places_near(run, DEFAULT_CACHE), DEFAULT_CACHE]
    for place in places:
        if any(_is_folder(place / name) for name in names):
            return place
    return recorded if (recorded / FILE_NAME).is_file() or recorded == DEFAULT_CACHE.resolve() else None


def missing_cache_note(recorded: Path, found: Path | None) -> str:
    """A sentence where the cache of a run is not the recorded one; empty where it is."""
    if found == recorded:
        return ""
    kind, instead = ("of the same kind ", "") if found else ("", " instead")
    where = f"features {kind}are kept in '{printable(found or DEFAULT_CACHE)}'{instead}"
    return f"The cache of the run, '{printable(recorded)}', is not here: {where}. Name another with --cache."


def find_images(run: Path, config: Mapping[str, Any], names: Iterable[str] = ()) -> str | None:
    """IMAGES of a run as a path that is there; None where they are not found.

    names: of images of the run, by which a folder near the run is recognised.
    """
    typed = str(config["images"])
    recorded = str(config.get("images_at") or typed)  # absolute, but for runs from before it was kept
    at = typed if os.path.abspath(typed) == recorded else recorded  # noqa: PTH100 (links as typed)
    if os.path.exists(at):  # noqa: PTH110 (names that are too long)
        return at
    known = list(islice(names, MOST_NAMES))
    return next((str(place) for place in places_near(run, Path(recorded)) if _holds(place, known)), None)


def find_source(run: Path, recorded: str) -> str:
    """The run that a fine-tune began from: as recorded, or the run of the same name near it; as recorded for none."""
    if is_run(Path(recorded)):
        return recorded
    return next((str(place) for place in places_near(run, Path(recorded)) if is_run(place)), recorded)


def find_file(run: Path, recorded: Path) -> Iterator[Path]:
    """Yield the files of the name of a recorded one that are near a run, then that in the working folder."""
    for place in (*places_near(run, recorded), Path(recorded.name)):
        with contextlib.suppress(OSError):
            if place.is_file():
                yield place


def config_of_now(
    run: Path, config: Config, features: Sequence[FeatureRow], names: Iterable[str] = (), *, images: str | None = None,
    cache_root: Path | None = None,
) -> Config:  # fmt: skip
    """config.json with the images and the cache where they are now; as recorded where they are not found.

    images, cache_root: where the user says that they are.
    """
    known = list(islice(names, MOST_NAMES))
    found = images or find_images(run, config, known)
    cache = cache_root or find_cache(run, Path(config["cache"]), features)
    changed: dict[str, Any] = {}
    reading, root = config.get("reading", {}), config.get("reading", {}).get("root")
    if root is not None and not _is_folder(Path(root)):
        place = next(
            (place for place in places_near(run, Path(root)) if _is_folder(place) and _holds(place, known)), None
        )
        changed["reading"] = {**reading, "root": root if place is None else str(place)}
    if found is not None:
        changed |= {"images": found, "images_at": os.path.abspath(found)}  # noqa: PTH100 (links as named)
    if cache is not None:
        changed["cache"] = str(cache.resolve())
    return cast(Config, {**config, **changed})


def record_of_now(
    run: Path, record: Record, names: Iterable[str], *, images: str | None, cache_root: Path | None
) -> Record:
    """The record of a run with its images, its cache and the run that it was tuned from where they are now.

    The arguments are those of `config_of_now`.
    """
    config = config_of_now(run, record.config, record.results["features"], names, images=images, cache_root=cache_root)
    results = record.results
    if tuned := results.get("finetune"):
        results = cast(Results, {**results, "finetune": {**tuned, "from": find_source(run, tuned["from"])}})
    return replace(record, config=config, results=results)


def places_near(run: Path, recorded: Path) -> Iterator[Path]:
    """Yield where a recorded path may be now: its last parts below the folder of the run and those above it."""
    own, on_windows = run.absolute(), PureWindowsPath(recorded)
    parts = on_windows.parts if on_windows.drive else recorded.parts
    tails = [Path(*parts[-n:]) for n in range(min(MOST_PARTS, len(parts)), 0, -1)]
    for above in (own, *own.parents[:MOST_ABOVE]):
        for tail in tails:
            if not tail.is_absolute() and ".." not in tail.parts:
                yield above / tail


def _is_folder(place: Path) -> bool:
    return os.path.isdir(place)  # noqa: PTH112 (names that are too long)


def _holds(place: Path, names: Iterable[str]) -> bool:
    """Whether a place is the folder of these images, a table next to them, or one that names any of them."""
    some = list(islice(names, MOST_NAMES))
    folder = place if _is_folder(place) else place.parent
    if any(os.path.isfile(folder / name) for name in some):  # noqa: PTH113
        return folder == place or os.path.isfile(place)  # noqa: PTH113
    if folder == place or not os.path.isfile(place):  # noqa: PTH113
        return False
    try:
        with place.open("rb") as file:
            start = file.read(READ_BYTES)
    except OSError:
        return False
    return any(Path(name).name.encode() in start for name in some)


def with_run_weights(run: Path, request: FeatureRequest) -> FeatureRequest:
    """The request with the weights that a fine-tuned run carries, wherever its folder is now.

    A weights file of the user's that has moved is sought by its name near the run and in the working folder;
    `check_weights` finds out whether it is the same.
    """
    own = run / WEIGHTS_FILE
    if not os.path.lexists(own):
        return replace(request, weights=_where_now(run, request.weights or "") or request.weights)
    try:
        check_plain_file(own, run)
    except (OSError, UnfitFile) as error:
        raise PipelineError(
            f"'{printable(own)}' is not read: {printable(str(error))}. Take a run that is whole."
        ) from error
    return replace(request, weights=str(own))


def _where_now(run: Path, recorded: str) -> str | None:
    """Return the weights of a run where they are now; None where nothing has moved, or nothing is found."""
    on_windows = PureWindowsPath(recorded)
    path = Path("/", *on_windows.parts[1:]) if on_windows.drive else Path(recorded)
    if not path.is_absolute() or os.path.isfile(file_and_part(recorded)[0]):  # noqa: PTH113 (names that are too long)
        return None
    name, _, part = path.name.rpartition(SEPARATOR)
    for moved, own_part in ((path, ""), (path.parent / name, part) if name else (path, "")):
        found = next(find_file(run, moved), None)
        if found is not None:
            return with_part(str(found), own_part)
    return None


def weights_by_digest(
    run: Path, request: FeatureRequest, trained: FeatureSpec, cache_root: Path, *, say: Callable[[str], None]
) -> FeatureRequest:
    """The request with the weights file of the user's whose tensors a head was trained on.

    Sought are the file that is named, those that the memo knows by this digest, those of its name near the run, and
    those of any name where the recorded one was, in the run, next to it and in the working folder. The request as it is
    where none of them has these weights. say: called with a line before files of any name are read, and if it moved.
    """
    found = with_run_weights(run, request)
    recorded = PureWindowsPath(request.weights or "")
    if os.path.lexists(run / WEIGHTS_FILE) or not (recorded.is_absolute() or recorded.root):
        return found
    name, _, part = recorded.name.rpartition(SEPARATOR)
    near = find_file(run, Path(name or recorded.name))
    with Memo(cache_root) as memo:
        known = dict(_known_files(trained, memo))
        others = map(str, chain(known, near, _files_of_any_name(run, found, set(known.values()), say)))
        parts, seen = ("", part) if name else ("",), set[str]()
        for weights in chain([str(found.weights)], (with_part(each, own) for each in others for own in parts)):
            each = replace(request, weights=weights)
            if weights not in seen and _has_weights(each, trained, memo):
                if weights != request.weights:
                    say(f"The weights of the run are in '{printable(weights)}'.")
                return each
            seen.add(weights)
    return found


def _has_weights(request: FeatureRequest, trained: FeatureSpec, memo: Memo) -> bool:
    try:
        resolved = recall(request, memo) or load_if_here(request, memo)
    except (BackboneError, OSError):  # another network's, no weights, or a file that must not be read
        return False
    return resolved is not None and resolved.spec.weights_digest == trained.weights_digest


def _known_files(trained: FeatureSpec, memo: Memo) -> Iterator[tuple[Path, int]]:
    """Yield the files that the memo knows to have these weights, and their size then."""
    for _, answer in memo.answers():
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            values = parse_json(answer)
            if values["spec"]["weights_digest"] == trained.weights_digest:
                yield Path(values["weights_path"]), int(values["state"][0])


def _files_of_any_name(
    run: Path, request: FeatureRequest, sizes: Container[int], say: Callable[[str], None]
) -> Iterator[Path]:
    """Yield the weights files where the recorded one was, in the run, next to it and in the working folder.

    Those of these sizes in bytes come first, then those with the ending of the recorded file.
    """
    recorded, own = Path(str(request.weights)), run.absolute()
    found = list[tuple[bool, bool, Path]]()
    for folder in dict.fromkeys((recorded.parent, own, own.parent, Path().absolute())):
        with contextlib.suppress(OSError):
            for each in sorted(folder.iterdir()):
                if each.suffix.lower() in WEIGHTS_SUFFIXES and os.path.isfile(each):  # noqa: PTH113
                    found.append((each.stat().st_size not in sizes, each.suffix != recorded.suffix, each))
    if found:
        n = min(len(found), MOST_FILES)
        say(f"looking for the weights of the run in {count(n, 'file')} near it, by reading them")
    yield from (each for _, _, each in sorted(found)[:MOST_FILES])


def named_weights(request: FeatureRequest, weights: str) -> FeatureRequest:
    """The request with the weights that the user names. Raises UnknownWeights if there are none of that name."""
    if not os.path.isfile(file_and_part(weights)[0]):  # noqa: PTH113 (closed folders)
        from featurecache.extract.backbones.weights import find_weights

        find_weights(request.backbone, weights)
    return replace(request, weights=weights)


def check_weights(request: FeatureRequest, trained: FeatureSpec, cache_root: Path) -> None:
    """Raises CacheError, before anything is extracted, where a weights file is not that of a head."""
    if request.weights is None:
        return
    with Memo(cache_root) as memo:
        resolved = recall(request, memo) or load_if_here(request, memo)
    if resolved is None:
        return
    name, found = printable(resolved.weights), resolved.spec
    if found.weights_digest != trained.weights_digest:
        raise CacheError(
            f"'{name}' does not hold the weights that the head was trained on: their digest begins with "
            f"{trained.weights_digest[:N_DIGITS]}, and that of the file with {found.weights_digest[:N_DIGITS]}. "
            "Name the file of the run's weights by --weights."
        )
    check_spec(trained, found if found.ranges else replace(found, ranges=trained.ranges))  # which extract finds


def check_spec(trained: FeatureSpec, found: FeatureSpec) -> None:
    """Raises CacheError where a head would get other features than it was trained on."""
    if trained != found:
        fields = ", ".join(trained.differences(found))
        step = "Use the same weights file and library versions, or train a head on the new features."
        if fields == "ranges":
            step = "Name by --cache the cache of the run, or a new folder, which gets the ranges that the run has kept."
        raise CacheError(
            f"The head was trained on features with another {fields} than this machine's {found.backbone} gives. {step}"
        )
