"""Groups and copies are units in splits, folds, draws, intervals and tests alike."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from featurecache.classify.evaluation.metrics import answers_interval
from featurecache.cli.main import DONE, run
from featurecache.cli.text import leaderboard_text
from featurecache.evaluate.classify_plan import ClassifyPlan, assign_cv_folds
from featurecache.evaluate.join import label_samples
from featurecache.extract.cache.memo import Memo
from featurecache.extract.images.read import read_images
from featurecache.extract.job.request import FeatureRequest
from featurecache.report.sections.details import reliability_figure


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
    plan = ClassifyPlan((FeatureRequest(),), ("ridge",), tmp_path, tmp_path / "run", folds=4)
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory, digits_folder, filled_cache) -> Path:
    """Runs `plain` on 90 digits and `grouped` on the same in twelve groups, and `half` of its heads alone."""
    root = tmp_path_factory.mktemp("grouped")
    images = Path(shutil.copytree(digits_folder, root / "digits"))
    manifest = write_manifest(images, grouped_rows(images))
    for name, place, heads in (
        ("plain", digits_folder, "ridge,centroid"), ("grouped", manifest, "ridge,centroid"), ("half", manifest, "knn"),
    ):  # fmt: skip
        command = ["classify", str(place), "--cache", str(filled_cache), "--heads", heads, "--quiet", "--seed", "3"]
        assert run([*command, "--out", str(root / name)]) == DONE
    return root


def test_results_tables_and_pages_say_that_groups_are_resampled(runs):
    results = {name: json.loads((runs / name / "results.json").read_text()) for name in ("plain", "grouped")}
    data = results["grouped"]["dataset"]
    with (runs / "grouped" / "splits.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert data["n_test_units"] == len({row["group"] for row in rows}) < data["n_test"]
    said = f"intervals and tests by {data['n_test_units']} groups"
    assert said in leaderboard_text(results["grouped"])
    assert f"(sign-flip test over {data['n_test_units']} groups of all pairs" in leaderboard_text(results["grouped"])
    assert said in (runs / "grouped" / "report.html").read_text()
    assert results["plain"]["dataset"]["n_test_units"] == results["plain"]["dataset"]["n_test"]
    assert "intervals and tests" not in leaderboard_text(results["plain"])
    assert "(McNemar's exact test of all pairs" in leaderboard_text(results["plain"])


def test_accuracy_has_the_interval_of_its_groups(runs):
    results = json.loads((runs / "grouped" / "results.json").read_text())
    with (runs / "grouped" / "splits.csv").open() as file:
        group_of = {row["digest"]: row["group"] for row in csv.DictReader(file)}
    rows = pyarrow.parquet.read_table(runs / "grouped" / "predictions.parquet").to_pylist()
    for head in results["heads"]:
        own = [row for row in rows if row["head"] == head["name"]]
        units = np.unique([group_of[row["digest"]] for row in own], return_inverse=True)[1]
        right = np.array([row["label"] == row["predicted"] for row in own])
        assert head["test"]["accuracy_ci"] == pytest.approx(list(answers_interval(right, units)))


def test_the_bars_of_the_reliability_diagram_are_by_groups():
    rng = np.random.default_rng(0)
    units = np.arange(300) // 30
    right = rng.uniform(size=10)[units] > 0.4
    confidence = np.full(300, 0.75, dtype=np.float32)
    by_images, by_groups = (reliability_figure(confidence, right, each) for each in (None, units))
    narrow, wide = (figure["figure"]["data"][1]["error_y"]["array"][0] for figure in (by_images, by_groups))
    assert wide > 2 * narrow
    assert wide == round(100 * (answers_interval(right, units)[1] - right.mean()), 2)


def test_runs_on_the_same_groups_are_compared_by_groups(runs, capsys):
    assert run(["compare", str(runs / "grouped"), str(runs / "half"), "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    (test_set,) = found["test_sets"]
    assert (test_set["test_units"], test_set["n_test"] > test_set["n_test_units"]) == ("group", True)
    (pair,) = [p for p in found["pairs"] if not {"ridge", "centroid"} - {p[k].split("/")[-1] for k in "ab"}]
    (own,) = json.loads((runs / "grouped" / "results.json").read_text())["pairs"]
    assert pair["p"] == own["p"]
    assert run(["compare", str(runs / "grouped"), str(runs / "plain")]) == DONE
    text = capsys.readouterr().out
    assert f"sign-flip test over {test_set['n_test_units']} groups or McNemar's exact test of all pairs" in text


def test_a_run_of_a_version_that_wrote_no_groups_is_compared_by_images(runs, tmp_path, capsys):
    old = Path(shutil.copytree(runs / "plain", tmp_path / "old"))
    lines = (old / "splits.csv").read_text().splitlines()
    (old / "splits.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    results = json.loads((old / "results.json").read_text())
    del results["dataset"]["n_test_units"], results["dataset"]["test_units"]
    (old / "results.json").write_text(json.dumps(results))
    assert run(["compare", str(old), str(runs / "plain")]) == DONE
    assert "McNemar's exact test of all pairs" in capsys.readouterr().out
    assert "McNemar's exact test" in leaderboard_text(results)
