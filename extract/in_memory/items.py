"""Items: images as a program has them, which are paths, bytes of files, PIL images and arrays of pixels."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from featurecache.base.errors import NoImages
from featurecache.base.text import printable

ALLOWED = "a path, the bytes of an image file, a PIL image, or a uint8 array (H, W, 3) or (H, W)"
BYTES = (bytes, bytearray, memoryview)
LONGEST_NAME = 100


def list_items(items: Any) -> list[Any]:
    """Return the images that a program gives, each checked for its type.

    items: an iterable of N items; an array of pixels (N, H, W, 3) or (N, H, W); an array or a table column of paths,
    (N,) or (N, 1). Raises NoImages for one item in place of several, and for what is no item, by its number.
    """
    if is_item(items):
        raise NoImages(f"One image is given where several are expected: give a list, [image], of {ALLOWED}.")
    if isinstance(items, Mapping | Set) or not isinstance(items, Iterable) or getattr(items, "ndim", 1) == 0:
        raise NoImages(f"The images are {_kind(items)} and have to be a list; each is {ALLOWED}.")
    listed = list(_column(items))
    for i, each in enumerate(listed):
        if wrong := no_item(each):
            raise NoImages(f"Item {i} is {wrong}; give {ALLOWED}.")
    return listed


def is_item(value: Any) -> bool:
    """Whether a value is one image; an array (H, W, 3) is, one of (N, H, W) is not."""
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3))
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or is_pil(value)


def is_pil(value: Any) -> bool:
    """Whether a value is an image of Pillow."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def no_item(value: Any) -> str:
    """Return what a value is that is no image; empty for an image."""
    if isinstance(value, np.bytes_):
        return "of a numpy array of bytes, which drops zeros at the end of each: make that array with dtype=object"
    if isinstance(value, np.ndarray):
        is_pixels = value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3))
        if is_pixels and value.size:
            return ""
        return f"an array of {value.dtype} and shape {value.shape}"
    if isinstance(value, str | os.PathLike) and not os.fspath(value):
        return "an empty path"
    return "" if is_item(value) else _kind(value)


def _kind(value: Any) -> str:
    """Return the type of a value with its article."""
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeio' else 'a'} {name}"


def path_of(item: Any) -> str:
    """Return the path of an item, empty where it has none."""
    return os.fsdecode(item) if isinstance(item, str | os.PathLike) else ""


def name_of(item: Any, number: int) -> str:
    """Return the path of an item, or "item 3" where it has none."""
    return path_of(item) or f"item {number}"


def called(item: Any, number: int) -> str:
    """Return the subject of a sentence on an item: its number, and its path if it has one."""
    path = path_of(item)
    return f"Item {number}, '{printable(path[-LONGEST_NAME:])}'," if path else f"Item {number}"


def _column(items: Any) -> Any:
    """Return the items of an array or a table; those of a single column are its cells."""
    if hasattr(items, "to_numpy"):
        items = items.to_numpy()
    is_column = isinstance(items, np.ndarray) and items.ndim == 2 and items.dtype != np.uint8
    if is_column and items.shape[1] == 1:
        return items[:, 0]
    return items
