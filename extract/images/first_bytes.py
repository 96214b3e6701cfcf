"""The image format of files whose names do not say it, by their first bytes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from featurecache.extract.images.formats import FORMATS, N_FIRST_BYTES, Format, format_of_bytes

N_THREADS = 8
BY_NAME = {each.name: each for each in FORMATS}


def read_formats(paths: Sequence[str]) -> list[Format | OSError | None]:
    """Return the format of each file, None where it is no image, or the error of one that cannot be read."""
    if len(paths) < N_THREADS:
        return [_read_format(path) for path in paths]
    with ThreadPoolExecutor(N_THREADS, thread_name_prefix="first bytes") as pool:
        return list(pool.map(_read_format, paths, chunksize=1))


def _read_format(path: str) -> Format | OSError | None:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (hot loop)
            return format_of_bytes(file.read(N_FIRST_BYTES))
    except OSError as error:
        return error
