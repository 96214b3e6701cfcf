"""An audit as files: audit.json, and a CSV table for each kind of finding."""

from __future__ import annotations

from pathlib import Path

from featurecache.evaluate.audit import Audit
from featurecache.runs.folder import AUDIT_FILE, AUDIT_TABLE, write_csv, write_json, writing_file


def write_audit(found: Audit, folder: Path) -> None:
    """Write audit.json and a CSV for every list into a folder, which may be that of a run.

    Each file is whole or as it was. Raises OSError, and PipelineError where a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with writing_file(folder / AUDIT_FILE) as file:
        write_json(file, found.to_dict())
    for name, rows in {**found.findings, "refused": [refusal.to_dict() for refusal in found.refusals]}.items():
        columns = list(rows[0]) if rows else ["nothing_found"]
        with writing_file(folder / AUDIT_TABLE.format(name)) as file:
            write_csv(file, columns, [[_cell(value) for value in row.values()] for row in rows])


def _cell(value: object) -> object:
    return " | ".join(map(str, value)) if isinstance(value, list) else value
