"""Versions of installed libraries are those that importlib.metadata has."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from featurecache.base import versions
from featurecache.base.versions import installed_version


@pytest.fixture(autouse=True)
def _asked_for_the_first_time():
    for each in (versions.installed_version, versions._described_in):
        each.cache_clear()
    yield
    for each in (versions.installed_version, versions._described_in):
        each.cache_clear()


def described(folder: Path, name: str, version: str, *, text: str | None = None) -> None:
    (folder / f"{name}-{version}.dist-info").mkdir(parents=True)
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: none\n" if text is None else text
    )


def test_every_installed_library_has_the_version_of_importlib():
    names = {each.name for each in importlib.metadata.distributions()}
    assert len(names) > 20
    assert {name: installed_version(name) for name in names} == {
        name: importlib.metadata.version(name) for name in names
    }


def test_a_usual_library_is_found_without_importlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "importlib.metadata", None)
    assert installed_version("numpy") == __import__("numpy").__version__


@pytest.mark.parametrize("asked", ["some.library", "Some_Library", "some-library"])
def test_a_name_may_be_spelt_in_any_way_and_the_first_folder_counts(tmp_path, monkeypatch, asked):
    described(tmp_path / "first", "some_library", "2.0+cpu")
    described(tmp_path / "second", "some_library", "1.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "none"), str(tmp_path / "first"), str(tmp_path / "second")])
    assert installed_version(asked) == "2.0+cpu"


def test_what_is_not_plain_to_see_is_asked_of_importlib(tmp_path, monkeypatch):
    described(tmp_path, "some_library", "1.0")
    described(tmp_path, "some_library", "2.0")
    described(tmp_path, "another", "1.0", text="Metadata-Version: 2.1\nName: another\n\nVersion: 9\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert installed_version("some_library") == importlib.metadata.version("some_library")
    assert versions._version_on_path("some_library") == ""
    assert versions._version_on_path("another") == ""
    assert installed_version("no-such-library") is None
