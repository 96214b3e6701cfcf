"""A run is whole under its name, old or new, wherever its writer is killed; files of the user's stay what they are."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import killed_runs
import pytest
from killed_runs import MINE, NEW, OLD, read, replace_with, write

from featurecache.base.errors import PipelineError
from featurecache.runs import work_folder as workfolder
from featurecache.runs.locks import try_lock, unlock
from featurecache.runs.placing import home_of
from featurecache.runs.work_folder import heal, working, writing_run

IDENTITY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """Nobody cuts the power, and a disk that others use takes its time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def out(tmp_path) -> Path:
    write(tmp_path / "run", OLD)
    return tmp_path / "run"


def test_a_run_appears_under_its_name_only_when_it_is_complete(tmp_path):
    with writing_run(tmp_path / "run") as folder:
        write(folder, NEW)
        assert not (tmp_path / "run").exists()
    assert read(tmp_path / "run") == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failing_run_leaves_nothing_and_keeps_the_older_one(out):
    with pytest.raises(KeyboardInterrupt), writing_run(out) as folder:
        write(folder, NEW)
        raise KeyboardInterrupt
    assert read(out) == OLD
    assert [path.name for path in out.parent.iterdir()] == ["run"]


def test_a_new_run_replaces_every_file_of_the_older_one_and_nothing_else(out):
    with writing_run(out) as folder:
        write(folder, NEW)
        write(out, MINE)  # by the user, meanwhile
    assert read(out) == NEW | MINE
    assert [path.name for path in out.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["results.json", "log.txt", "heads/c--h/head.json", "heads", "config.json/mine"])
def test_what_came_under_a_name_of_the_runs_where_none_was_stays_and_no_head_is_lost(tmp_path, name):
    out = tmp_path / "run"
    with (
        pytest.raises(PipelineError, match=f"'{name.split('/mine')[0]}' has come to be there meanwhile"),
        working(tmp_path, IDENTITY) as work,
    ):
        write(work.heads, {"a--h/record.json": "finished"})
        write(work.begin(), NEW)
        out.mkdir()
        write(out, {name: "mine"}) if name != "results.json" else (out / name).write_text('"mine"')
        work.place(out)
    assert len([path for path in out.rglob("*") if path.is_file()]) == 1
    assert (tmp_path / f".run-{IDENTITY}" / "heads" / "a--h" / "record.json").read_text() == "finished"


def test_a_folder_under_the_name_of_a_file_is_in_the_way_before_anything_is_moved(out):
    with pytest.raises(PipelineError, match=r"'config\.json' has come to be there"), writing_run(out) as folder:
        write(folder, NEW)
        (out / "config.json").mkdir()
    assert read(out) == OLD


