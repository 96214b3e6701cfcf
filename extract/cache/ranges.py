"""Activation ranges of a network in int8, next to the vectors that were computed with them.

    <cache folder>/ranges.json     RangesDocument: the network, and low and high of each quantised tensor
    <run>/ranges-<key>.json        the same of features that a run has heads on, for where its cache is gone

Ranges are measured once, by a calibration; their digest is in the key of the cache. Other machines and versions take
them from here. Nothing in them refers to the names in a graph, which the exporter chooses: the tensors are in the order
of the graph, each with the operator that computes it and the largest of its weights, by which another graph is noticed.
A file may be untrusted: only finite numbers within bounds are read, and those of another digest are not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from featurecache.base.errors import CacheDamaged, CacheError, CacheUnwritable
from featurecache.base.files import make_folder, replacing_file
from featurecache.base.plain_files import UnfitFile, read_json_file
from featurecache.base.text import printable
from featurecache.extract.cache.listing import shard_paths
from featurecache.extract.cache.spec import KEY_DIGITS, FeatureSpec, slug
from featurecache.extract.cache.store import read_spec

RANGES_FILE = "ranges.json"
# The format of the file, and of how a network is quantised by its ranges: both are in the digest.
RANGES_FORMAT = 1
# A network has a few hundred tensors; an operator's name has some ten characters.
MOST_BYTES, MOST_TENSORS, LONGEST_OPERATOR, LARGEST = 1 << 22, 20_000, 64, 1e30


class TensorRange(NamedTuple):
    """The range of one tensor. operator: that computes it. weight: its largest absolute weight, 0 if it has none."""

    operator: str
    weight: float
    low: float
    high: float


class RangesDocument(TypedDict):
    """ranges.json. network: as `network_of`. tensors: the fields of TensorRange, in the order of the graph."""

    format: int
    network: dict[str, Any]
    tensors: list[list[Any]]


@dataclass(frozen=True)
class Ranges:
    """The activation ranges of a network, in the order of its graph."""

    tensors: tuple[TensorRange, ...]

    @property
    def digest(self) -> str:
        """The SHA-256 of operators and ranges, in hex: the field `ranges` of a spec."""
        bounds = [(each.operator, each.low, each.high) for each in self.tensors]
        text = json.dumps([RANGES_FORMAT, bounds], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_list(cls, tensors: Any) -> Ranges:
        """Return the ranges with these values. Raises ValueError or TypeError."""
        if not isinstance(tensors, list) or not 1 <= len(tensors) <= MOST_TENSORS:
            raise ValueError("it has no list of tensors")
        return cls(tuple(_tensor_range(*each) for each in tensors))


def _tensor_range(operator: Any, weight: Any, low: Any, high: Any) -> TensorRange:
    numbers = (weight, low, high)
    if not isinstance(operator, str) or len(operator) > LONGEST_OPERATOR:
        raise ValueError("an operator has no name")
    if not all(type(each) in (int, float) and abs(each) <= LARGEST for each in numbers):
        raise ValueError("a range is no pair of numbers")
    if not (weight >= 0 and low <= 0 <= high):
        raise ValueError("a range does not hold 0")
    return TensorRange(operator, float(weight), float(low), float(high))


def network_of(spec: FeatureSpec) -> dict[str, Any]:
    """Return the fields of a spec that its ranges depend on; data type, decoding and view are not among them."""
    names = ("backbone", "weights_digest", "layer", "pooling")
    return {**{name: getattr(spec, name) for name in names}, "transform": spec.transform.to_dict()}


def write_ranges(folder: Path, spec: FeatureSpec, ranges: Ranges) -> None:
    """Write ranges.json of a cache folder, which is made if it is missing. Raises CacheUnwritable."""
    try:
        make_folder(folder)
        _write(folder / RANGES_FILE, spec, ranges)
    except OSError as error:
        raise CacheUnwritable(
            f"The activation ranges '{folder / RANGES_FILE}' cannot be written: {error.strerror}. "
            "Choose another cache with --cache, or correct its permissions or free space."
        ) from error


def read_ranges(folder: Path, spec: FeatureSpec) -> Ranges:
    """Return the ranges that the vectors of a cache folder were computed with.

    Raises CacheDamaged if the file is gone, is damaged or has other ranges than the key.
    """
    return _checked(folder / RANGES_FILE, spec)


def keep_ranges(cache_root: Path, specs: Iterable[FeatureSpec], run: Path, say: Callable[[str], None]) -> None:
    """Write the ranges of features in int8 into a run, too. say: gets a sentence where a cache has none.

    Raises OSError.
    """
    for spec in specs:
        try:
            ranges = read_ranges(cache_root / spec.folder_name, spec) if spec.ranges else None
        except CacheDamaged as error:
            say(str(error))
            continue
        if ranges is not None:
            _write(run / kept_name(spec), spec, ranges)


def give_ranges(run: Path, spec: FeatureSpec, cache_root: Path, say: Callable[[str], None]) -> None:
    """Write the ranges that a run has kept into the cache of its features, if no cache of the network has any.

    say: gets a sentence where those of the run are damaged. Raises CacheUnwritable.
    """
    path = run / kept_name(spec)
    if not spec.ranges or not os.path.lexists(path) or find_ranges(cache_root, spec) is not None:
        return
    try:
        ranges = _checked(path, spec)
    except CacheDamaged as error:
        say(f"The activation ranges '{printable(path)}' are measured again: {printable(error.reason)}.")
    else:
        write_ranges(cache_root / spec.folder_name, spec, ranges)


def ranges_of_run(run: Path, spec: FeatureSpec, cache_root: Path) -> Ranges:
    """Return the ranges of features of a run: those of their cache, or those that the run has kept.

    Raises CacheDamaged if there are none.
    """
    try:
        return read_ranges(cache_root / spec.folder_name, spec)
    except CacheDamaged:
        if not os.path.lexists(run / kept_name(spec)):
            raise
        return _checked(run / kept_name(spec), spec)


def kept_name(spec: FeatureSpec) -> str:
    """Return the name of the file of a run with the ranges of its features."""
    return f"ranges-{spec.key[:KEY_DIGITS]}.json"


def has_ranges(folder: Path, spec: FeatureSpec) -> bool:
    """Whether the ranges of a spec are in its cache folder; True for a spec without ranges."""
    try:
        return not spec.ranges or bool(read_ranges(folder, spec).tensors)
    except CacheDamaged:
        return False


def damaged_ranges(folder: Path, spec: FeatureSpec | None) -> list[tuple[Path, str]]:
    """Return the path of ranges.json and the reason if it is not the one in the key; a missing one is no damage."""
    path = folder / RANGES_FILE
    if spec is None or not spec.ranges or not os.path.lexists(path):
        return []
    try:
        read_ranges(folder, spec)
    except CacheDamaged as error:
        return [(path, error.reason)]
    return []


def find_ranges(cache_root: Path, spec: FeatureSpec) -> Ranges | None:
    """Return the ranges of the network of a spec from any cache below a root; None if there are none.

    The cache with the same spec in all other fields comes first, then those that have vectors, then by name.
    """
    found: dict[tuple[bool, bool, str], Ranges] = {}
    for path in sorted(cache_root.glob(f"*/{RANGES_FILE}")):
        folder = path.parent
        try:
            network, ranges = _read(path)
            written = read_spec(folder)
            has_vectors = bool(shard_paths(folder))
        except (OSError, ValueError, KeyError, TypeError, CacheError):
            continue
        if network == network_of(spec) and (written is None or written.ranges == ranges.digest):
            is_same = folder.name == replace(spec, ranges=ranges.digest).folder_name
            found[not is_same, not has_vectors, folder.name] = ranges
    return found[min(found)] if found else None


def lost_ranges(cache_root: Path, spec: FeatureSpec) -> dict[str, str]:
    """Return {digest: reason} of the ranges of caches with the same spec in all other fields that cannot be read."""
    found = {}
    for folder in sorted(cache_root.glob(f"{slug(spec.backbone)}-*")):
        try:
            written = read_spec(folder)
        except CacheError:
            continue
        if written is None or not written.ranges or replace(written, ranges=spec.ranges) != spec:
            continue
        try:
            read_ranges(folder, written)
        except CacheDamaged as error:
            found[written.ranges] = f"'{printable(folder / RANGES_FILE)}': {printable(error.reason)}"
    return found


def _write(path: Path, spec: FeatureSpec, ranges: Ranges) -> None:
    document: RangesDocument = {
        "format": RANGES_FORMAT,
        "network": network_of(spec),
        "tensors": [list(each) for each in ranges.tensors],
    }
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(document) + "\n", encoding="utf-8")


def _read(path: Path) -> tuple[dict[str, Any], Ranges]:
    """Return the network and the ranges of a file. Raises OSError, ValueError, KeyError or TypeError."""
    document: RangesDocument = read_json_file(path, path.parent, most_bytes=MOST_BYTES)
    if document["format"] != RANGES_FORMAT:
        raise UnfitFile("it has another format")
    return document["network"], Ranges.from_list(document["tensors"])


def _checked(path: Path, spec: FeatureSpec) -> Ranges:
    """Return the ranges of a file. Raises CacheDamaged if they are not those of a spec."""
    try:
        network, ranges = _read(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = "the file is gone" if isinstance(error, FileNotFoundError) else f"they are damaged ({error})"
        raise _damaged(path, reason) from error
    if ranges.digest != spec.ranges or network != network_of(spec):
        raise _damaged(path, "they are those of other features")
    return ranges


def _damaged(path: Path, reason: str) -> CacheDamaged:
    error = CacheDamaged(
        f"The activation ranges '{printable(path)}' are not used: {printable(reason)}. Move them away and run extract "
        "again: they are measured again, and if they come out as other ones, in a new cache."
    )
    error.reason = reason
    return error
