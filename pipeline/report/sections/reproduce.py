"""The commands that make the same run again, and those that look through its images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from featurecache.base.defaults import DEFAULT_CACHE, DEFAULT_LAYER
from featurecache.base.quoting import as_command
from featurecache.classify.selection.settings import format_settings
from featurecache.extract.job.request import FeatureRequest
from featurecache.finetune.plan import ONE_WAY
from featurecache.finetune.recipe import Recipe
from featurecache.runs.command_lines import audit_command, extract_commands

# Of finetune: what is not called like the field of its recipe.
OPTIONS = {"learning_rate": "lr", "parts": "accumulate", "smoothing": "label-smoothing"}
# Of classify and of the same name in config.json; those of another value than here were given on the command line.
DEFAULTS: Mapping[str, object] = {"seed": 0, "folds": None, "calibrate": False, "shots": None, "repeats": 5,
                                   "min_per_class": 1}  # fmt: skip


def commands(config: Mapping[str, Any], tuned: Mapping[str, Any] | None = None) -> list[str]:
    """`featurecache extract` for every kind of features, then `featurecache classify`, from config.json.

    tuned: how a network was fine-tuned, from results.json: then it is `featurecache finetune` alone.
    """
    if tuned is not None:
        return [_finetune_command(config, tuned)]
    requests = [FeatureRequest.from_dict(request) for request in config["requests"]]
    cache = _cache(config)
    words = ["featurecache", "classify", images_of(config), *_features_words(requests)]
    words += ["--heads", ",".join(config["heads"])]
    for name, default in DEFAULTS.items():
        value = config.get(name, default)
        if value not in (default, []):
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [",".join(map(str, value)) if isinstance(value, list) else str(value)]
    words += [word for text in format_settings(config.get("params", {})) for word in ("--param", text)]
    if cache != DEFAULT_CACHE:
        words += ["--cache", str(cache)]
    return [*extract_commands(images_of(config), requests, cache), as_command(words)]


def given(config: Mapping[str, Any]) -> str:
    """The settings of heads that the command of a run gave, "logistic.C=0.1,1; knn.k=5"; empty for none."""
    return "; ".join(format_settings(config.get("params", {})))


def _finetune_command(config: Mapping[str, Any], tuned: Mapping[str, Any]) -> str:
    words = ["featurecache", "finetune", images_of(config), "--from", tuned["from"], "--head", tuned["head"]]
    words += ["--backbone", config["requests"][0]["backbone"]]
    words += ["--unfreeze", tuned["unfreeze"], "--size", str(tuned["size"]), "--augment", tuned["augment"]]
    if tuned["augment"] not in ONE_WAY:
        words += ["--views", str(tuned.get("views", 1))]
    if tuned.get("dtype"):  # none without maps, nor in runs from before it was told
        words += ["--dtype", tuned["dtype"]]
    for name, value in tuned["recipe"].items():
        if value != getattr(Recipe(), name, value):  # a later version may have written more
            words += [f"--{OPTIONS.get(name, name.replace('_', '-'))}", str(value)]
    return as_command([*words, "--cache", str(_cache(config))])


def audit_commands(config: Mapping[str, Any], run_folder: Path) -> list[str]:
    """`featurecache audit` of the images, split and first features of a run, into it, then `featurecache report`."""
    request, out = FeatureRequest.from_dict(config["requests"][0]), as_command([str(run_folder)])
    same = {"min_per_class": config.get("min_per_class", 1)}
    audit = audit_command(images_of(config), request, _cache(config), config.get("seed", 0), **same)
    return [f"{audit} --out {out}", f"featurecache report {out}"]


def images_of(config: Mapping[str, Any]) -> str:
    """IMAGES of a run as they are named from this working folder: as they were typed, where that leads to the same."""
    typed = str(config["images"])
    place = config.get("images_at")  # not in runs from before it was kept
    return typed if place is None or os.path.abspath(typed) == place else str(place)  # noqa: PTH100 (links as typed)


def _cache(config: Mapping[str, Any]) -> Path:
    root = Path(config["cache"])
    return DEFAULT_CACHE if root == DEFAULT_CACHE.resolve() else root


def _features_words(requests: list[FeatureRequest]) -> list[str]:
    """The options that name these features: backbones times layers, the rest in common."""
    backbones = list(dict.fromkeys(request.backbone for request in requests))
    layers = list(dict.fromkeys(request.layer for request in requests))
    words = [] if backbones == [FeatureRequest().backbone] else [w for b in backbones for w in ("--backbone", b)]
    if layers != [None]:
        words += [word for layer in layers for word in ("--layer", layer or DEFAULT_LAYER)]
    for option, value in asdict(requests[0]).items():
        if option not in ("backbone", "layer") and value != getattr(FeatureRequest(), option):
            words += [f"--{option}", str(value)]
    return words
