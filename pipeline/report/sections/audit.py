"""Findings of `featurecache audit` in the run folder: audit.json as galleries.

Every list of findings in it becomes a gallery: the images as pictures, their splits and labels, and whatever else the
finding says, so that the page follows when the audit learns to look for more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurecache.base.errors import PipelineError
from featurecache.base.text import count, printable, short
from featurecache.evaluate.leak_effect import read_leakage
from featurecache.report.sections.galleries import MAX_CARDS, Card, Gallery
from featurecache.report.sections.reproduce import audit_commands
from featurecache.runs.documents import Config, Results, split_sizes
from featurecache.runs.folder import AUDIT_FILE, RESULTS_FILE
from featurecache.runs.reading import read_json
from featurecache.runs.record_checks import need, read_results

# To say how this run would be audited, and whether an audit is of its split.
NEEDED = ("config.images", "config.requests", "config.cache", "dataset.n_train", "dataset.n_val", "dataset.n_test")
MEANINGS = {
    "duplicates": "The same bytes in more than one file. In both train and test they can make test accuracy too high, "
    "or too low where their labels differ.",
    "near_duplicates": "Not the same bytes but nearly the same pixels: one picture saved, resized or toned again.",
    "groups_across_splits": "Groups with images on both sides of the split, so test images are not independent of "
    "training images.",
    "conflicting_labels": "The same image under more than one label.",
    "doubtful_labels": "Labels that disagree with the predictions of heads trained without these images.",
    "outliers": "Images far from all others: often broken, empty, or of another kind.",
    "small_classes": "Classes with too few test images to be judged.",
    "refused": "Images that could not be read, so that no finding is about them.",
}
# A card shows at most two images; for a finding about more, its text has their number.
CARD_IMAGES = 2
# Shown by the pictures and by the title above them.
UNSPOKEN = frozenset({"path", "paths", "split", "splits", "label", "labels", "across_splits", "digest"})


@dataclass(frozen=True)
class Audited:
    """What the audit found, as galleries; what leaked test images change; what cannot be shown."""

    galleries: list[Gallery] = field(default_factory=list)
    leakage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_audit(run_folder: Path, config: Config | None = None) -> Audited:
    """Read audit.json of a run folder; without one, or with a damaged one, a note says so.

    config: config.json with places as they are now, for the command that audits; that of results.json where not given.
    That of another split is shown, but its findings about test accuracy are not about this run.
    """
    path = run_folder / AUDIT_FILE
    results = read_results(run_folder)
    need(run_folder / RESULTS_FILE, results, NEEDED)
    to_audit = printable("; ".join(audit_commands(config or results["config"], run_folder)))
    if not os.path.lexists(path):
        advice = f"This run was not audited. To add near-duplicates, doubtful labels and outliers: {to_audit}"
        return Audited(notes=[advice])
    try:
        values = read_json(path)
    except PipelineError as error:
        return Audited(notes=[str(error)])
    lists = {
        key: value
        for key, value in values.items()
        if isinstance(value, list) and all(isinstance(each, dict) for each in value)
    }
    found = [_gallery(kind, findings) for kind, findings in lists.items()]
    if not _is_of_same_split(values, results):
        note = "The audit is of another split, so its findings about test accuracy are left out. To audit this one:"
        return Audited(found, notes=[f"{note} {to_audit}"])
    verdict = read_leakage(values)
    return Audited(found, [verdict] if verdict else [])


def _is_of_same_split(audit: Mapping[str, Any], results: Results) -> bool:
    counts = split_sizes(results["dataset"])
    return bool(audit.get("seed") == results["config"].get("seed", 0) and audit.get("n_of_split") == counts)


def _gallery(kind: str, findings: list[dict[str, Any]]) -> Gallery:
    cards = [_card(finding) for finding in findings[:MAX_CARDS]]
    shown = f", {len(cards)} of them here" if len(cards) < len(findings) else ""
    found = f"{count(len(findings), 'finding')}{shown}." if findings else "Nothing was found."
    title = f"Audit: {kind.replace('_', ' ')}"
    return {"title": title, "caption": f"{MEANINGS.get(kind, '')} {found}".strip(), "cards": cards}


def _card(finding: Mapping[str, Any]) -> Card:
    paths = _several(finding, "path")
    places = [
        f"{split}: {label}"
        for split, label in zip(_several(finding, "split"), _several(finding, "label"), strict=False)
    ]
    if not places:
        places = _several(finding, "label")
    words = [f"{key.replace('_', ' ')} {short(value)}" for key, value in finding.items() if key not in UNSPOKEN]
    more = [f"{len(paths)} images"] if len(paths) > CARD_IMAGES else []
    return {"names": paths[:CARD_IMAGES], "text": ", ".join([" = ".join(places[:CARD_IMAGES]), *more, *words])}


def _several(finding: Mapping[str, Any], key: str) -> list[str]:
    """Return the value of `key`, or the list under its plural."""
    several = finding.get(f"{key}s", [])
    return [str(finding[key])] if key in finding else list(map(str, several if isinstance(several, list) else []))
