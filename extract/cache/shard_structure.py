"""The permitted structure of a shard, checked before any row of it is read.

An HDF5 file can refer to other files: its datasets may be stored in any file of the machine (external storage), be
composed of other files (virtual datasets), or be links. A few bytes can expand to terabytes (fill values, compression),
and filters are loaded as code from the machine. A shard has none of these:

    members     features (n, D), digests (n, 32), paths (n,), and from format 2 on seals (n, 16); nothing else
    each        a dataset stored in this file, of the expected type, not larger than the file
    filters     Fletcher-32 only
    attributes  one number or one text of fixed length each

Rows and columns are compared with the spec by `shards.py`, and every row with its seal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.extract.cache.checksums import SEAL_BYTES

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

# The first format with seals, and the one that is written.
SEALED_FORMAT = 2
SHARD_FORMATS = (1, SEALED_FORMAT)
FEATURES, DIGESTS, PATHS, SEALS = MEMBERS = ("features", "digests", "paths", "seals")
ROW_SHAPES: dict[str, tuple[int, ...]] = {FEATURES: (-1,), DIGESTS: (32,), PATHS: (), SEALS: (SEAL_BYTES,)}


class Unfit(Exception):
    """The structure of a file is not that of a shard; the message is the reason."""


def check_shard_file(file: Any, n_bytes: int) -> None:
    """Raise Unfit unless the open HDF5 file of `n_bytes` has the structure of a shard; reads attributes, no dataset."""
    import h5py

    present = _members(file)
    missing = next((name for name in MEMBERS[:3] if name not in present), None)
    if missing:
        raise Unfit(f"it has no '{missing}'")
    check_attributes(file, n_bytes)
    found = _number(file, "format")
    if found not in SHARD_FORMATS:
        raise Unfit(f"it has format {found}, and this version reads {' and '.join(map(str, SHARD_FORMATS))}")
    if SEALS not in present and found >= SEALED_FORMAT:
        raise Unfit("it has no seals")
    shapes = {name: _check_dataset(file, name, n_bytes) for name in present}
    n = shapes[FEATURES][0]
    if any(shape[0] != n for shape in shapes.values()):
        raise Unfit("its parts have different numbers of rows, so its digests and features do not belong together")
    if SEALS in present:
        _check_attributes(h5py.h5o.open(file.id, SEALS.encode()), n_bytes)


def check_attributes(file: Any, n_bytes: int) -> None:
    """Raise Unfit unless every attribute of an open file is one number or one text, of a known length."""
    _check_attributes(file.id, n_bytes)


def _check_attributes(owner: Any, n_bytes: int) -> None:
    """Check those of a file or dataset, by the low level of h5py: every opened shard is checked, and most are small."""
    import h5py

    names: list[bytes] = []
    h5py.h5a.iterate(owner, names.append)
    for stored in names:
        attribute = h5py.h5a.open(owner, stored)
        name, kind = stored.decode("utf-8", "surrogateescape"), attribute.get_type()
        is_text = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
        if not (is_text or type(kind) in (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID)):
            raise Unfit(f"its attribute '{name}' is neither a number nor a text of fixed length")
        n_kind = kind.get_size()
        if attribute.shape != () or n_kind > n_bytes:
            raise Unfit(f"its attribute '{name}' is not a single value")
        if is_text:
            value = np.empty((), dtype=f"S{n_kind}")
            attribute.read(value, mtype=kind)
            _check_decodes(name, value.item())


def _check_decodes(name: str, value: bytes) -> None:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        raise Unfit(f"its attribute '{name}' is not UTF-8") from None


def _members(file: Any) -> list[str]:
    """Return the names of the datasets in the file. Raises Unfit for an unknown name or a link."""
    import h5py

    present = [name.decode("utf-8", "replace") for name in file.id]
    strange = next((name for name in present if name not in MEMBERS), None)
    if strange is not None:
        raise Unfit(f"it holds '{strange[:40]}', which is not a part of a shard")
    links = file.id.links
    for name in present:
        if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise Unfit(f"its '{name}' is a link")
    return present


def _number(file: Any, name: str) -> int:
    """Return a number in the attributes of the file, which `check_attributes` has passed. Raises Unfit."""
    import h5py

    if not h5py.h5a.exists(file.id, name.encode()):
        raise Unfit(f"it has no '{name}'")
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    if not isinstance(kind, h5py.h5t.TypeIntegerID):
        raise Unfit(f"its attribute '{name}' is no whole number")
    value = np.empty((), dtype=kind.dtype)
    attribute.read(value)
    return int(value)


def _check_dataset(file: Any, name: str, n_bytes: int) -> tuple[int, ...]:
    """Return the shape of a dataset, which has to be stored in this file. Raises Unfit."""
    import h5py

    dataset = h5py.h5o.open(file.id, name.encode())
    if not isinstance(dataset, h5py.h5d.DatasetID):
        raise Unfit(f"its '{name}' is no dataset")
    plan = dataset.get_create_plist()
    _check_storage(plan, name)
    space = dataset.get_space()
    shape: tuple[int, ...] = space.get_simple_extent_dims()
    room = ROW_SHAPES[name]
    fits = len(shape) == 1 + len(room) and all(a in (b, -1) for a, b in zip(room, shape[1:], strict=True))
    if not fits or space.get_simple_extent_dims(True) != shape:
        raise Unfit(f"its '{name}' has the shape {shape}")
    if any(chunk > max(1, side) for chunk, side in zip(_chunk(plan), shape, strict=False)):
        raise Unfit(f"its '{name}' are cut into chunks larger than all of them")
    kind = dataset.get_type()
    if not DATASET_TYPES[name](kind):
        raise Unfit(f"its '{name}' are of another type")
    if math.prod(shape) * kind.get_size() > n_bytes:
        raise Unfit(f"its '{name}' would be larger than the file")
    return shape


def _check_storage(plan: Any, name: str) -> None:
    import h5py

    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise Unfit(f"its '{name}' lie in another file")
    filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
    if filters - {h5py.h5z.FILTER_FLETCHER32}:
        raise Unfit(f"its '{name}' have a filter other than Fletcher-32")


def _chunk(plan: Any) -> tuple[int, ...]:
    import h5py

    chunk: tuple[int, ...] = plan.get_chunk() if plan.get_layout() == h5py.h5d.CHUNKED else ()
    return chunk


def _is_one_of(*dtypes: DTypeLike) -> Callable[[Any], bool]:
    wanted = [np.dtype(each) for each in dtypes]
    return lambda kind: kind.dtype in wanted


def _is_text(kind: Any) -> bool:
    import h5py

    return isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()


DATASET_TYPES = {
    FEATURES: _is_one_of("<f4", "<f2"),
    DIGESTS: _is_one_of("u1"),
    PATHS: _is_text,
    SEALS: _is_one_of("u1"),
}
