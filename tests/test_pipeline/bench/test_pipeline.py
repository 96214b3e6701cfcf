"""The benches of the pipeline: around a network that costs nothing, and on a GPU, whose code runs here on the CPU."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from featurecache.bench import gpu as bench_gpu
from featurecache.bench import pipeline as bench_pipeline
from featurecache.bench.gpu import Plan, Row
from featurecache.cli.main import DONE, FAILED, USAGE, run


def test_the_bench_of_the_pipeline_has_a_rate_on_both_disks(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_pipeline, "READ_SECONDS", 0.004)
    out = tmp_path / "found.json"
    command = ["bench", "pipeline", "--count", "300", "--slow", "24", "--rounds", "1", "--out", str(out)]
    command += ["--processes", "0"]
    assert run(command) == DONE
    found = json.loads(out.read_text())
    assert found.pop("n_processes") == found.pop("by_processes") == 0
    assert min(found.values()) > 0
    assert found["fast_disk"] <= 2 / bench_pipeline.SECONDS_PER_IMAGE + 0.1
    assert "20 ms to read each file" in capsys.readouterr().out


def test_no_rate_is_that_of_processes_which_are_not_started(monkeypatch):
    assert [bench_pipeline.started_processes(2, n) for n in (100, 101)] == [0, 2]
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert bench_pipeline.started_processes(2, 101) == 0


def test_a_share_is_the_rate_on_the_slow_disk_over_that_on_the_fast_one():
    rates = bench_pipeline.Rates(9876.4, 101.2, 2, 10123.4, 180.0, 171.0)
    lines = bench_pipeline.text_of(rates).splitlines()
    assert lines[-1].split()[-2:] == ["171", "0.95"]
    assert lines[-4].split()[-2:] == ["9,876", "101"]
    assert lines[-3].split()[-4:] == ["by", "2", "processes", "10,123"]


@pytest.fixture
def here(monkeypatch):
    """The usual loop runs in this process, without workers."""

    class Here:
        def submit(self, function, *arguments):
            future = Future()
            future.set_result(function(*arguments))
            return future

    @contextmanager
    def elsewhere():
        yield Here()

    monkeypatch.setattr(bench_gpu, "elsewhere", elsewhere)


def test_a_row_has_all_rates_and_one_that_cannot_be_has_its_reason(tmp_path, here):
    plan = Plan("cpu", ["pixels"], ["fp32", "tf32"], 6, workers=0, batch=4, size=8)
    plain, refused = bench_gpu.measure(plan, tmp_path)
    assert min(plain.pipeline, plain.engine, plain.decode, plain.loop) > 0
    assert plain.share == pytest.approx(plain.pipeline / min(plain.engine, plain.decode))
    assert refused.reason.startswith("tf32 is a precision of NVIDIA GPUs")
    text = bench_gpu.text_of([plain, refused])
    assert text.splitlines()[-1].startswith("pixels in tf32 is not measured: tf32 is a precision")


def test_the_images_are_all_different_also_beyond_the_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_gpu, "N_PHOTOS", 2)
    samples = bench_gpu.write_images(tmp_path, 5).samples
    assert len({Path(sample.path).read_bytes() for sample in samples}) == 5


def test_what_the_minutes_do_not_allow_is_left_out_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_gpu, "write_images", lambda *_: [])
    monkeypatch.setattr(bench_gpu, "_row", lambda plan, _, name, precision, decode: Row(name, precision, 1.0, 1.0, 1.0))
    rows = list(bench_gpu.measure(Plan("cuda", ["pixels"], ["fp32", "bf16"], 2, minutes=0), tmp_path))
    assert [row.reason for row in rows] == ["no time left of 0 minutes"] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_named_in_one_sentence(capsys):
    import gpu

    assert run(["bench", "gpu"]) == USAGE
    assert "There is no device 'cuda' on this machine as torch sees it" in capsys.readouterr().err
    assert run(["bench", "gpu", "--device", "cpu"]) == FAILED
    assert capsys.readouterr().err.count("\n") == 1
    assert gpu.main([]) == 1
    assert capsys.readouterr().out == "There is no GPU on this machine as torch sees it, so nothing was measured.\n"


def test_a_bare_tree_becomes_the_package_by_links(tmp_path, monkeypatch):
    import gpu

    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert gpu.make_links(tmp_path) == f"{tmp_path}:/elsewhere"
    assert (tmp_path / "featurecache" / "extract" / "job" / "compute.py").is_file()
    assert (tmp_path / "featurecache" / "__main__.py").is_file()


def test_the_tests_of_cuda_are_named_and_there():
    import gpu

    assert all((gpu.ROOT / name).is_file() for name in gpu.TESTS)
