"""The command in a process of its own: it begins and stops within moments, also with several processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurecache.cli.main import DONE, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits_folder):
    root = tmp_path_factory.mktemp("commanded")
    words = ["run", str(digits_folder), "--backbone", "pixels", "--heads", "centroid", "--quiet"]
    assert run([*words, "--cache", str(root / "cache"), "--out", str(root / "run")]) == DONE
    return root / "run"


# What schemathesis looks for in responses. Bytes that fit the description need not be an image, so they may be refused.
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method", "allow_header_conformance", "ignored_auth",
)  # fmt: skip


@contextmanager
def started(trained, *words):
    command = [sys.executable, "-m", "featurecache", "serve", str(trained), "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def get(address, path):
    with urllib.request.urlopen(address + path, timeout=20) as response:
        return response.read()


def test_it_prints_its_address_answers_and_ends_by_a_signal_with_its_code(trained, digits_folder):
    image = next(digits_folder.rglob("*.png")).read_bytes()
    with started(trained) as (process, address):
        assert b'"label"' in urllib.request.urlopen(f"{address}predict", image, timeout=20).read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert process.stderr.read().endswith("Stopped: every request was answered or refused.\n")
        with pytest.raises(urllib.error.URLError):
            get(address, "health")


@pytest.mark.slow
def test_several_processes_share_a_port_count_together_and_one_that_ends_is_started_again(trained, digits_folder):
    image = next(digits_folder.rglob("*.png")).read_bytes()
    with started(trained, "--workers", "2", "--no-nearest") as (process, address):
        for _ in range(10):
            urllib.request.urlopen(f"{address}predict", image, timeout=20).read()
        assert b'featurecache_requests_total{status="200"} 10\n' in get(address, "metrics")
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while "is started again" not in process.stderr.readline():
            assert time.monotonic() < deadline
        assert b"ok" in get(address, "health")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "0123456789abcdef"])
def test_schemathesis_finds_only_responses_that_are_described(trained, token, tmp_path):
    # pipx install schemathesis: in the environment of the tests it would add itself to pytest.
    tool = shutil.which("schemathesis")
    if tool is None:
        pytest.skip("needs schemathesis on the PATH")
    headers = ["-H", f"Authorization: Bearer {token}"] if token else []
    with started(trained, *(["--token", token] if token else [])) as (_, address):
        words = ["run", f"{address}openapi.json", "--checks", ",".join(CHECKS), "-n", "50", "--seed", "0", *headers]
        found = subprocess.run([tool, *words], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
