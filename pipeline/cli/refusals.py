"""Images that are not in a result: named on stderr, listed in errors.csv, counted in the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.exits import DONE, REFUSED
from featurecache.cli.text import refusals_text
from featurecache.runs.folder import ERRORS_FILE, RESULTS_FILE
from featurecache.runs.refusal_list import list_refusals

if TYPE_CHECKING:
    from featurecache.extract.images.digests import Refusal
    from featurecache.extract.images.manifest import Manifest


def list_refused(place: Path, refusals: Sequence[Refusal], images: Sequence[str]) -> int:
    """Name the images that were refused, here and in errors.csv, and return the exit code that they make."""
    listed_in = list_refusals(place, refusals, images)
    if not refusals:
        return DONE
    print(refusals_text(refusals, listed_in), file=sys.stderr)
    return REFUSED


def exit_code_of_unread(manifest: Manifest) -> int:
    """Return the exit code where files or folders are left out that somebody would miss: they are among the notes."""
    return REFUSED if manifest.left_out.missed else DONE


def errors_place(out: Path | None, cache_root: Path) -> Path:
    """Return errors.csv next to `out`, unless that is `out` itself or the list of a run; then in the cache root."""
    if out is None or out.name.lower() == ERRORS_FILE or (out.parent / RESULTS_FILE).exists():
        return cache_root / ERRORS_FILE
    return out.parent / ERRORS_FILE
