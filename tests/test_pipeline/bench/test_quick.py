"""`bench quick`: which commands it times, and what it prints."""

import json
import os
from pathlib import Path

import pytest

from featurecache.base.errors import PipelineError
from featurecache.base.exits import DONE
from featurecache.bench import quick as bench_quick
from featurecache.cli.main import run

COST = bench_quick.Cost(0.9, 0.8, 250.4, has_torch=False)


def test_each_command_has_an_image_of_its_own_and_the_first_round_does_not_count(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(bench_quick, "_run", lambda words, surroundings: (asked.append((words, surroundings)), COST)[1])
    found = bench_quick.measure(tmp_path, "pixels", 2)
    assert found == {"predict": [COST] * 2, "extract": [COST] * 2, "new cache": [COST] * 2}
    (first, surroundings), *others = asked
    assert first[:2] == ["run", str(tmp_path / "images")]
    assert surroundings["FEATURECACHE_USER_CACHE"] == str(tmp_path / "user")
    images = [words[2] if words[0] == "predict" else words[1] for words, _ in others]
    assert len({Path(path).read_bytes() for path in images}) == 9
    caches = [words[words.index("--cache") + 1] for words, _ in others]
    assert len(set(caches)) == 4


def test_the_table_has_medians_and_says_whether_torch_was_there(monkeypatch, tmp_path, capsys):
    costs = {line: [COST, bench_quick.Cost(1.1, 1.0, 900.0, has_torch=line == "predict")] for line in ("predict", "x")}
    assert bench_quick.text_of(costs).splitlines()[-2:] == [
        "predict      1.00  0.90-1.10     0.90        900  yes",
        "x            1.00  0.90-1.10     0.90        900  no",
    ]
    monkeypatch.setattr(bench_quick, "measure", lambda *_: costs)
    assert run(["bench", "quick", "--out", str(tmp_path / "found.json")]) == DONE
    figures = json.loads((tmp_path / "found.json").read_text())
    assert figures["medians"]["x"] == {"seconds": 1.0, "cpu_seconds": 0.9, "peak_mb": 575.2}
    assert figures["rounds"]["predict"][1]["has_torch"] is True
    assert "predict" in capsys.readouterr().out


def test_a_command_that_fails_ends_it_with_its_last_line(tmp_path):
    with pytest.raises(PipelineError, match=r"^A run of extract failed: featurecache: "):
        bench_quick._run(["extract", str(tmp_path / "missing")], os.environ)
