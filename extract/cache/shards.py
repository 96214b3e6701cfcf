"""Shards: immutable HDF5 files with rows of a feature cache.

    /features   (n, D) float32 or float16, chunks of about 1 MiB of whole rows, Fletcher-32 checksums, fill value NaN
    /digests    (n, 32) uint8, SHA-256 of each image
    /paths      (n,) UTF-8, the name under which the image was first read
    /seals      (n, 16) uint8, a checksum of each row (checksums.py), with an attribute sha256 over all rows and paths
    attributes  those of ShardRecord

A shard is written under a temporary name, flushed to the disk and renamed: under its final name it is complete. The
file format is HDF5 1.10's, whose own structures have checksums too. Shards of format 2 have seals; those of format 1
may have none and are then read without, until `compact` rewrites them. `shard_structure.py` checks the structure of a
file, `opening.py` opens it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np

from featurecache.base.errors import CacheUnwritable
from featurecache.base.files import make_folder, replacing_file
from featurecache.base.plain_files import UnfitFile, parse_json
from featurecache.extract.cache.checksums import content_digest, seal_rows
from featurecache.extract.cache.opening import damaged, open_shard, reason_of
from featurecache.extract.cache.shard_structure import SEALED_FORMAT
from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIX = ".h5"
FIRST_REVISION = 1  # of the decode rules: that of shards that do not record one
# Large enough to read fast, small enough to read one row quickly (h5py issue 1568: one row a chunk is 15 times slower).
CHUNK_BYTES = 1 << 20
# Bytes read at a time: enough to keep the disk busy, little compared with the result.
READ_BYTES = 8 << 20
# "v110" stores checksums with HDF5's own structures, and every library since 2017 reads it.
LIBVER = ("v110", "v110")
OTHER_IMAGES = "it holds other images than when the cache was opened"
# The attributes whose type is checked on reading: those that are shown, compared and added up.
TEXTS, NUMBERS = ("engine", "device", "weights", "created", "spec"), ("batch_size", "seconds", "decode_revision")


class ShardRecord(TypedDict, total=False):
    """The attributes of a shard, which describe how its rows were computed.

    spec: a FeatureSpec as JSON. versions: of libraries, by name; JSON when it is read. created: UTC in ISO 8601.
    seconds: time spent on these rows. decode_revision: of the rules by which their images were read, 1 where it is not
    stored. n: number of rows, which is counted on reading and not stored.
    """

    format: int
    spec: str
    engine: str
    device: str
    batch_size: int
    weights: str
    versions: Mapping[str, str | None] | str
    created: str
    seconds: float
    decode_revision: int
    n: int


@dataclass(frozen=True)
class ShardRows:
    """Rows in memory: features (n, D), digests (n, 32) uint8, and the names of the n images."""

    features: NDArray[np.floating[Any]]
    digests: NDArray[np.uint8]
    names: list[str]


def new_shard_name(*, after: str = "") -> str:
    """Return a UUID of version 7, so that names sort by creation time (RFC 9562, section 5.7).

    It sorts after the shard name `after`, even if that was made by a clock ahead of this machine's.
    """
    milliseconds = time.time_ns() // 1_000_000
    with contextlib.suppress(ValueError):
        milliseconds = max(milliseconds, (uuid.UUID(after.removesuffix(SUFFIX)).int >> 80) + 1)
    value = (milliseconds << 80) | (0x7 << 76) | (secrets.randbits(12) << 64) | (0b10 << 62) | secrets.randbits(62)
    return f"{uuid.UUID(int=value)}{SUFFIX}"


def write_shard(folder: Path, rows: ShardRows, spec: FeatureSpec, record: ShardRecord, *, after: str = "") -> Path:
    """Publish rows as one new shard in `folder`, whose name sorts after the shard `after`, and return its path.

    record: attributes in addition to format and spec. Raises CacheUnwritable if the folder cannot be written or the
    disk is full; no file remains then.
    """
    path = folder / new_shard_name(after=after)
    try:
        make_folder(folder)
        with replacing_file(path) as temporary:
            _write_file(temporary, rows, spec, record)
    except (OSError, RuntimeError) as error:
        raise CacheUnwritable(
            f"The cache folder '{folder}' cannot be written: {reason_of(error)}. "
            "Free some space or correct its permissions and run the same command again: finished rows are kept."
        ) from error
    return path


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Any]:
    """Yield an HDF5 file that is built in memory and written as a whole at the end.

    If HDF5 itself writes to a disk that is full, its clean-up crashes the process (HDF5 2.0).
    """
    import h5py

    with h5py.File(path, "w", driver="core", backing_store=False, block_size=CHUNK_BYTES, libver=LIBVER) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)


def _write_file(path: Path, rows: ShardRows, spec: FeatureSpec, record: ShardRecord) -> None:
    import h5py

    features = np.asarray(rows.features, dtype=spec.dtype)
    n, width = features.shape
    row_bytes = width * features.itemsize
    names = np.array([name.encode("utf-8", "backslashreplace") for name in rows.names], dtype=bytes)
    with new_file(path) as file:
        file.create_dataset(
            "features",
            data=features,
            chunks=(max(1, min(n, CHUNK_BYTES // row_bytes)), width),
            fletcher32=True,
            fillvalue=np.nan,
        )
        file.create_dataset("digests", data=rows.digests, chunks=(n, 32), fletcher32=True)
        text = h5py.string_dtype("utf-8", max(1, names.dtype.itemsize))
        file.create_dataset("paths", data=names.astype(text), chunks=(n,), fletcher32=True)
        seals = seal_rows(spec, rows.digests, features)
        sealed = file.create_dataset("seals", data=seals, chunks=seals.shape, fletcher32=True)
        write_attributes(sealed, {"sha256": content_digest(seals, names)})
        write_attributes(file, {"format": SEALED_FORMAT, "spec": spec.to_json(), **record})


def write_attributes(file: Any, values: Mapping[str, Any]) -> None:
    """Write attributes of a file: numbers and text as they are, anything else as JSON.

    Text has a fixed length, which HDF5 stores in its checksummed structures. Text of variable length is stored in a
    heap without a checksum, where a flipped bit makes HDF5 search for ever.
    """
    import h5py

    for name, value in values.items():
        if isinstance(value, int | float):
            file.attrs[name] = value
        else:
            text = (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "backslashreplace")
            file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))


def read_attributes(file: Any) -> dict[str, Any]:
    """Return the attributes of a file as Python values; JSON as text."""
    return {name: _plain(value) for name, value in file.attrs.items()}


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("utf-8") if isinstance(value, bytes) else value


def read_digests(path: Path, spec: FeatureSpec) -> NDArray[np.uint8]:
    """Return the digests (n, 32) of a shard. Raises CacheDamaged if it is not a complete shard of `spec`."""
    return read_rows(path, spec)[0]


def read_rows(path: Path, spec: FeatureSpec) -> tuple[NDArray[np.uint8], int]:
    """Return the digests (n, 32) and the decode revision of a shard; raises as `read_digests` does."""
    with open_shard(path) as file:
        check_spec(path, file, spec)
        revision = _plain(file.attrs.get("decode_revision", FIRST_REVISION))
        return file["digests"][:], revision if isinstance(revision, int) else FIRST_REVISION


def check_spec(path: Path, file: Any, spec: FeatureSpec) -> None:
    """Raise CacheDamaged if the open shard holds features of another spec, width or type."""
    if _text_of(path, file, "spec") != spec.to_json():
        raise damaged(path, "its features are those of another spec")
    features = file["features"]
    if features.shape[1] != spec.feature_dim or features.dtype != np.dtype(spec.dtype):
        raise damaged(path, f"its features are {features.shape[1]} numbers in {features.dtype}, unlike its spec")


def spec_of(path: Path) -> FeatureSpec:
    """Return the spec in the attributes of a shard. Raises CacheDamaged if it is not a spec."""
    with open_shard(path) as file:
        try:
            return FeatureSpec.from_dict(parse_json(_text_of(path, file, "spec")))
        except (UnfitFile, ValueError, KeyError, TypeError) as error:
            raise damaged(path, "its attribute 'spec' is not a feature spec") from error


def _text_of(path: Path, file: Any, name: str) -> str:
    value = _plain(file.attrs.get(name))
    if not isinstance(value, str):
        raise damaged(path, f"it has no '{name}'")
    return value


def seals_of(file: Any, n: int) -> NDArray[np.uint8]:
    """Return the seals (n, 16) of an open shard; (n, 0) if it has none."""
    seals: NDArray[np.uint8] = file["seals"][:] if is_sealed(file) else np.empty((n, 0), dtype=np.uint8)
    return seals


def is_sealed(file: Any) -> bool:
    """Whether an open shard has seals; all but those of format 1 have."""
    return "seals" in file


def has_seals(path: Path) -> bool:
    """Whether a shard has seals. Raises CacheDamaged."""
    with open_shard(path) as file:
        return is_sealed(file)


def read_features(
    path: Path,
    rows: NDArray[np.int64],
    out: NDArray[np.float32],
    places: NDArray[np.int64],
    *,
    spec: FeatureSpec | None = None,
    digests: NDArray[np.uint8] | None = None,
) -> None:
    """Copy the given rows (m,) of a shard to out[places], out (N, D), and check each against its seal.

    Raises CacheDamaged if a checksum does not match, or if the rows are not the vectors of `digests` (m, 32) and
    `spec`, by default those of the shard itself.
    """
    spec = spec or spec_of(path)
    with open_shard(path) as file:
        check_spec(path, file, spec)
        dataset, seals = file["features"], seals_of(file, len(file["features"]))
        if len(rows) and int(rows.max()) >= len(dataset):
            raise damaged(path, OTHER_IMAGES)
        if digests is None or not seals.shape[1]:  # a seal says which image its row is of
            kept = file["digests"][:][rows]
            if digests is not None and not np.array_equal(kept, digests):
                raise damaged(path, OTHER_IMAGES)
            digests = kept
        block = max(1, READ_BYTES // (4 * out.shape[1]))
        order = np.argsort(rows, kind="stable")
        rows, places, digests = rows[order], places[order], digests[order]
        for start in range(0, len(dataset), block):
            first, last = np.searchsorted(rows, [start, start + block])
            if first < last:
                low, high = int(rows[first]), int(rows[last - 1]) + 1
                vectors = dataset[low:high][rows[first:last] - low]
                if seals.shape[1] and (seal_rows(spec, digests[first:last], vectors) != seals[rows[first:last]]).any():
                    is_other = not np.array_equal(file["digests"][:][rows], digests)
                    raise damaged(path, OTHER_IMAGES if is_other else "its vectors do not match their seals")
                out[places[first:last]] = vectors


def read_names(path: Path) -> list[str]:
    """Return the names under which the n images were first read. Raises CacheDamaged."""
    with open_shard(path) as file:
        return names_of(path, file["paths"][:])


def names_of(path: Path, stored: NDArray[np.bytes_]) -> list[str]:
    """Return the names (n,) that are stored in a shard as text. Raises CacheDamaged."""
    try:
        return [name.decode("utf-8") for name in stored.tolist()]
    except UnicodeDecodeError as error:
        raise damaged(path, "its paths are not UTF-8") from error


def read_record(path: Path) -> ShardRecord:
    """Return the attributes of a shard and `n`, its number of rows. Raises CacheDamaged, or as `open_shard` does."""
    with open_shard(path) as file:
        return record_of(path, file)


def record_of(path: Path, file: Any) -> ShardRecord:
    """Return what `read_record` does of an open shard. Raises CacheDamaged."""
    record = read_attributes(file)
    for name, value in record.items():
        is_number = isinstance(value, int | float) and 0 <= value < float("inf")
        if (name in TEXTS and not isinstance(value, str)) or (name in NUMBERS and not is_number):
            raise damaged(path, f"its '{name}' is {str(value)[:40]}")
    return cast("ShardRecord", {**record, "n": len(file["digests"])})