def look_after_kills(where: str, root: Path) -> None:
    """Run `killed_runs.py`: a fork of this process, which has torch and all tests, would take thirty times as long."""
    command = [sys.executable, killed_runs.__file__, where, str(root)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a run", "a run on another disk"])
def test_wherever_a_kill_comes_the_next_command_finds_the_old_run_or_the_new_one(tmp_path, there):
    look_after_kills(there, tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_who_reads_a_run_that_was_cut_off_between_two_files_gets_the_new_one(tmp_path):
    look_after_kills("who reads", tmp_path)


@pytest.mark.parametrize("stop_at", range(1, 9))
def test_an_interrupt_between_two_files_waits_for_the_last(out, monkeypatch, stop_at):
    replace, calls = Path.replace, itertools.count(1)

    def interrupted(self, target):
        if next(calls) == stop_at:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    ended = []
    try:
        replace_with(out, NEW)
        ended.append("at its end")
    except KeyboardInterrupt:
        ended.append("early")
    assert read(out) == (OLD if stop_at == 1 else NEW)
    assert [path.name for path in out.parent.iterdir()] == ["run"]


def test_a_full_or_locked_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PipelineError, match="cannot be written"), writing_run(tmp_path / "file" / "run"):
        pass


def test_two_processes_at_the_same_work_have_a_folder_each(tmp_path):
    with working(tmp_path, IDENTITY) as first, working(tmp_path, IDENTITY) as second:
        assert [work.path.name for work in (first, second)] == [f".run-{IDENTITY}", f".run-{IDENTITY}-2"]
        write(first.heads, {"a--h/record.json": "finished"})
        write(second.heads, {"b--h/record.json": "finished"})
    with working(tmp_path, IDENTITY) as again:
        assert [path.name for path in again.heads.iterdir()] == ["a--h"]
        again.finish()
    assert [path.name for path in tmp_path.iterdir()] == [f".run-{IDENTITY}-2"]


def test_the_lock_of_a_folder_is_given_back(tmp_path):
    lock = try_lock(tmp_path)
    assert lock is not None
    assert try_lock(tmp_path) is None
    unlock(lock)
    again = try_lock(tmp_path)
    assert again is not None
    unlock(again)


def test_a_half_written_head_is_not_gone_on_from(tmp_path):
    write(tmp_path / f".run-{IDENTITY}", {"heads/.0123/head/head.json": "half", "heads/a--h/record.json": "finished"})
    with working(tmp_path, IDENTITY) as work:
        assert [path.name for path in work.heads.iterdir()] == ["a--h"]


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o002])
def test_a_run_is_as_open_as_the_user_has_it(tmp_path, mask):
    before = os.umask(mask)
    try:
        replace_with(tmp_path / "run", NEW)
    finally:
        os.umask(before)
    paths = [tmp_path / "run", *(tmp_path / "run").rglob("*")]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert modes == {0o777 & ~mask, 0o666 & ~mask}


def test_the_work_folder_is_beside_the_run_unless_nothing_can_be_moved_from_there(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert home_of(tmp_path / "new") == home_of(tmp_path / "there") == home_of(tmp_path / "link") == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    rename = Path.rename

    def on_another_disk(self, target):
        if Path(target).parent.name == "there":
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", on_another_disk)
    assert home_of(tmp_path / "there") == home_of(tmp_path / "link") == tmp_path / "there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    monkeypatch.chdir(tmp_path / "there")
    assert home_of(Path()) == tmp_path / "there"


def test_a_run_is_put_into_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    replace_with(Path(), NEW)
    assert read(Path()) == NEW == read(tmp_path / "there")


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "run").symlink_to("big")
    replace_with(tmp_path / "run", NEW)
    assert (tmp_path / "run").is_symlink()
    assert read(tmp_path / "big") == NEW


def test_a_note_that_leads_out_of_the_folder_is_none(tmp_path):
    out = tmp_path / "home" / "run"
    work = tmp_path / "home" / f".run-{IDENTITY}"
    write(work, {"lock": "", "into.json": json.dumps({"into": "../else", "files": [], "replaces": False})})
    write(work / "fresh", NEW)
    heal(out)
    assert not (tmp_path / "else").exists()


def test_a_run_is_on_the_disk_before_anything_of_the_older_one_is_touched(out, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda file: done.append(Path(os.readlink(f"/proc/self/fd/{file}"))))
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda self, **more: (done.append("removes"), unlink(self, **more)))
    with writing_run(out) as folder:
        write(folder, NEW)
    first = done[: done.index("removes")]
    assert {folder / name for name in NEW} | {folder, folder / "heads", folder / "heads" / "b--h"} <= set(first)
    assert first[-1] == folder.parent
    assert {out, out / "heads", out / "heads" / "c--h", out.parent} <= set(done[len(first) :])


def test_the_work_of_a_live_process_is_left_to_it(out):
    with writing_run(out) as folder:
        write(folder, NEW)
        workfolder.commit(folder.parent, out)
        heal(out)
        assert read(out) == OLD
    assert read(out) == NEW
