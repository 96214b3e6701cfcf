"""Galleries of images: confident errors, labels that no head agrees with, copies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from featurecache.base.text import count
from featurecache.report.wording import percent
from featurecache.runs.folder import SPLITS_FILE
from featurecache.runs.reading import reading_run
from featurecache.runs.record import Record
from featurecache.runs.split_list import ListedImage, read_splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Four rows on a wide page: what people look through.
MAX_CARDS = 24


class Card(TypedDict):
    """One or two images by name, and the text below them."""

    names: list[str]
    text: str


class Gallery(TypedDict):
    """Cards under a title and a caption; the errors of a head have no title."""

    title: NotRequired[str]
    caption: str
    cards: list[Card]


def read_listed(folder: Path) -> dict[str, ListedImage]:
    """Every image of the run by its name; empty where splits.csv is gone. Raises PipelineError where it is damaged."""
    if not os.path.lexists(folder / SPLITS_FILE):
        return {}
    with reading_run(folder):
        return {image.path: image for image in read_splits(folder)}


def test_units(record: Record, listed: Mapping[str, ListedImage]) -> NDArray[np.integer[Any]]:
    """The unit of each test image of the run, (N,): copies and images of a group share one."""
    from featurecache.classify.evaluation.units import units_of

    hashed = b"".join(sha256(digest.encode()).digest() for digest in record.digests)  # whatever the file says it is
    digests = np.frombuffer(hashed, dtype=np.uint8).reshape(-1, 32)
    return units_of(digests, [listed[name].group if name in listed else None for name in record.names])


def confident_errors(record: Record, number: int) -> Gallery:
    """Return the errors of one head, the most confident first."""
    answers = record.answers[number]
    wrong = np.flatnonzero(answers.predicted != record.y)
    order = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:MAX_CARDS]
    cards: list[Card] = [
        {
            "names": [record.names[i]],
            "text": f"{record.classes[record.y[i]]}, called {record.classes[answers.predicted[i]]} "
            f"({percent(float(answers.confidence[i]), 0)})",
        }
        for i in order
    ]
    if not len(wrong):
        return {"caption": f"{record.titles[number]} makes no error on the test images.", "cards": []}
    which = f"the {len(order)} most confident" if len(order) < len(wrong) else "most confident first"
    errors = f"{count(len(wrong), 'error')} of {record.titles[number]}"
    caption = f"{errors}, {which}: the label, the prediction and its probability."
    return {"caption": caption, "cards": cards}


def agreed_doubts(record: Record) -> Gallery | None:
    """Test images that all heads call alike, against the label; None with fewer than two heads."""
    if len(record.answers) < 2:
        return None
    said = np.stack([answers.predicted for answers in record.answers])
    agreed = np.flatnonzero((said == said[0]).all(axis=0) & (said[0] != record.y))
    doubt = np.mean([answers.doubt for answers in record.answers], axis=0)
    order = agreed[np.argsort(-doubt[agreed], kind="stable")][:MAX_CARDS]
    cards: list[Card] = [
        {"names": [record.names[i]], "text": f"{record.classes[record.y[i]]}, or {record.classes[said[0, i]]}?"}
        for i in order
    ]
    caption = f"There is no test image on which all {len(said)} heads agree against its label."
    if cards:
        shown = f" The {len(cards)} least likely labels are shown." if len(cards) < len(agreed) else ""
        caption = (
            f"{count(len(agreed), 'test image is', 'test images are')} predicted alike by all {len(said)} heads, "
            f"against the label: these are wrong labels or hard images.{shown}"
        )
    return {"title": "Labels that every head disagrees with", "caption": caption, "cards": cards}


def copies(listed: Mapping[str, ListedImage]) -> Gallery | None:
    """Files with the same bytes, those in different splits or classes first; None where splits.csv is gone."""
    if not listed:
        return None
    same: dict[str, list[str]] = {}
    for name, image in listed.items():
        same.setdefault(image.digest, []).append(name)
    groups = [names for names in same.values() if len(names) > 1]
    groups.sort(key=lambda names: -len({listed[name].split for name in names}))
    across = sum(len({listed[name].split for name in names}) > 1 for names in groups)
    torn = sum(len({listed[name].label for name in names}) > 1 for names in groups)
    cards: list[Card] = [
        {"names": names[:2], "text": " = ".join(f"{listed[n].split}: {listed[n].label}" for n in names[:2])}
        for names in groups[:MAX_CARDS]
    ]
    caption = "No two files of this run hold the same bytes."
    if groups:
        caption = (
            f"{count(len(groups), 'image')} of this run are in more than one file; {across:,} of them in more than "
            f"one split, {torn:,} under more than one label. An image in both train and test can make test "
            "accuracy too high, or too low where its labels differ."
        )
    return {"title": "Exact copies", "caption": caption, "cards": cards}
