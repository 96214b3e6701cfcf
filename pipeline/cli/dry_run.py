"""How the images of a command are read, shown in place of what it does (`--dry-run`)."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from featurecache.base.exits import DONE, REFUSED
from featurecache.base.text import count, printable
from featurecache.cli.file_counts_text import files_lines
from featurecache.extract.images.manifest import IMAGE, Manifest

# So many classes are named; all of them are in --json.
MAX_NAMED = 20
MADE = "none given: made by digest, 64 % train, 16 % val, 20 % test"


def show_reading(
    manifest: Manifest, *, as_json: bool, needs_labels: bool = True, command: str = "", stop: str | None = None
) -> int:
    """Print how a data set is read, and return the exit code that the files left out make.

    stop: the sentence with which the command would stop for the labels; None where it does not look at them first.
    """
    from featurecache.runs.file_counts import count_files

    files = count_files(manifest, manifest.samples, needs_labels=needs_labels)
    values = {
        "images": printable(manifest.source),
        **({} if manifest.noun == IMAGE else {"noun": manifest.noun}),
        **_contents(manifest),
        "remarks": [printable(remark) for remark in manifest.remarks],
        "refused": [refusal.to_dict() for refusal in files.refusals],
        "files": files.to_dict(),
        **({} if stop is None else {"would_stop": stop}),
    }
    print(json.dumps(values, indent=2) if as_json else _text(values, f"{command} would stop: {stop}" if stop else ""))
    return REFUSED if files.refusals else DONE


def _contents(manifest: Manifest) -> dict[str, Any]:
    samples = manifest.samples
    labels = Counter(printable(sample.label) for sample in samples if sample.label is not None)
    splits = Counter(sample.split for sample in samples if sample.split is not None)
    return {
        "n_images": len(samples),
        "classes": dict(sorted(labels.items())),
        "n_without_label": len(samples) - labels.total(),
        "splits": {split: splits[split] for split in ("train", "val", "test") if splits[split]},
        "n_groups": len({sample.group for sample in samples} - {None}),
    }


def _text(values: dict[str, Any], stop: str) -> str:
    classes, splits = values["classes"], values["splits"]
    named = [f"{name} ({n:,})" for name, n in list(classes.items())[:MAX_NAMED]]
    named += [f"{len(classes) - MAX_NAMED:,} more"] if len(classes) > MAX_NAMED else []
    lines = [
        f"{values['images']}: {count(values['n_images'], values.get('noun', IMAGE))}",
        f"classes: {len(classes):,}{': ' if named else ''}{', '.join(named)}",
        f"splits: {', '.join(f'{n:,} {split}' for split, n in splits.items()) or MADE}",
        f"groups: {values['n_groups'] or 'none'}",
    ]
    if n := values["n_without_label"]:
        lines.append(f"without a label: {n:,}")
    lines += values["remarks"]
    lines += files_lines(values["files"])
    lines += [f"  {each['path']}: {each['reason']}" for each in values["refused"][:MAX_NAMED]]
    lines += [stop] if stop else []
    return "\n".join([*lines, "Nothing was done."])
