"""The benchmark of a repeated classify, and of linear_svm with many classes: rows with the seconds that are wanted."""

from __future__ import annotations

import json
import shutil

import pytest

from featurecache.base.errors import PipelineError
from featurecache.bench import rerun
from featurecache.bench.head_comparisons import features
from featurecache.bench.rerun import Rerun, Timing, svm_timings, text_of
from featurecache.cli.main import DONE, run

FOUND = [Timing("until the table", [2.0, 1.5, 2.25], 2.5), Timing("all heads", [33.25], None, "a note")]


def test_a_row_has_the_median_and_what_is_wanted():
    first, second = text_of(FOUND).splitlines()[-2:]
    assert first.split() == ["until", "the", "table", "2.00", "1.50-2.25", "2.5"]
    assert second.split() == ["all", "heads", "33.25", "a", "note"]


def test_its_command_prints_both_parts_and_writes_them(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(Rerun, "timings", lambda self, rounds, *_: asked.append((self, rounds)) or FOUND[:1])
    monkeypatch.setattr(rerun, "svm_timings", lambda *given: asked.append(given[:3]) or FOUND[1:])
    out = tmp_path / "found.json"
    assert run(["bench", "rerun", "--images", "photos", "--rounds", "2", "--cache", "there", "--out", str(out)]) == DONE
    assert "until the table" in capsys.readouterr().out
    assert [each["median"] for each in json.loads(out.read_text())["timings"]] == [2.0, 33.25]
    (contest, rounds), svm = asked
    assert (str(contest.images), str(contest.cache), rounds) == ("photos", "there", 2)
    assert svm == (2481, 200, 40.0)


def test_the_first_run_is_not_counted(tmp_path, monkeypatch):
    calls = []
    seconds = iter([(9.0, 9.0), (1.0, 3.0), (2.0, 4.0), (5.0, 60.0)])
    monkeypatch.setattr(Rerun, "classify", lambda _, heads, out: calls.append((heads, out.name)) or next(seconds))
    until_table, whole, everything = Rerun(tmp_path, "pixels", tmp_path).timings(2, tmp_path)
    assert (until_table.seconds, whole.seconds, everything.seconds) == ([1.0, 2.0], [3.0, 4.0], [60.0])
    assert [heads for heads, _ in calls] == ["ridge", "ridge", "ridge", "all"]
    assert len(set(calls)) == 4


def test_a_classify_that_fails_ends_with_its_last_line(tmp_path):
    with pytest.raises(PipelineError, match="A classify failed: featurecache: There is no folder or file"):
        Rerun(tmp_path / "none", "pixels", tmp_path / "cache").classify("ridge", tmp_path / "run")


@pytest.mark.slow
def test_the_table_is_there_before_the_end(digits_folder, filled_cache, tmp_path):
    cache = shutil.copytree(filled_cache, tmp_path / "cache")
    until_table, whole = Rerun(digits_folder, "efficientnet_lite0", cache).classify("ridge", tmp_path / "run")
    assert 0.0 < until_table < whole
    assert (tmp_path / "run" / "report.html").exists()


def test_many_classes_are_compared_with_half_as_many_and_with_scikit_learn(monkeypatch):
    monkeypatch.setattr(features, "FEATURE_DIM", 40)
    monkeypatch.setattr(rerun, "N_TEST", 50)
    monkeypatch.setattr(rerun, "THEIR_CLASSES", 4)
    half, whole, theirs = svm_timings(90, 6, 40.0)
    assert half.what == "linear_svm, 20 C and the refit, 90 x 40 x 3"
    assert (half.wanted, whole.wanted) == (None, 40.0)
    assert whole.what.endswith("90 x 40 x 6")
    assert theirs.what == "LinearSVC, C = 0.00546, 4 classes of 90 x 40 x 6"
    above = float(whole.note.split()[1])
    assert 0.0 <= above < 1e-4
    assert theirs.note.startswith("for all ")
