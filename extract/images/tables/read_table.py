"""A table of images as a Manifest."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from featurecache.base.defaults import SPLITS
from featurecache.base.errors import ManifestError
from featurecache.base.text import count_is, printable
from featurecache.extract.images.class_names import remark_on_alike, remark_on_several
from featurecache.extract.images.folders.split_names import split_roles
from featurecache.extract.images.left_out import MISSING_FILE, Tally
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.tables.cells import clean_labels, without_missing
from featurecache.extract.images.tables.columns import Column, no_label_hint
from featurecache.extract.images.tables.parquet_table import read_parquet
from featurecache.extract.images.tables.places import find_files
from featurecache.extract.images.tables.text_table import read_text

# Labels or splits of one file that a remark shows.
SHOWN = 3
DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def read_manifest(path: str | os.PathLike[str], options: ReadOptions | None = None) -> Manifest:
    """Read a table of images: .csv, .tsv, .txt or .parquet with columns path, label, split, group, digest.

    All but path may be missing; `options` gives them other names. `places` says where the paths lead, and out of the
    table's folder only below the root of `options`. Files that are not there are left out, unless their digest is
    known; where none is there, the table is refused.

    Raises ManifestError in one sentence that names the column, the row or the file at fault.
    """
    path, options = Path(path), options or ReadOptions()
    if not os.path.isfile(path):  # noqa: PTH113 (a pipe would be waited for)
        raise ManifestError(f"The manifest '{printable(path)}' is not an ordinary file. Name a table that is one.")
    columns = read_parquet(path, options) if path.suffix.lower() == ".parquet" else read_text(path, options)
    names = [name or "" for name in columns.of("path")]
    if not names:
        raise ManifestError(f"The manifest '{printable(path)}' has no rows: give it one for each image.")
    notes = [columns.note] if columns.note else []
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise ManifestError(f"Row {number} of '{printable(path)}' has no path: give it one, or delete it.")
    labels = clean_labels(columns.of("label"), notes)
    notes += [*remark_on_several(labels), *remark_on_alike(labels)]
    splits = splits_of(path, without_missing(columns.of("split"), "split", notes), notes)
    groups = without_missing(columns.of("group"), "group", notes)
    digests = digests_of(path, columns.of("digest"))
    files = find_files(path, names, options, known=[digest is not None for digest in digests])
    samples = list(map(Sample, files.paths, names, labels, splits, groups, digests))
    tally, lost = Tally(), {i for i in files.missing if digests[i] is None}
    for i in sorted(lost):
        tally.add(MISSING_FILE, names[i], os.path.abspath(files.paths[i]))  # noqa: PTH100 (links as named)
    return Manifest(
        path.parent,
        tuple(sample for i, sample in enumerate(samples) if i not in lost),
        tally.left_out(),
        (*notes, *files.notes, *_remark_on_contradictions(files.paths, names, labels=labels, splits=splits)),
        name=path.stem,
        no_labels=no_label_hint(columns),
    )


def _remark_on_contradictions(
    paths: Sequence[str], names: Sequence[str], *, labels: Column, splits: Column
) -> tuple[str, ...]:
    """Return a sentence on files that several rows name with different labels or splits; none for no such."""
    is_mixed = len({path[:1] == os.sep for path in paths}) > 1
    places = list(map(os.path.abspath, paths)) if is_mixed else paths  # links as named
    if len(set(places)) == len(places):
        return ()
    n_rows = Counter(places)
    found: dict[str, tuple[str, set[str], set[str]]] = {}
    for place, name, label, split in zip(places, names, labels, splits, strict=True):
        if n_rows[place] > 1:
            _, its_labels, its_splits = found.setdefault(place, (name, set(), set()))
            its_labels.update([label] if label else ())
            its_splits.update([split] if split else ())
    several = [(name, max(its_labels, its_splits, key=len)) for name, its_labels, its_splits in found.values()]
    torn = [(name, sorted(values)) for name, values in several if len(values) > 1]
    if not torn:
        return ()
    name, values = torn[0]
    return (
        f"{count_is(len(torn), 'file')} in several rows with different labels or splits, the first, "
        f"'{printable(name)}', as {' and '.join(map(printable, values[:SHOWN]))}. Keep one row for each file.",
    )


def splits_of(path: Path, splits: Column, notes: list[str]) -> Column:
    """Return train, val or test for each cell. Raises ManifestError for any other word."""
    roles = split_roles(sorted({split for split in splits if split is not None}))
    for number, split in enumerate(splits, start=1):
        if split is not None and roles.get(split) not in SPLITS:
            raise ManifestError(
                f"Row {number} of '{printable(path)}' has the split '{printable(split)}'. "
                "A split is train, val or test."
            )
    other = [f"'{printable(word)}' as {role}" for word, role in roles.items() if not word.lower().startswith(role)]
    if other:
        notes.append(f"Splits of '{printable(path)}' are read so: {', '.join(other)}.")
    return [None if split is None else roles[split] for split in splits]


def digests_of(path: Path, digests: Column) -> list[bytes | None]:
    """Return the 32 bytes of each digest, None for none. Raises ManifestError for a text that is none."""
    found: list[bytes | None] = []
    for number, digest in enumerate(digests, start=1):
        text = (digest or "").strip()
        if text and not DIGEST.fullmatch(text):
            raise ManifestError(
                f"Row {number} of '{printable(path)}' has the digest '{printable(text[:80])}'. A digest is the SHA-256 "
                "of the image file in 64 hexadecimal digits; give a column with anything else another name."
            )
        found.append(bytes.fromhex(text) if text else None)
    return found
