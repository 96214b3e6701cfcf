"""Stage one of F(x) = T(P(x)): a frozen pretrained backbone turns every image into a vector, once, kept in HDF5.

    errors.py      every way of saying no
    manifest.py    folders and tables become samples
    decode.py      bytes become pixels
    transform.py   pixels become the backbone's input size, in uint8
    views.py       how the same picture might also look: seeded, so that it can be cached
    architectures.py, pixels.py, weights.py, layers.py, backbones.py
                   a name becomes a frozen network with its transform, cut at one layer or several
    splitting.py, ways.py
                   a network as two: the lower part kept as it is, the upper part to be trained
    pooling.py     feature maps become vectors
    engines/       what runs the network on this machine
    spec.py        what features are a function of, and the key of that
    memo.py, digests.py, request.py
                   what need not be computed twice: file digests, and what a name resolves to
    plain_files.py, parquet_files.py, shard_structure.py, opening.py
                   files that somebody else may have written: what is opened at all, and what is damage
    seals.py       what ties a vector to its image
    shards.py      one immutable HDF5 file of rows
    cache.py, index.py
                   all rows of one spec, and the one array that shows them to other tools
    inventory.py, verify.py, compact.py, leftovers.py
                   the upkeep of caches: what there is, whether it is whole, merging and pruning, sweeping
    cores.py, loader.py, compute.py
                   working ahead in threads; chunks of images become vectors, every core busy
    thumbnails.py, source_classes.py
                   what tells copies of a picture, and what a backbone itself takes an image for
    settings.py, plan.py, progress.py, fill.py, report.py
                   the run: how, what is to do, what is said meanwhile, doing it, what was done

Importing this package imports nothing heavy; names are fetched from their modules when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ExtractError": "errors",
    "ExtractReport": "report",
    "FeatureCache": "cache",
    "FeatureRequest": "request",
    "FeatureSpec": "spec",
    "Manifest": "manifest",
    "Sample": "manifest",
    "Settings": "settings",
    "extract_features": "fill",
    "list_backbones": "backbones",
    "load_backbone": "backbones",
    "read_images": "manifest",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'extract' has no attribute {name!r}")
    return getattr(importlib.import_module(f"extract.{_HOMES[name]}"), name)
