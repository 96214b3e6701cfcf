"""The cores that a process may use, which are not always those of the machine."""

from __future__ import annotations

import os

import pytest

from featurecache.base import cgroups
from featurecache.base.cores import count_cores


@pytest.fixture
def eight_of_64(monkeypatch, tmp_path):
    """A process that is bound to 8 of the 64 cores of its machine; returns the folder that tells of its container."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")
    (tmp_path / "cpu").mkdir()
    return tmp_path


def test_cores_are_those_that_the_process_is_bound_to(eight_of_64):
    assert count_cores() == 8


@pytest.mark.parametrize("n", [64, None])
def test_where_nothing_is_bound_they_are_those_of_the_machine(eight_of_64, monkeypatch, n):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: n)
    assert count_cores() == (n or 1)


@pytest.mark.parametrize(
    ("told", "n"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("100001 100000", 2),
        ("5000 100000", 1),
        ("3200000 100000", 8),
        ("", 8),
    ],
)
def test_a_container_that_may_spend_less_has_fewer(eight_of_64, told, n):
    (eight_of_64 / "cpu.max").write_text(f"{told}\n")
    assert count_cores() == n


@pytest.mark.parametrize(("quota", "n"), [("-1", 8), ("300000", 3)])
def test_an_older_kernel_tells_it_in_two_files(eight_of_64, quota, n):
    (eight_of_64 / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (eight_of_64 / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert count_cores() == n


def test_a_job_has_the_cores_of_its_own_group_and_of_those_above_it(eight_of_64):
    """As Slurm and systemd set them: the root of the machine has no limit."""
    job = eight_of_64 / "slurm" / "job_1"
    (job / "step_0").mkdir(parents=True)
    (eight_of_64 / "own").write_text("0::/slurm/job_1/step_0\n")
    (job / "cpu.max").write_text("300000 100000\n")
    assert count_cores() == 3
    (job / "step_0" / "cpu.max").write_text("100000 100000\n")
    assert count_cores() == 1


def test_a_job_of_an_older_kernel_too(eight_of_64):
    job = eight_of_64 / "cpu" / "slurm" / "job_1"
    job.mkdir(parents=True)
    (eight_of_64 / "own").write_text("4:memory:/other\n3:cpu,cpuacct:/slurm/job_1\n")
    (job / "cpu.cfs_quota_us").write_text("400000\n")
    (job / "cpu.cfs_period_us").write_text("100000\n")
    assert count_cores() == 4
