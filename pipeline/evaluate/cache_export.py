"""`featurecache cache export`: features, labels, paths, splits and groups as one file, row i for image i.

    .h5        /features (N, D), /labels (N,) codes, /paths and /splits (N,) UTF-8, /digests (N, 32) SHA-256 of each
               image, /groups (N,) UTF-8 where there are any; attributes classes, spec...
    .npz       arrays of the same names and `classes`; read with numpy alone, no pickle
    .parquet   columns path, label (the name), split, digest (SHA-256 in hexadecimal digits), group where there are any,
               features (a list of D numbers); the rest in the schema's metadata; `classify` reads it as a table of
               images, too

Of joined backbones, `a+b`, the features are those of each next to each other as they are, without a head's scales, and
`specs` has the spec of each in place of `spec`.

A label is the place of its class in `classes`, -1 where the image has none. The order is that of the manifest. Splits
are the very ones that `classify` makes with the same seed; where it could make none, they are as given or empty.
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import PipelineError, UsageError
from featurecache.base.files import replacing_file
from featurecache.base.text import printable
from featurecache.evaluate.join import groups_of, split_samples
from featurecache.evaluate.rare_classes import left_out_line, rare_classes
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.shards import LIBVER
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.images.class_names import in_order
from featurecache.extract.images.digests import Refusal, digest_samples
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.images.vectors.origin import SPECS
from featurecache.extract.job.outdated import OutdatedRows
from featurecache.extract.job.request import FeatureRequest, Resolved
from featurecache.features.feature_set import Source
from featurecache.features.finding import find_cache, refused_images, whole_cache
from featurecache.features.joined import joined_caches
from featurecache.runs.command_lines import parts_of
from featurecache.runs.file_counts import FileCounts, count_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Features are read and written in blocks of this size.
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class FeatureTable:
    """A table to export: N images in manifest order, digests (N, 32), labels (N,) codes into classes or -1.

    groups: N, "" for an image without one; empty where no image has one. parts: of several backbones that are joined.
    """

    resolved: Resolved
    cache: Source
    digests: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: list[str]
    paths: list[str]
    splits: list[str]
    groups: list[str]
    files: FileCounts
    notes: tuple[str, ...]
    parts: tuple[FeatureSpec, ...] = ()

    def blocks(self) -> Iterator[NDArray[np.floating[Any]]]:
        """The features (N, D) in the dtype that is kept, some rows at a time."""
        spec = self.resolved.spec
        step = max(1, BLOCK_BYTES // (4 * spec.feature_dim))
        for start in range(0, len(self.digests), step):
            yield self.cache.lookup(self.digests[start : start + step]).astype(spec.dtype)

    def attributes(self) -> dict[str, str]:
        """The origin of the features."""
        spec, specs = self.resolved.spec, json.dumps([part.to_document() for part in self.parts])
        return {
            "backbone": spec.backbone,
            "weights": self.resolved.weights,
            "key": spec.key,
            **({SPECS: specs} if self.parts else {"spec": spec.to_json()}),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def build_table(
    manifest: Manifest,
    request: FeatureRequest,
    *,
    cache_root: Path,
    seed: int = 0,
    min_per_class: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> FeatureTable:
    """Join the manifest and the cache. Raises FeaturesMissing where a row is missing.

    Images of classes with fewer than `min_per_class` images are exported without a split.
    """
    with Memo(cache_root, read_only=True) as memo:
        digested = digest_samples(manifest.samples, memo, on_progress=on_progress)
        refused = refused_images(digested.digests, [request], cache_root, memo)
        singles = parts_of(request)
        found = [find_cache(each, digested.digests, cache_root=cache_root, memo=memo) for each in singles]
    names = [bytes(digest) for digest in digested.digests]
    kept = [i for i, name in enumerate(names) if name not in refused]
    named = zip(digested.samples, names, strict=True)
    refusals = [Refusal(sample.name, name.hex(), refused[name]) for sample, name in named if name in refused]
    samples, digests = [digested.samples[i] for i in kept], digested.digests[kept]
    caches = [whole_cache(*each, cache_root=cache_root, digests=digests) for each in zip(found, singles, strict=True)]
    if not samples:
        first = (*digested.refusals, *refusals)[0]
        raise PipelineError(
            f"None of the {len(manifest):,} images can be exported: all are refused, the first, "
            f"'{printable(first.name)}', because: {printable(first.reason)}. Repair or replace them, and extract again."
        )
    classes = in_order({sample.label for sample in samples if sample.label is not None})
    code: dict[str | None, int] = {None: -1, **{name: i for i, name in enumerate(classes)}}
    labels = np.array([code[sample.label] for sample in samples], dtype=np.int64)
    splits, notes = _splits(samples, digests, labels, classes, seed, min_per_class)
    rows = OutdatedRows.among(samples, digests)
    notes = (*notes, *filter(None, (rows.note(cache) for _, cache in caches)))
    resolved, source, parts = joined_caches(caches)
    return FeatureTable(
        resolved,
        source,
        digests,
        labels,
        [printable(name) for name in classes],
        [printable(sample.name) for sample in samples],
        splits,
        [printable(s.group or "") for s in samples] if any(s.group for s in samples) else [],
        count_files(manifest, samples, [*digested.refusals, *refusals]),
        notes,
        parts,
    )


def _splits(
    samples: Sequence[Sample],
    digests: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: list[str],
    seed: int,
    least: int,
) -> tuple[list[str], tuple[str, ...]]:
    """The split of each sample and, where `classify` could not split them either, why they are as given or empty."""
    from featurecache.base.errors import ClassifyError

    splits = [sample.split or "" for sample in samples]
    labelled = np.flatnonzero(labels >= 0).tolist()
    if not labelled:
        return splits, ()
    groups = groups_of([samples[i] for i in labelled])
    left_out = rare_classes([classes[labels[i]] for i in labelled], digests[labelled], groups, least)
    notes = (left_out_line(left_out, least),) if left_out else ()
    for i in labelled:
        splits[i] = "" if classes[labels[i]] in left_out else splits[i]
    labelled = [i for i in labelled if classes[labels[i]] not in left_out]
    own = [samples[i] for i in labelled]
    try:
        found = split_samples(own, digests[labelled], seed=seed)
    except ClassifyError as error:
        return splits, (*notes, f"No splits are made up: {error}")
    for i, split in zip(labelled, found, strict=True):
        splits[i] = str(split)
    return splits, notes


def check_out(out: Path) -> None:
    """Raises UsageError when `out` names no format, or no place for a file."""
    if out.suffix.lower() not in WRITERS:
        raise UsageError(
            f"'{printable(out)}' ends in none of {', '.join(WRITERS)}, which say the format: name such a file."
        )
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else f"cannot be written: there is no folder '{printable(out.parent)}'"
        raise UsageError(f"'{printable(out)}' {what}. Name a file in a folder that is there.")


def write_table(table: FeatureTable, out: Path) -> None:
    """Write the table to a file, which appears when it is complete. Raises PipelineError."""
    _check_disk(table, out)
    try:
        with replacing_file(out) as temporary:
            WRITERS[out.suffix.lower()](table, temporary)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise PipelineError(
            f"'{printable(out)}' cannot be written: {reason}. Free some space, or choose another place."
        ) from error


def _check_disk(table: FeatureTable, out: Path) -> None:
    """HDF5 itself does not survive a disk that is full, so it is not let near one."""
    spec = table.resolved.spec
    needed = len(table.paths) * (spec.feature_dim * np.dtype(spec.dtype).itemsize + 64) + sum(map(len, table.paths))
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise PipelineError(
            f"'{printable(out)}' needs {needed / 1e9:.2f} GB and there are {free / 1e9:.2f} GB free: "
            f"{(needed - free) / 1e9:.2f} GB too little. Free some space or choose another place."
        )


def _write_h5(table: FeatureTable, path: Path) -> None:
    import h5py

    spec = table.resolved.spec
    shape = (len(table.digests), spec.feature_dim)
    text = h5py.string_dtype("utf-8")
    # Below the library's newest format an attribute holds 64 kB: 4,000 class names.
    with h5py.File(path, "w", libver=LIBVER) as file:
        features = file.create_dataset("features", shape, spec.dtype, fletcher32=True, fillvalue=np.nan)
        at = 0
        for block in table.blocks():
            features[at : at + len(block)] = block
            at += len(block)
        file["labels"] = table.labels
        file.create_dataset("paths", data=table.paths, dtype=text)
        file.create_dataset("splits", data=table.splits, dtype=text)
        file["digests"] = table.digests
        if table.groups:
            file.create_dataset("groups", data=table.groups, dtype=text)
        file.attrs.create("classes", table.classes, dtype=text)
        for name, value in table.attributes().items():
            file.attrs[name] = value


def _write_npz(table: FeatureTable, path: Path) -> None:
    """Write a .npz file as `numpy.savez` does, with the features some rows at a time."""
    texts = {"paths": table.paths, "splits": table.splits, "classes": table.classes}
    texts |= {"groups": table.groups} if table.groups else {}
    arrays: dict[str, Any] = {name: np.array(value, dtype=str) for name, value in texts.items()}
    arrays |= {"labels": table.labels, "digests": table.digests}
    arrays |= {name: np.array(value) for name, value in table.attributes().items()}
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            spec = table.resolved.spec
            shape, kind = (len(table.digests), spec.feature_dim), np.dtype(spec.dtype)
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
            for block in table.blocks():
                file.write(np.ascontiguousarray(block).data)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _write_parquet(table: FeatureTable, path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    spec = table.resolved.spec
    number = pyarrow.from_numpy_dtype(np.dtype(spec.dtype))
    texts = ("path", "label", "split", "digest", *(("group",) if table.groups else ()))
    columns = [(name, pyarrow.string()) for name in texts]
    metadata = {**table.attributes(), "classes": json.dumps(table.classes)}
    schema = pyarrow.schema([*columns, ("features", pyarrow.list_(number, spec.feature_dim))], metadata=metadata)
    labels = [None if code < 0 else table.classes[code] for code in table.labels]
    at = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for block in table.blocks():
            part = slice(at, at + len(block))
            vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.reshape(-1)), spec.feature_dim)
            digests = [bytes(digest).hex() for digest in table.digests[part]]
            groups = [table.groups[part]] if table.groups else []
            rows = [table.paths[part], labels[part], table.splits[part], digests, *groups, vectors]
            writer.write_table(pyarrow.Table.from_arrays([pyarrow.array(row) for row in rows], schema=schema))
            at += len(block)


WRITERS: dict[str, Callable[[FeatureTable, Path], None]] = {
    ".h5": _write_h5,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
