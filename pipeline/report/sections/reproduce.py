"""The commands that make the same run again, and those that look through its images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from featurecache.base.defaults import DEFAULT_CACHE
from featurecache.base.quoting import as_command
from featurecache.base.text import printable
from featurecache.classify.evaluation.criteria import ACCURACY
from featurecache.classify.heads.table import CLASS_WEIGHTS
from featurecache.classify.selection.settings import format_settings
from featurecache.extract.images.read import is_table
from featurecache.extract.images.read_options import MANIFEST, ReadOptions
from featurecache.extract.images.vectors.origin import is_of_vectors
from featurecache.extract.job.request import FeatureRequest
from featurecache.finetune.plan import ONE_WAY
from featurecache.finetune.recipe import Recipe
from featurecache.runs.command_lines import audit_command, extract_commands, feature_words, image_words, option_words
from featurecache.runs.documents import Config, FeatureRow, FinetuneRow, Results

# What is known of the source of weights, and how it is called.
SOURCE = {"license": "licence", "source": "from", "commit": "commit"}
# Of finetune: what is not called like the field of its recipe.
OPTIONS = {"learning_rate": "lr", "parts": "accumulate", "smoothing": "label_smoothing"}
# Of classify and of the same name in config.json; those of another value than here were given on the command line.
DEFAULTS: Mapping[str, object] = {"seed": 0, "folds": None, "calibrate": False, "shots": None, "repeats": 5,
                                  "min_per_class": 1, "metric": ACCURACY, "ensemble": False,
                                  "class_weight": CLASS_WEIGHTS[0]}  # fmt: skip


def commands(config: Config, tuned: FinetuneRow | None = None) -> list[str]:
    """`featurecache extract` for every kind of features, then `featurecache classify`, from config.json.

    tuned: how a network was fine-tuned, from results.json: then it is `featurecache finetune` alone.
    """
    if tuned is not None:
        return [_finetune_command(config, tuned)]
    requests = [FeatureRequest.from_dict(request) for request in config["requests"]]
    cache = _cache(config)
    words = ["featurecache", "classify", *_image_words(config), *feature_words(requests)]
    words += ["--heads", ",".join(config["heads"])]
    for name, default in DEFAULTS.items():
        words += option_words(name, config.get(name, default) or default, default)
    words += [word for text in format_settings(config.get("params", {})) for word in ("--param", text)]
    if cache != DEFAULT_CACHE and not is_on_vectors(config):
        words += ["--cache", str(cache)]
    return [*extract_commands(images_of(config), requests, cache, options=reading_of(config)), as_command(words)]


def given(config: Config) -> str:
    """The settings of heads that the command of a run gave, "logistic.C=0.1,1; knn.k=5"; empty for none."""
    weight = config.get("class_weight", CLASS_WEIGHTS[0])
    weighed = [] if weight == CLASS_WEIGHTS[0] else [f"class weight {weight}"]
    return "; ".join([*weighed, *format_settings(config.get("params", {}))])


def _finetune_command(config: Config, tuned: FinetuneRow) -> str:
    words = ["featurecache", "finetune", *_image_words(config), "--from", tuned["from"], "--head", tuned["head"]]
    words += ["--backbone", config["requests"][0]["backbone"]]
    words += ["--unfreeze", tuned["unfreeze"], "--size", str(tuned["size"]), "--augment", tuned["augment"]]
    if tuned["augment"] not in ONE_WAY:
        words += ["--views", str(tuned.get("views", 1))]
    if dtype := tuned.get("dtype"):  # none without maps, nor in runs of versions that did not record it
        words += ["--dtype", dtype]
    for name, value in tuned["recipe"].items():
        usual = getattr(Recipe(), name, value)  # a later version may have written more
        words += option_words(OPTIONS.get(name, name), value, usual)
    return as_command([*words, "--cache", str(_cache(config))])


def audit_commands(config: Config, run_folder: Path) -> list[str]:
    """`featurecache audit` of the images, split and first features of a run, into it, then `featurecache report`."""
    request, out = FeatureRequest.from_dict(config["requests"][0]), as_command([str(run_folder)])
    audit = audit_command(
        images_of(config),
        request,
        _cache(config),
        config.get("seed", 0),
        min_per_class=config.get("min_per_class", 1),
        options=reading_of(config),
    )
    return [f"{audit} --out {out}", f"featurecache report {out}"]


def feature_lines(results: Results) -> list[str]:
    """Return a line on each kind of features of a run: what it is, where it comes from, what it cost."""
    rows = []
    for row in results["features"]:
        rate = f", extracted at {row['images_per_second']:,.0f} images/s" if row.get("images_per_second") else ""
        layer = ", ".join(str(row[key]) for key in ("layer", "pooling") if row.get(key))
        origin = "each, from" if is_of_vectors(row.get("name", row["backbone"])) else "per image, weights"
        rows.append(
            f"{row.get('name', row['backbone'])}: {row['dim']:,} numbers {origin} {row['weights']}"
            f"{f' ({layer})' if layer else ''}{rate}{_source(row)}; key {row['key'][:12]}"
        )
    return rows


def _source(row: FeatureRow) -> str:
    """Return a clause with the licence and the source of the weights, where they are known."""
    about = row.get("about") or {}
    known = [f"{title} {printable(about[name])}" for name, title in SOURCE.items() if about.get(name)]
    return f"; {', '.join(known)}" if known else ""


def images_of(config: Config) -> str:
    """IMAGES of a run as they are named from this working folder: as they were typed, where that leads to the same."""
    typed = str(config["images"])
    place = config.get("images_at")  # not in runs from before it was kept
    return typed if place is None or os.path.abspath(typed) == place else str(place)  # noqa: PTH100 (links as typed)


def is_on_vectors(config: Config) -> bool:
    """Return whether a run is on vectors from a file, not on images."""
    return is_of_vectors(config["requests"][0]["backbone"])


def reading_of(config: Config) -> ReadOptions:
    """Return the options by which the images of a run were read."""
    return ReadOptions.from_dict(config.get("reading", {}))


def reading_of_pictures(config: Config) -> ReadOptions:
    """Return the options by which the pictures of a run are found: a table that has vectors too is one of images."""
    options = reading_of(config)
    return replace(options, as_=MANIFEST) if options.as_ is None and is_table(images_of(config)) else options


def _image_words(config: Config) -> list[str]:
    return image_words(images_of(config), reading_of(config))


def _cache(config: Config) -> Path:
    root = Path(config["cache"])
    return DEFAULT_CACHE if root == DEFAULT_CACHE.resolve() else root
