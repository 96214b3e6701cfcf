"""Caches as text and as JSON: what there is, whether it is whole, and what pruning drops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.errors import UsageError
from featurecache.base.text import count, printable, readable_bytes
from featurecache.extract.cache.spec import KEY_DIGITS

if TYPE_CHECKING:
    from featurecache.extract.cache.compact import Rewriting
    from featurecache.extract.cache.inventory import CacheInfo
    from featurecache.extract.cache.verify import Damage, Verification

# Data sets that used a cache and are listed, the latest first.
MOST_IMAGES = 5


def info_lines(each: CacheInfo) -> list[str]:
    """One cache, a fact a line."""
    lines = [printable(each.folder)]
    if each.spec is not None:
        spec = each.spec
        lines.append(f"  backbone  {spec.backbone} ({each.weights or 'weights unknown'}), {spec.layer}, {spec.pooling}")
        lines[-1] += f", {spec.transform.crop} px"
        lines.append(
            f"  features  {count(each.n_rows, 'row')} of {spec.feature_dim} numbers, {spec.dtype}, {spec.precision}"
        )
        differing = spec.non_default() | ({"ranges": spec.ranges[:KEY_DIGITS]} if spec.ranges else {})
        lines[-1] += "".join(f", {name} {value}" for name, value in differing.items())
        lines[-1] += f"; {each.n_duplicates:,} second copies" if each.n_duplicates else ""
    lines.append(f"  on disk   {readable_bytes(each.n_bytes)} in {count(each.n_shards, 'shard')}")
    lines.append(f"  written   {each.written or 'unknown'}, last used {each.used or 'unknown'}")
    lines += [f"  images    {printable(images)}" for images in each.images[:MOST_IMAGES]]
    if len(each.images) > MOST_IMAGES:
        lines.append(f"            and {len(each.images) - MOST_IMAGES:,} others (--json lists them)")
    lines += [f"  DAMAGED   {text}" for text in each.damaged]
    return lines


def info_json(each: CacheInfo) -> dict[str, Any]:
    """The same for a program."""
    return {
        "folder": printable(each.folder),
        "backbone": each.spec.backbone if each.spec else None,
        "weights": each.weights,
        "layer": each.spec.layer if each.spec else None,
        "pooling": each.spec.pooling if each.spec else None,
        "size": each.spec.transform.crop if each.spec else None,
        "precision": each.spec.precision if each.spec else None,
        "key": each.spec.key if each.spec else None,
        "rows": each.n_rows,
        "duplicates": each.n_duplicates,
        "dim": each.spec.feature_dim if each.spec else None,
        "spec": each.spec.to_dict() if each.spec else None,
        "dtype": each.spec.dtype if each.spec else None,
        "shards": each.n_shards,
        "bytes": each.n_bytes,
        "written": each.written or None,
        "used": each.used or None,
        "images": [printable(images) for images in each.images],
        "damaged": list(each.damaged),
    }


def verdicts_text(
    verdicts: Sequence[Verification], moved: Mapping[Path, list[Path]], root: Path, *, repair: bool
) -> str:
    """What was found in the caches below a root, a line each, and in which of them files were set aside."""
    if not verdicts:
        return f"'{printable(root)}' holds no features yet."
    lines = []
    for each in verdicts:
        state = f"{len(each.damaged)} DAMAGED" if each.damaged else "whole"
        copies = f", {each.n_duplicates:,} second copies" if each.n_duplicates else ""
        lines.append(
            f"{printable(each.folder)}: {state}; {count(each.n_rows, 'row')} in {count(each.n_shards, 'shard')}{copies}"
            f", {readable_bytes(each.n_bytes)} read"
        )
        lines += [f"  {note}" for note in each.notes]
        lines += [f"  {printable(d.path)}: {printable(d.reason)}" for d in each.damaged]
        if each.folder in moved:
            lines.append(
                f"  {count(len(moved[each.folder]), 'file')} set aside in '{printable(each.folder / 'damaged')}'"
            )
            lines.append(f"  the next extract redoes {_n_redo(each.damaged)}")
    if any(each.damaged and each.folder not in moved for each in verdicts) and not repair:
        lines.append("'featurecache cache verify --repair' sets aside what is damaged; extract then redoes those rows.")
    return "\n".join(lines)


def _n_redo(damaged: Sequence[Damage]) -> str:
    known = sum(each.n_rows or 0 for each in damaged)
    unknown = sum(each.n_rows is None for each in damaged)
    return f"{known:,} rows" + (f" and those of {unknown} files that do not tell how many" if unknown else "")


def verdict_json(each: Verification, moved: list[Path] | None) -> dict[str, Any]:
    """The verdict on one cache for a program; moved: the files that were set aside, None where none were to be."""
    return {
        "folder": printable(each.folder),
        "whole": not each.damaged,
        "rows": each.n_rows,
        "duplicates": each.n_duplicates,
        "shards": each.n_shards,
        "bytes": each.n_bytes,
        "damaged": [{"path": printable(d.path), "reason": d.reason, "rows_to_redo": d.n_rows} for d in each.damaged],
        "notes": list(each.notes),
        "set_aside": None if moved is None else [printable(path) for path in moved],
    }


def pruning_json(plan: Rewriting, backbone: str) -> dict[str, Any]:
    """What pruning one cache drops, for a program."""
    share = plan.n_unused / max(1, plan.n_unused + plan.n_rows + plan.n_duplicates)
    return {
        "folder": printable(plan.folder),
        "backbone": backbone,
        "rows": plan.n_rows,
        "rows_unused": plan.n_unused,
        "bytes_unused": round(share * plan.n_bytes),
    }


def check_root(root: Path) -> None:
    """Raise UsageError where there is no cache folder."""
    if not root.is_dir():
        raise UsageError(
            f"There is no cache folder '{printable(root)}'. Name one with --cache, or make it with "
            "'featurecache extract IMAGES'."
        )
