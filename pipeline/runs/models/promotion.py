"""A head of a run as the next version of a model: a run folder with that head alone, and all that predicting needs.

It is written under a temporary name and renamed, and only then recorded as the current version, so that a kill at any
instant leaves the version before. Copied are the head (of an ensemble its members too), the weights of a tuned network,
activation ranges, splits.csv, and weights files that lie in the run or have moved since it was made. Weights that are
elsewhere stay there, and are found as those of a moved run (`runs.moved`).
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from featurecache.base.errors import PipelineError, UsageError
from featurecache.base.files import TEMPORARY, flush, flush_tree, make_folder, temporary_path
from featurecache.base.progress import Progress, Silent
from featurecache.base.text import printable
from featurecache.classify.heads.saving.folder import check_saved, load_meta
from featurecache.extract.backbones.named_file import file_and_part
from featurecache.extract.job.request import FeatureRequest
from featurecache.runs.documents import Config, HeadRow, Results
from featurecache.runs.folder import (
    CONFIG_FILE,
    CURRENT_FILE,
    RANGES_FILES,
    RESULTS_FILE,
    SPLITS_FILE,
    WEIGHTS_FILE,
    is_run,
    known_files,
    write_json,
)
from featurecache.runs.head_choice import choose_head, features_of, head_title, members_of, metric_of
from featurecache.runs.models.places import (
    MODELS_ROOT,
    check_name,
    find_run,
    locked,
    promoted_versions,
    version_numbers,
    write_current,
)
from featurecache.runs.models.versions import ModelVersion, describe, differences
from featurecache.runs.moved import find_cache, with_run_weights
from featurecache.runs.record_checks import damaged, need, read_config, read_results, saved_folder

# Parts of results.json that are about all heads of the run.
ABOUT_ALL_HEADS = ("pairs", "transfer", "failed", "interrupted", "shots", "doubling")


def promote_model(
    run: str | os.PathLike[str],
    name: str,
    *,
    head: str | None = None,
    root: Path = MODELS_ROOT,
    progress: Progress | None = None,
) -> ModelVersion:
    """Make a head of a run, the best on val unless named, the current version of a model, and return that version.

    root: the folder of all models. Raises UsageError for a name that a model cannot have, for a folder that is no run
    or a head that it does not have, PipelineError for a damaged run or where the model cannot be written,
    SavedHeadError for a damaged head.
    """
    check_name(name)
    progress = progress or Silent()
    folder = find_run(run, say=progress.say, root=root).resolve()  # `latest` may lead to another run in a moment
    results, config = read_results(folder), read_config(folder)
    need(folder / CONFIG_FILE, config, ["cache", "images"])
    chosen = choose_head(results["heads"], head, metric=metric_of(results))
    kept = [chosen, *members_of(results["heads"], chosen)]
    config = _config_of_now(folder, config, results)
    document = _document(folder, results, kept, config)
    files = _files(folder, kept)
    model = root / name
    try:
        make_folder(model)
        with locked(model):
            number = _write_version(model, document, config, files)
            before = _before(model)
            write_current(model, [*before, number])
    except OSError as error:
        raise _unwritable(model, error) from error
    notes = differences(model / f"v{before[-1]}", model / f"v{number}") if _has_run(model, before) else []
    return describe(model, number, is_current=True, notes=notes)


def roll_back(name: str, *, root: Path = MODELS_ROOT) -> ModelVersion:
    """Make the version before the current one of a model current again, and return it; no version is removed.

    Raises UsageError where there is no such model or no version before, PipelineError for a damaged record.
    """
    check_name(name)
    model = root / name
    versions = promoted_versions(model)
    try:
        with locked(model):
            *versions, current = promoted_versions(model)
            while versions and not is_run(model / f"v{versions[-1]}"):
                versions.pop()
            if not versions:
                raise UsageError(f"The model '{name}' has no version before {current}: there is nothing to go back to.")
            write_current(model, versions)
    except OSError as error:
        raise _unwritable(model, error) from error
    notes = differences(model / f"v{current}", model / f"v{versions[-1]}") if _has_run(model, [current]) else []
    return describe(model, versions[-1], is_current=True, notes=notes)


def _before(model: Path) -> list[int]:
    """The versions promoted before; none for a new model."""
    return promoted_versions(model) if (model / CURRENT_FILE).exists() else []


def _has_run(model: Path, versions: Sequence[int]) -> bool:
    return bool(versions) and is_run(model / f"v{versions[-1]}")


def _config_of_now(folder: Path, config: Config, results: Results) -> Config:
    """config.json with the cache where it is now, so that a version of a run that has moved finds it."""
    found = find_cache(folder, Path(config["cache"]), results.get("features", []))
    return config if found is None else cast(Config, {**config, "cache": str(found.resolve())})


def _document(folder: Path, results: Results, kept: Sequence[HeadRow], config: Config) -> Results:
    """results.json of the version: one head, which is marked, with the members of an ensemble behind it."""
    names = {features_of(head) for head in kept}
    about = {key: value for key, value in results.items() if key not in ABOUT_ALL_HEADS}
    about |= {
        "config": config,
        "features": [row for row in results.get("features", []) if row.get("name", row["backbone"]) in names],
        "heads": [{**kept[0], "promoted": True}, *({**head, "promoted": False} for head in kept[1:])],
        "promoted": {
            "from": str(folder),
            "head": head_title(kept[0]),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }
    return cast(Results, about)


def _files(folder: Path, kept: Sequence[HeadRow]) -> dict[str, Path]:
    """Return {name in the version: file} of all that is copied.

    Raises PipelineError, SavedHeadError for what is damaged.
    """
    known, found = known_files(folder), dict[str, Path]()
    for head in kept:
        place = saved_folder(folder, head)
        if not head.get("members"):
            check_saved(place)
            found |= {file.name: file for file in _weights_of(folder, load_meta(place))}
        prefix = f"{Path(head['saved']).as_posix()}/"
        own = [name for name in known if name.startswith(prefix)]
        if not own:
            raise damaged(folder / RESULTS_FILE, f"'{printable(head['saved'])}' has no files of a head")
        found |= {name: folder / name for name in own}
    wanted = re.compile(rf"{RANGES_FILES}|{re.escape(SPLITS_FILE)}|{re.escape(WEIGHTS_FILE)}")
    return found | {name: folder / name for name in known if wanted.fullmatch(name)}


def _weights_of(folder: Path, meta: dict[str, Any]) -> list[Path]:
    """Return the weights files of a head that lie in its run, or are no more where the run was made with them."""
    found = []
    for each in (meta, *(meta.get("parts") or [])):
        request = FeatureRequest.from_dict(each.get("request"))
        now = with_run_weights(folder, request).weights
        path = file_and_part(now)[0] if now else Path()
        if path.name == WEIGHTS_FILE or not path.is_absolute() or not path.is_file():
            continue
        if now != request.weights or path.resolve().is_relative_to(folder.resolve()):
            found.append(path)
    return found


def _write_version(model: Path, document: Results, config: Config, files: dict[str, Path]) -> int:
    """Write the next version of a model, whole or not at all, and return its number."""
    for name in os.listdir(model):  # noqa: PTH208 (names only)
        if TEMPORARY.match(name):  # of a killed process, for this one has the lock
            shutil.rmtree(model / name, ignore_errors=True)
    promoted = _before(model)
    number = max([0, *version_numbers(model), *promoted]) + 1
    place = model / f"v{number}"
    temporary = temporary_path(place)
    try:
        temporary.mkdir()
        for name, file in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, temporary / name)
        write_json(temporary / CONFIG_FILE, config)
        write_json(temporary / RESULTS_FILE, document)
        flush_tree(temporary)
        temporary.rename(place)
        flush(model)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return number


def _unwritable(model: Path, error: OSError) -> PipelineError:
    return PipelineError(
        f"The model '{printable(model)}' cannot be written: {error.strerror or error}. Free some space or correct the "
        "permissions; its versions are as they were."
    )
