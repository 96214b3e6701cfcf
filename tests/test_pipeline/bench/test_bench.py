"""The benchmark runs every way on the same images and prints rates, ratios and the share of the bound."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prepared import run_program

from featurecache.base.errors import PipelineError
from featurecache.bench import classify as bench_classify
from featurecache.bench import finetune as bench_finetune
from featurecache.bench import opening as bench_opening
from featurecache.bench import starts as bench_starts
from featurecache.bench import warm as bench_warm
from featurecache.bench.extract import Measured, measure_together, smallest_cosine, text_of
from featurecache.bench.inputs import write_photos
from featurecache.cli.main import DONE, FAILED, run
from featurecache.evaluate.join import SPLITS
from featurecache.extract.cache.inventory import find_caches
from featurecache.extract.cache.store import FeatureCache, read_spec
from featurecache.extract.engines.torch_engine import choose_device
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.job.request import FeatureRequest
from featurecache.runs.reading import read_json


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "photos"
    write_photos(folder, 6)
    return folder


def test_photos_are_as_many_as_asked_for_and_all_different(photos):
    from featurecache.extract.cache.memo import Memo
    from featurecache.extract.images.digests import digest_samples

    with Memo(photos.parent, read_only=True) as memo:
        digests = digest_samples(scan_folder(photos).samples, memo).digests
    assert len({bytes(row) for row in digests}) == 6


@pytest.fixture(scope="module")
def found(photos):
    """What the command prints and writes for two images and one round."""
    out = photos.parent / "bench.json"
    words = ["bench", "extract", "--images", str(photos), "--rounds", "1", "--count", "2", "--out", str(out)]
    assert run(words) == 0
    return json.loads(out.read_text())


@pytest.mark.slow
def test_every_way_has_a_rate_and_the_ratios_follow_from_them(found):
    (measured,) = found["backbones"]
    rates = measured["rates"]
    in_int8 = ["ours int8", "model only int8"] if choose_device("auto") == "cpu" else []
    assert list(rates) == ["ours", "model only", "decode only", *in_int8, "plain loop", "plain channels_last"]
    assert min(rates.values()) > 0
    assert measured["times_plain"] == pytest.approx(rates["ours"] / rates["plain loop"], rel=0.05)
    bound = 1 / (1 / rates["model only"] + 1 / rates["decode only"])
    assert measured["share_of_bound"] == pytest.approx(rates["ours"] / bound, rel=0.05)
    assert (measured["backbone"], measured["n_images"]) == ("efficientnet_lite0", 2)
    assert found["machine"]["torch"]


@pytest.mark.slow
def test_our_vectors_are_those_of_the_plain_loop(found):
    assert found["backbones"][0]["cosine"] > 0.9999


def test_the_table_has_a_row_for_each_backbone():
    rates = {"ours": 40.0, "ours int8": 60.0, "plain loop": 20.0}
    one = Measured("resnet18", 64, "torch", rates, 2.0, 0.97, 0.99999, None, 3.0)
    other = Measured(
        "resnet50", 64, "torch", {"ours": 10.0, "plain loop": 5.0, "img2vec": 4.0}, 2.0, 0.9, 1.0, 900.0, 1.0
    )
    lines = text_of([one, other]).splitlines()
    assert "img2vec" in lines[2] and "x plain" in lines[2]
    assert lines[4].split() == ["resnet18", "64", "40.0", "60.0", "20.0", "2.00", "1.50", "0.97", "0.999990", "3.0"]
    assert lines[5].split() == ["resnet50", "64", "10.0", "5.0", "4.0", "2.00", "0.90", "1.000000", "900", "1.0"]


def test_the_smallest_cosine_is_that_of_the_rows_that_differ_most():
    ours, theirs = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [1.0, 0.0]])
    assert smallest_cosine(ours, theirs) == pytest.approx(1 / np.sqrt(2))


@pytest.mark.slow
def test_two_backbones_in_one_call_are_compared_with_the_sum_of_their_parts(photos):
    pair = measure_together(photos, ("efficientnet_lite0", "efficientnet_lite1"), rounds=1)
    assert pair["ratio"] == pytest.approx(pair["together"] / pair["apart"], rel=0.01)


@pytest.mark.slow
def test_an_epoch_from_the_cache_ends_where_the_whole_network_does(digits_folder, tmp_path):
    cache, whole = bench_finetune.measure(digits_folder, tmp_path, size=64, epochs=1, engine="torch")
    assert (cache.way, whole.way) == ("cache", "whole")
    assert cache.val_accuracy == whole.val_accuracy
    ways = [replace(cache, epoch_seconds=2.0), replace(whole, epoch_seconds=14.0)]
    assert bench_finetune.text_of(ways).endswith("an epoch from the cache is 7.0 times as fast")


@pytest.mark.slow
def test_both_starts_are_tried_on_the_same_draws_and_their_difference_told(digits_folder, tmp_path):
    contest = bench_starts.Contest(FeatureRequest(size=64), "logistic", n_train=40, epochs=1, engine="torch")
    starts = bench_starts.measure(digits_folder, tmp_path, contest, n_seeds=2)
    assert {way: len(found) for way, found in starts.accuracies.items()} == {"frozen": 2, "head": 2, "random": 2}
    assert starts.n_val == 16
    shown = replace(starts, accuracies={"frozen": [0.5, 0.5], "head": [0.9, 0.8], "random": [0.7, 0.7]})
    # Two differences, 0.2 and 0.1: their mean plus and minus 12.706 times 0.05.
    assert bench_starts.text_of(shown).endswith("head minus random: +15.00 points, 95 % interval -48.53 to +78.53")


def test_more_images_than_there_are_cannot_be_drawn(digits_folder, tmp_path):
    with pytest.raises(PipelineError, match="give fewer with --train"):
        bench_starts.measure(digits_folder, tmp_path, bench_starts.Contest(FeatureRequest(), "logistic", n_train=10**6))


@pytest.fixture(scope="module")
def asked(digits_folder, tmp_path_factory) -> bench_classify.Asked:
    cache = tmp_path_factory.mktemp("bench") / "cache"
    command = ["extract", str(digits_folder), "--cache", str(cache), "--backbone", "pixels", "--size", "8"]
    assert run([*command, "--quiet"]) == 0
    return bench_classify.Asked(digits_folder, cache, FeatureRequest("pixels", size=8), ("ridge", "knn"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@pytest.mark.slow
@needs_proc
def test_a_whole_classify_is_run_in_memory_and_from_a_file_with_one_table(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_classify, "FEW", 30)
    found = bench_classify.measure(asked, tmp_path)
    assert found.features == 4 * 192 * 90
    assert found.n_settings == 45 + 66
    assert found.same
    assert found.failed == []
    assert set(found.best) == {"ridge", "knn"}
    # A process with torch in it; its anonymous memory is a part of it.
    assert all(cost.process > cost.anonymous > cost.left > 1e8 for cost in (found.few, *found.costs.values()))
    told = {name: read_json(tmp_path / name / "results.json") for name in ("few", "memory", "file")}
    assert told["file"]["config"]["memory"] == found.features / 2
    assert told["memory"]["config"]["memory"] > found.features
    sizes = [sum(each["dataset"][f"n_{split}"] for split in SPLITS) for each in told.values()]
    assert sizes == [30, 90, 90]


@needs_proc
def test_its_command_prints_and_writes_the_shares_and_fails_where_tables_differ(tmp_path, monkeypatch, capsys):
    found = OWN
    monkeypatch.setattr(bench_classify, "measure", lambda *_, **__: found)
    command = ["bench", "classify", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "found.json")]
    assert run(command) == FAILED
    assert "NOT the same" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["own_by_features"] == {"in memory": 2.0}
    found = replace(OWN, same=True)
    assert run(command) == DONE
    assert not list(tmp_path.glob(".bench*"))


def test_where_there_is_no_proc_it_says_where_to_measure(monkeypatch, capsys):
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert run(["bench", "classify"]) == FAILED
    assert "measure on Linux" in capsys.readouterr().err


FEW_IMAGES, ALL = bench_classify.Cost(1.0, 9e8, 6e8, 4e8), bench_classify.Cost(300.0, 15e8, 10e8, 5e8)
OWN = bench_classify.Found(3e8, FEW_IMAGES, {"in memory": ALL}, 249, {"mlp": 0.9}, ["lda is left out."], same=False)


def test_own_memory_is_what_libraries_do_not_take():
    text = bench_classify.text_of(OWN)
    assert re.search(r"in memory +300 +1,500 +600 +2\.00 +2\.5\n", text)
    assert text.endswith("lda is left out.\nboth tables are NOT the same")


def test_a_killed_process_is_told_with_what_to_do(asked, tmp_path, monkeypatch):
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(bench_classify.subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(PipelineError, match="killed by signal 9, most likely for want of memory: name fewer --heads"):
        bench_classify.measure(asked, tmp_path)


def test_a_folder_that_is_not_there_is_one_sentence(asked, tmp_path):
    with pytest.raises(PipelineError) as refused:
        bench_classify.measure(replace(asked, images=Path("nowhere")), tmp_path)
    assert str(refused.value) == "There is no folder or file 'nowhere'. Check the path."


def test_seconds_are_the_only_numbers_that_may_differ():
    heads = [{"name": "ridge", "fit_seconds": 1.0, "grid": [{"val_accuracy": 0.5, "seconds": 2.0}]}]
    later = [{"name": "ridge", "fit_seconds": 3.0, "grid": [{"val_accuracy": 0.5, "seconds": 4.0}]}]
    other = [{"name": "ridge", "fit_seconds": 1.0, "grid": [{"val_accuracy": 0.6, "seconds": 2.0}]}]
    assert bench_classify.lasting(heads) == bench_classify.lasting(later) != bench_classify.lasting(other)


def test_features_that_are_not_there_are_one_sentence_and_the_command(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_classify.subprocess, "run", lambda command, **_: run_program(*command[2:]))
    with pytest.raises(PipelineError, match="Run first:\nfeaturecache extract"):
        bench_classify.measure(replace(asked, request=FeatureRequest("pixels", size=16)), tmp_path)


@pytest.mark.parametrize("what", ["extract", "finetune", "heads", "starts", "classify"])
def test_each_tells_its_own_options(capsys, what):
    assert run(["bench", what, "--help"]) == 0
    assert f"featurecache bench {what}" in capsys.readouterr().out
    assert run(["bench", what, "--nonsense"]) == 2


@pytest.mark.parametrize("option", ["--rounds", "--count"])
def test_no_round_and_no_image_are_nothing_to_measure(capsys, option):
    assert run(["bench", "extract", option, "0"]) == 2
    assert "'0' is not a whole number of 1 or more." in capsys.readouterr().err


def test_a_million_warm_images_are_a_row_with_the_time_of_each(tmp_path, monkeypatch):
    found = bench_warm.Warm(1_000_000, 80.0, [9.0, 8.0, 8.5], 400.4)
    last = bench_warm.text_of(found).splitlines()[-1]
    assert last.split() == ["1,000,000", "80.0", "8.50", "8.00-9.00", "8.5", "400"]
    monkeypatch.setattr(bench_warm, "measure", lambda *_: replace(found, peak_mb=None))
    monkeypatch.setattr(bench_opening, "N_ROWS", 50)
    assert run(["bench", "warm", "--rounds", "1", "--out", str(tmp_path / "found.json")]) == DONE
    figures = json.loads((tmp_path / "found.json").read_text())
    assert figures["us_per_image"] == 8.5
    opened = figures["opening"]
    assert (opened["n_rows"], opened["n_shards"], opened["n_asked"]) == (50, 20, 50)
    assert all(seconds > 0 for seconds in opened["by_index"] + opened["from_shards"])


@pytest.mark.slow
def test_warm_runs_extract_nothing(tmp_path):
    found = bench_warm.measure(tmp_path, 30, 2)
    assert found.n_images == 30
    assert len(found.seconds) == 2
    (folder,) = find_caches(tmp_path / "cache")
    cache = FeatureCache(folder.parent, read_spec(folder))
    assert len(cache) == 30
    assert [record["n"] for record in cache.records()] == [30]


def test_a_warm_run_that_fails_ends_with_its_last_line(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], FAILED, "", "a line\nfeaturecache: The disk is full.\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(PipelineError, match=r"A run of extract failed: featurecache: The disk is full\."):
        bench_warm._extract(tmp_path, tmp_path)
