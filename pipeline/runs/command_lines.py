"""The command lines that extract the features of a run and look through its images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featurecache.base.defaults import DEFAULT_CACHE, DEFAULT_LAYER
from featurecache.base.described import descriptions, option_name
from featurecache.base.errors import UsageError
from featurecache.base.quoting import as_command
from featurecache.base.text import printable
from featurecache.extract.backbones.names import LOCAL, library_of, local_folder
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.vectors.origin import is_of_vectors
from featurecache.extract.job.request import FeatureRequest

# Between the names of backbones whose features are joined.
JOINT = "+"


def parts_of(request: FeatureRequest) -> tuple[FeatureRequest, ...]:
    """Return the requests that `a+b` joins, in their order; of one backbone the request itself. Raises UsageError."""
    names = request.backbone.split(JOINT)
    if len(names) == 1 or is_of_vectors(request.backbone) or _is_one_folder(request.backbone):
        return (request,)
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f"'{printable(request.backbone)}' is to join backbones: name two or more different ones with {JOINT} "
            "between them."
        )
    return tuple(replace(request, backbone=name) for name in names)


def _is_one_folder(name: str) -> bool:
    """Whether a name is that of a folder on this machine with the joint in its path."""
    return library_of(name) == LOCAL and os.path.isdir(local_folder(name))  # noqa: PTH112 (closed folders)


def parts_of_all(requests: Sequence[FeatureRequest]) -> tuple[FeatureRequest, ...]:
    """Return the requests for single backbones that these need, each once."""
    return tuple(dict.fromkeys(part for request in requests for part in parts_of(request)))


def extract_commands(
    images: str, requests: Sequence[FeatureRequest], cache_root: Path, *, options: ReadOptions | None = None
) -> list[str]:
    """Return the commands that would fill the missing rows; layers of one network are one, and one forward pass.

    None for vectors from a file.
    """
    together: dict[FeatureRequest, list[FeatureRequest]] = {}
    for request in parts_of_all(requests):
        if is_of_vectors(request.backbone):
            continue
        together.setdefault(replace(request, layer=None), []).append(request)
    return [
        as_command(_words("extract", image_words(images, options), found, cache_root)) for found in together.values()
    ]


def audit_command(
    images: str,
    request: FeatureRequest,
    cache_root: Path,
    seed: int,
    *,
    min_per_class: int = 1,
    options: ReadOptions | None = None,
) -> str:
    """Return the command that looks thoroughly at the same images, features and split."""
    words = _words("audit", image_words(images, options), [request], cache_root)
    words += option_words("seed", seed, 0) + option_words("min_per_class", min_per_class, 1)
    return as_command(words)


def image_words(images: str, options: ReadOptions | None = None) -> list[str]:
    """Return IMAGES and the options by which they are read."""
    given = {} if options is None else options.given()
    return [images, *(word for name, value in given.items() for word in option_words(name, value, None))]


def feature_words(requests: Sequence[FeatureRequest]) -> list[str]:
    """Return the options that name these features: what may be repeated of each, the rest of the first.

    None for vectors, which their file names.
    """
    if is_of_vectors(requests[0].backbone):
        return []
    words: list[str] = []
    for name, described in descriptions(FeatureRequest).items():
        usual = getattr(FeatureRequest(), name)
        values = list(dict.fromkeys(getattr(request, name) for request in requests))
        if not described.repeatable:
            words += option_words(name, values[0], usual)
        elif values != [usual]:
            words += [word for value in values for word in option_words(name, value or DEFAULT_LAYER, None)]
    return words


def option_words(name: str, value: object, usual: object) -> list[str]:
    """Return an option of the command line, by the name of its field; nothing for the value that it has anyway."""
    if value is None or value == usual:
        return []
    option = option_name(name)
    if value is True:
        return [option]
    return [option, ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]


def _words(verb: str, images: Sequence[str], requests: Sequence[FeatureRequest], cache_root: Path) -> list[str]:
    words = ["featurecache", verb, *images, *feature_words(requests)]
    return words if cache_root.resolve() == DEFAULT_CACHE.resolve() else [*words, "--cache", str(cache_root)]
