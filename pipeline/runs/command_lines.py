"""The command lines that extract the features of a run and look through its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from featurecache.base.defaults import DEFAULT_CACHE, DEFAULT_LAYER
from featurecache.base.quoting import as_command
from featurecache.extract.job.request import FeatureRequest


def extract_command(images: str, request: FeatureRequest, cache_root: Path) -> str:
    """The command that would fill the missing rows."""
    return extract_commands(images, [request], cache_root)[0]


def extract_commands(images: str, requests: Sequence[FeatureRequest], cache_root: Path) -> list[str]:
    """The commands that would fill the missing rows; layers of one network are one command, and one forward pass."""
    layers: dict[FeatureRequest, list[str | None]] = {}
    for request in requests:
        layers.setdefault(replace(request, layer=None), []).append(request.layer)
    return [as_command(_words("extract", images, request, found, cache_root)) for request, found in layers.items()]


def audit_command(images: str, request: FeatureRequest, cache_root: Path, seed: int, *, min_per_class: int = 1) -> str:
    """The command that looks thoroughly at the same images, features and split."""
    words = _words("audit", images, request, [request.layer], cache_root)
    words += ["--seed", str(seed)] if seed else []
    return as_command([*words, *(["--min-per-class", str(min_per_class)] if min_per_class > 1 else [])])


def _words(verb: str, images: str, request: FeatureRequest, layers: list[str | None], cache_root: Path) -> list[str]:
    words = ["featurecache", verb, images]
    for option, value in asdict(request).items():
        if option == "layer" and layers != [None]:
            words += [word for layer in layers for word in ("--layer", layer or DEFAULT_LAYER)]
        elif value is not None and value != getattr(FeatureRequest(), option):
            words += [f"--{option}", str(value)]
    if cache_root.resolve() != DEFAULT_CACHE.resolve():
        words += ["--cache", str(cache_root)]
    return words
