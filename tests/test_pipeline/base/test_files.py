"""A file or folder is there under its name when it is complete, and not before; nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featurecache.base import files
from featurecache.base.files import TEMPORARY, TEMPORARY_PREFIX, replacing_file, replacing_folder, temporary_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def umask():
    """A umask that lets the group write."""
    before = os.umask(0o002)
    yield 0o002
    os.umask(before)


@pytest.mark.parametrize("name", ["x.h5", ".finetune-0123456789abcdef.pt", "\U0001f600" * 60 + ".parquet", "a" * 250])
def test_a_temporary_name_is_next_to_the_final_one_with_its_suffix_and_short_enough(tmp_path, name):
    path = temporary_path(tmp_path / name)
    assert path.parent == tmp_path
    assert path.name.startswith(TEMPORARY_PREFIX)
    assert TEMPORARY.match(path.name)
    assert path.suffix == Path(name).suffix
    path.touch()  # a name of more than 255 bytes would be refused
    assert temporary_path(tmp_path / name) != path


def test_a_file_has_its_name_at_the_end_and_replaces_the_one_that_was_there(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with replacing_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == {"x.txt"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_the_old_file_is_as_it_was_and_nothing_is_left(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(error), replacing_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == {"x.txt"}


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    steps = []
    flush, replace = files.flush, Path.replace
    monkeypatch.setattr(files, "flush", lambda path: (steps.append(f"flush {path.name[:8]}"), flush(path)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (steps.append("rename"), replace(path, to)))
    with replacing_file(tmp_path / "x.txt") as temporary:
        temporary.write_text("new")
    assert steps == ["flush .writing", "rename", f"flush {tmp_path.name[:8]}"]


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_folder_has_its_name_at_the_end_and_replaces_the_one_that_was_there(tmp_path, is_durable):
    path = tmp_path / "above" / "folder"
    for text in ("old", "new"):
        with replacing_folder(path, is_durable=is_durable) as temporary:
            (temporary / "deeper").mkdir()
            (temporary / "deeper" / "x.txt").write_text(text)
            assert path.exists() == (text == "new")
        assert (path / "deeper" / "x.txt").read_text() == text
        assert names(tmp_path / "above") == {"folder"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_the_old_folder_is_as_it_was_and_nothing_is_left(tmp_path, error):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "x.txt").write_text("old")
    with pytest.raises(error), replacing_folder(path) as temporary:
        (temporary / "x.txt").write_text("half")
        raise error
    assert (path / "x.txt").read_text() == "old"
    assert names(tmp_path) == {"folder"}


def test_a_folder_that_cannot_be_put_in_its_place_leaves_the_old_one_there(tmp_path, monkeypatch):
    path, rename = tmp_path / "folder", Path.rename
    path.mkdir()
    (path / "x.txt").write_text("old")

    def fails_into_place(source, target):
        if target == path and (source / "new.txt").exists():
            raise OSError("no")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fails_into_place)
    with pytest.raises(OSError, match="no"), replacing_folder(path) as temporary:
        (temporary / "new.txt").write_text("new")
    assert (path / "x.txt").read_text() == "old"
    assert names(tmp_path) == {"folder"}


def test_files_and_folders_have_the_permissions_that_the_umask_leaves(tmp_path, umask):
    with replacing_file(tmp_path / "x.txt") as temporary:
        temporary.write_text("x")
    with replacing_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "x.txt").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


def test_new_folders_are_stored_in_the_folders_above_them(tmp_path, monkeypatch):
    stored, flush = [], files.flush
    monkeypatch.setattr(files, "flush", lambda path: (stored.append(path), flush(path)))
    files.make_folder(tmp_path / "a" / "b")
    assert set(stored) == {tmp_path, tmp_path / "a"}
    stored.clear()
    files.make_folder(tmp_path / "a" / "b")
    assert stored == []


def test_a_file_that_another_program_has_open_for_a_moment_is_replaced_where_the_system_refuses_that(
    tmp_path, monkeypatch
):
    path, replace, waits = tmp_path / "x.h5", Path.replace, []

    def refuse(temporary, target):
        if len(waits) < 3:
            raise PermissionError(13, "open elsewhere")
        return replace(temporary, target)

    monkeypatch.setattr(files, "REPLACES_OPEN_FILES", False)
    monkeypatch.setattr(files.time, "sleep", waits.append)
    monkeypatch.setattr(Path, "replace", refuse)
    with replacing_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert waits == [0.05, 0.1, 0.2]


def test_a_disk_stores_a_file_itself_where_the_system_has_a_command_for_that(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    commands = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda file, command: commands.append(command))
    monkeypatch.setattr(files.os, "fsync", lambda file: pytest.fail("fsync was called"))
    files.flush(tmp_path)
    assert commands == [51]
