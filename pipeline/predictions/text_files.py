"""Predictions as text, each block written before the next is made: CSV, JSON lines, JSON, a table for people."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TextIO

from featurecache.base.text import PADDING
from featurecache.predictions.writing import Writing

NO_LABELS = "No {} got a label."


def write_csv_text(file: TextIO, writing: Writing) -> None:
    """Write a header and a row for every image."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(writing.listing.names())
    for block in writing.blocks:
        writer.writerows(writing.listing.rows(block))


def write_json_lines(file: TextIO, writing: Writing) -> None:
    """Write an object for every image, each in a line."""
    for block in writing.blocks:
        file.writelines(f"{json.dumps(row)}\n" for row in writing.listing.documents(block))


def write_json_text(file: TextIO, writing: Writing) -> None:
    """Write one object: the head, the images, how many are right, and what is refused."""
    file.write(f'{{\n  "head": {json.dumps(writing.head)},\n  "images": [')
    before = "\n    "
    for row in chain.from_iterable(map(writing.listing.documents, writing.blocks)):
        file.write(f"{before}{json.dumps(row)}")
        before = ",\n    "
    files = writing.files
    unsure = {} if writing.listing.least is None else {"unsure": writing.outcome.n_unsure}
    rest = {
        "labelled": writing.outcome.to_dict(),
        **unsure,
        "refused": [refusal.to_dict() for refusal in files.refusals],
        "files": files.to_dict(),
    }
    file.write(f"\n  ],{json.dumps(rest, indent=2).removeprefix('{')}\n")


def write_table(file: TextIO, writing: Writing) -> None:
    """Write an aligned table of labels, as wide as the first block needs it; a sentence where there is no image."""
    listing = writing.listing
    n = len(listing.names()) if listing.top is not None else 3
    widths: list[int] = []
    for block in writing.blocks:
        rows = [tuple(map(_cell, row[:n])) for row in listing.rows(block)]
        if not widths:
            header = listing.names()[:n]
            widths = [
                max(len(name) + PADDING, *map(len, column))
                for name, column in zip(header, zip(*rows, strict=True), strict=True)
            ]
            rows = [tuple(header), tuple("-" * width for width in widths), *rows]
        file.writelines(_aligned(rows, widths, listing.are_texts()[:n]))
    if not widths:
        file.write(f"{NO_LABELS.format(writing.outcome.noun)}\n")


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"


def _aligned(rows: Iterable[Sequence[str]], widths: Sequence[int], are_texts: Sequence[bool]) -> Iterator[str]:
    for row in rows:
        cells = zip(row, widths, are_texts, strict=True)
        yield "  ".join(c.ljust(n) if is_text else c.rjust(n) for c, n, is_text in cells).rstrip() + "\n"
