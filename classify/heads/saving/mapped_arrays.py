"""The arrays of a safetensors file, left in it.

    8 bytes         N, the length of the header, little-endian
    N bytes         JSON: {name: {"dtype", "shape", "data_offsets": [begin, end]}}, offsets from the end of the header
    the rest        the arrays

(https://github.com/huggingface/safetensors#format.) Only for files that this process has just written: the file of
somebody else could be cut off while its arrays are read, which ends the process.
"""

import json
from pathlib import Path

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray

METADATA = "__metadata__"
DTYPES = {
    "BOOL": "?", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "I8": "i1", "I16": "<i2", "I32": "<i4",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


def mapped_arrays(path: Path) -> dict[str, AnyArray]:
    """Return the arrays of a safetensors file by name, read only, each a map of its part of the file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: _mapped(path, np.dtype(DTYPES[each["dtype"]]), each["shape"], 8 + length + each["data_offsets"][0])
        for name, each in header.items()
        if name != METADATA
    }


def _mapped(path: Path, dtype: np.dtype, shape: list[int], offset: int) -> AnyArray:
    if 0 in shape:  # no file can be mapped for nothing
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", offset, tuple(shape)))
