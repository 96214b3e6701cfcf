"""Groups and copies are units in splits, folds, draws, intervals and tests alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from extract.manifest import read_images
from extract.memo import Memo
from extract.request import FeatureRequest
from pipeline.join import label_samples
from pipeline.run import ClassifyPlan, assign_cv_folds


def write_manifest(images: Path, rows: list[tuple[str, str, str]], name: str = "list.csv") -> Path:
    """A manifest beside the images with path, label and group."""
    place = images / name
    place.write_text("\n".join(["path,label,group", *(",".join(row) for row in rows)]) + "\n")
    return place


def grouped_rows(images: Path, n_groups: int = 12) -> list[tuple[str, str, str]]:
    """Every image, in groups of all classes."""
    paths = sorted(images.glob("?/*.png"))
    return [(str(p.relative_to(images)), p.parent.name, f"patient {i % n_groups}") for i, p in enumerate(paths)]


@pytest.fixture
def copied(images) -> Path:
    """A manifest of 90 digits in twelve groups and copies of twenty, half in another group and half in none."""
    rows = grouped_rows(images)
    for i, (path, label, _) in enumerate(rows[:40:2]):
        copy = images / label / f"copy-{i}.png"
        shutil.copy(images / path, copy)
        rows.append((str(copy.relative_to(images)), label, "patient 99" if i < 3 else ""))
    return write_manifest(images, rows)


def test_copies_without_a_group_and_in_another_group_share_the_fold_and_the_side(copied, tmp_path):
    with Memo(tmp_path, read_only=True) as memo:
        labelled = label_samples(read_images(copied), memo, seed=0)
    plan = ClassifyPlan(str(copied), (FeatureRequest(),), ("ridge",), tmp_path, tmp_path / "run", folds=4)
    folds = assign_cv_folds(labelled, plan)
    rows = np.concatenate([labelled.rows("train"), labelled.rows("val")])
    n_shared = 0
    for names in ([bytes(d) for d in labelled.digests], [s.group for s in labelled.samples]):
        side_of, fold_of = {}, {}
        for name, split in zip(names, labelled.splits, strict=True):
            assert not name or side_of.setdefault(name, split) == split
        for fold, row in zip(folds, rows, strict=True):
            n_shared += names[row] in fold_of
            assert not names[row] or fold_of.setdefault(names[row], fold) == fold
    assert n_shared > 20
