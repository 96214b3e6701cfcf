"""Runs side by side: paired where the test images are the same, and a plain word where they are not."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from statsmodels.stats.contingency_tables import mcnemar as referee

from featurecache.cli.main import DONE, FAILED, USAGE, run

HEADS = "ridge,centroid"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, digits_folder, filled_cache) -> Path:
    """Folders: `one` and `two` on the same split, `other` and `more` on another, each with its heads."""
    root = tmp_path_factory.mktemp("runs")
    for name, heads, seed in (("one", HEADS, "0"), ("two", "knn", "0"), ("other", HEADS, "5"), ("more", "knn", "5")):
        command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", heads, "--seed", seed]
        assert run([*command, "--out", str(root / name), "--quiet"]) == DONE
    return root


def compared(capsys, *folders: Path) -> dict:
    assert run(["compare", *map(str, folders), "--json"]) == DONE
    return json.loads(capsys.readouterr().out)


def right_answers(folder: Path, head: str) -> np.ndarray:
    rows = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pylist()
    return np.array(
        [r["label"] == r["predicted"] for r in sorted(rows, key=lambda r: r["digest"]) if r["head"] == head]
    )


def test_heads_of_two_runs_on_the_same_test_images_are_paired(runs, capsys):
    found = compared(capsys, runs / "one", runs / "two")
    assert {row["test_set"] for row in found["heads"]} == {1}
    assert len(found["pairs"]) == 3
    assert found["notes"] == []
    for pair in found["pairs"]:
        a, b = (right_answers(runs / title.split("/")[0], title.split("/")[-1]) for title in (pair["a"], pair["b"]))
        table = [[(a & b).sum(), (a & ~b).sum()], [(b & ~a).sum(), (~a & ~b).sum()]]
        assert pair["p"] == pytest.approx(referee(table, exact=True).pvalue)
    accuracies = [row["accuracy"] for row in found["heads"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert found["heads"][0]["rank"] == 1
    assert found["heads"][0]["tied_with_best"] is True


def test_costs_stand_beside_quality(runs, capsys):
    row = compared(capsys, runs / "two")["heads"][0]
    assert row["features_bytes"] == 90 * 1280 * 4
    saved = runs / "two" / "heads" / "efficientnet_lite0--knn"
    assert row["head_bytes"] == sum(path.stat().st_size for path in saved.iterdir())
    features = json.loads((runs / "two" / "results.json").read_text())["features"][0]
    assert row["extract_seconds"] == features["extract_seconds"]
    assert row["predict_1000_seconds"] >= 1000 / features["images_per_second"] - 0.001


def test_other_test_images_cannot_be_paired_and_the_table_says_so(runs, capsys):
    found = compared(capsys, runs / "one", runs / "other")
    assert {pair["test_set"] for pair in found["pairs"]} == {1, 2}
    assert {pair["a"].split("/")[0] == pair["b"].split("/")[0] for pair in found["pairs"]} == {True}
    (note,) = found["notes"]
    assert note.startswith("other was tested on")
    assert "those of one (split otherwise): their heads cannot be paired" in note


def changed(runs: Path, name: str, folder: Path, **values: object) -> Path:
    """A copy of a run whose results.json says something else."""
    results = json.loads((shutil.copytree(runs / name, folder) / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results | values))
    return folder


def of_head(rows: list[dict], head: str) -> list[dict]:
    return [row for row in rows if row["head"] == head]


def test_two_splits_of_the_same_images_are_joined(runs, capsys):
    found = compared(capsys, runs / "one", runs / "other")
    assert [row["n_splits"] for row in found["over_splits"]] == [2, 2]
    for row in found["over_splits"]:
        each = [h["accuracy"] for h in of_head(found["heads"], row["head"])]
        assert row["accuracy"] == pytest.approx(np.mean(each))
        low, high = row["accuracy_ci"]
        assert 0 <= low <= row["accuracy"] <= high <= 1


def test_the_heads_of_a_split_may_stand_in_several_runs(runs, capsys):
    found = compared(capsys, runs / "two", runs / "one", runs / "other", runs / "more")
    assert {row["head"] for row in found["over_splits"]} == {"ridge", "centroid", "knn"}
    (knn,) = of_head(found["over_splits"], "knn")
    assert knn["n_splits"] == 2
    assert knn["accuracy"] == pytest.approx(np.mean([row["accuracy"] for row in of_head(found["heads"], "knn")]))


def test_splits_without_a_head_in_common_are_said_to_be_joined_by_nothing(runs, capsys):
    found = compared(capsys, runs / "one", runs / "more")
    assert found["over_splits"] == []
    assert (
        "The 2 splits of digits have no head in common: nothing joins them. Run the same heads on all of them."
    ) in found["notes"]


def with_accuracy(runs: Path, name: str, folder: Path, accuracy: float, created: str) -> Path:
    heads = json.loads((runs / name / "results.json").read_text())["heads"]
    heads = [{**head, "test": {**head["test"], "accuracy": accuracy}} for head in heads]
    return changed(runs, name, folder, heads=heads, created=created)


@pytest.mark.parametrize("newest", ["high", "low"])
def test_of_a_head_that_was_tested_twice_on_the_same_images_the_newest_run_counts(runs, capsys, tmp_path, newest):
    years = {"high": "2001", "low": "2000"} if newest == "high" else {"high": "2000", "low": "2001"}
    high = with_accuracy(runs, "two", tmp_path / "high", 0.9, f"{years['high']}-01-01T00:00:00Z")
    low = with_accuracy(runs, "two", tmp_path / "low", 0.1, f"{years['low']}-01-01T00:00:00Z")
    found = compared(capsys, low, high, runs / "more")
    (other,) = (row["accuracy"] for row in found["heads"] if row["run"] == "more")
    (knn,) = found["over_splits"]
    assert knn["accuracy"] == pytest.approx(((0.9 if newest == "high" else 0.1) + other) / 2)
    assert found["notes"][-1] == (
        "efficientnet_lite0/knn: tested more than once on the images of low. Over splits and in the mean rank the "
        "newest run counts."
    )


@pytest.fixture(scope="module")
def on_other_images(tmp_path_factory, digits_folder, filled_cache) -> Path:
    """A run with the heads of `one` on two thirds of the digits."""
    root = tmp_path_factory.mktemp("fewer")
    for label in ("0", "1"):
        shutil.copytree(digits_folder / label, root / "fewer" / label)
    command = ["classify", str(root / "fewer"), "--cache", str(filled_cache), "--heads", HEADS, "--quiet"]
    assert run([*command, "--out", str(root / "third")]) == DONE
    return root / "third"


def test_other_splits_are_no_other_data_set_so_that_nothing_is_ranked_over_them(runs, capsys):
    assert compared(capsys, runs / "one", runs / "other")["mean_ranks"] == []


def test_heads_are_ranked_over_data_sets_by_their_mean_over_splits(runs, capsys, on_other_images):
    found = compared(capsys, runs / "one", runs / "other", on_other_images)
    assert [row["n_data_sets"] for row in found["mean_ranks"]] == [2, 2]
    assert sum(row["mean_rank"] for row in found["mean_ranks"]) == pytest.approx(3)

    def rank(head: str, rival: str) -> float:
        of = [
            [np.mean([r["accuracy"] for r in of_head(found["heads"], h) if (r["run"] == "third") == third])
             for h in (head, rival)]
            for third in (False, True)
        ]  # fmt: skip
        return float(np.mean([1 + (theirs > ours) + 0.5 * (theirs == ours) for ours, theirs in of]))

    by_head = {row["head"]: row["mean_rank"] for row in found["mean_ranks"]}
    assert by_head == {"ridge": rank("ridge", "centroid"), "centroid": rank("centroid", "ridge")}


def test_what_a_run_says_against_itself_stands_in_the_notes(runs, capsys, tmp_path):
    warning = (
        "Test accuracies can be up to 1.00 points too high: 3 test images are in train or val too, as exact copies."
    )
    leaking = changed(runs, "one", tmp_path / "leaking", warnings=[warning])
    stopped = changed(runs, "two", tmp_path / "stopped", interrupted=True)
    assert compared(capsys, leaking, stopped)["notes"] == [
        f"leaking: {warning}",
        "stopped: It was interrupted, and has only the heads and settings that were finished by then.",
    ]


def test_other_labels_are_another_test_set(runs, capsys, tmp_path):
    relabelled = shutil.copytree(runs / "two", tmp_path / "relabelled")
    predictions = pyarrow.parquet.read_table(relabelled / "predictions.parquet")
    labels = predictions["label"].to_pylist()
    labels[0] = "2" if labels[0] != "2" else "1"
    place = predictions.schema.get_field_index("label")
    predictions = predictions.set_column(place, "label", pyarrow.array(labels))
    pyarrow.parquet.write_table(predictions, relabelled / "predictions.parquet")
    found = compared(capsys, runs / "one", relabelled)
    assert {row["test_set"] for row in found["heads"]} == {1, 2}


def test_names_are_escaped_in_every_format(runs, capsys, tmp_path):
    odd = Path(shutil.copytree(runs / "two", tmp_path / "two"))
    results = json.loads((odd / "results.json").read_text())
    results["dataset"]["name"] = "a|b <script>\x1b[31m"
    (odd / "results.json").write_text(json.dumps(results))
    for how in ("text", "csv", "markdown"):
        assert run(["compare", str(odd), "--format", how]) == DONE
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert ("<script>" in out) == (how != "markdown")
        if how == "markdown":
            assert "a\\|b &lt;script&gt;" in out
        if how == "csv":
            (row,) = csv.DictReader(io.StringIO(out))
            assert row["data_set"].startswith("a|b <script>")
            assert float(row["ci_low"]) <= float(row["accuracy"]) <= float(row["ci_high"])


def test_notes_are_escaped_in_markdown_as_cells_are(runs, capsys, tmp_path):
    odd = changed(runs, "two", tmp_path / "<b>*run*", interrupted=True)
    assert run(["compare", str(odd), "--format", "markdown"]) == DONE
    assert capsys.readouterr().out.splitlines()[-1].startswith("&lt;b&gt;\\*run\\*: It was interrupted")
    assert run(["compare", str(odd), "--format", "text"]) == DONE
    assert capsys.readouterr().out.splitlines()[-1].startswith("<b>*run*: It was interrupted")


def test_a_table_for_people_marks_the_tied(runs, capsys, on_other_images):
    assert run(["compare", str(runs / "one"), str(runs / "other"), str(on_other_images)]) == DONE
    out = capsys.readouterr().out
    assert "1 *" in out
    assert "over 2 splits of the same images" in out
    assert "mean rank by accuracy over 2 data sets" in out


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda folder: (folder / "results.json").unlink(), USAGE, "is not a run: it has no results.json"),
        (lambda folder: (folder / "predictions.parquet").unlink(), FAILED, "is not whole"),
        (lambda folder: (folder / "results.json").write_text("{}"), FAILED, "'heads' is missing"),
        (lambda folder: (folder / "splits.csv").write_text("x\n1\n"), FAILED, "is not whole"),
    ],
)
def test_what_is_no_whole_run_is_one_sentence(runs, capsys, tmp_path, spoil, code, said):
    folder = Path(shutil.copytree(runs / "two", tmp_path / "two"))
    spoil(folder)
    assert run(["compare", str(folder)]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_the_same_run_twice_is_refused(runs, capsys):
    assert run(["compare", str(runs / "one"), str(runs / "one")]) == USAGE
    assert "are the same run: name every run once" in capsys.readouterr().err
