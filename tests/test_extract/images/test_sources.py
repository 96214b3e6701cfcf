"""A sample is opened in one place, and what changes while it is read is noticed."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.memo import FileState
from featurecache.extract.images import sources
from featurecache.extract.images.sources import find_state, hash_sample, open_checked, open_sample, read_sample

ROOT = Path(__file__).parents[3]
CONTENT = b"pixels of a sample"


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(CONTENT)
    return path


def test_a_sample_is_read_hashed_and_known_by_its_state(path):
    state = FileState.of(path.stat())
    assert read_sample(path) == CONTENT
    assert find_state(path) == state
    assert hash_sample(path) == (hashlib.sha256(CONTENT).digest(), state)
    with open_sample(path) as file:
        file.seek(7)
        assert file.read(2) == b"of"


def test_a_folder_has_no_state_and_a_missing_file_is_an_error(tmp_path):
    assert find_state(tmp_path) is None
    for read in (find_state, read_sample, hash_sample, open_sample):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "gone.png")


def test_a_sample_that_changes_while_it_is_hashed_has_no_state(path, monkeypatch):
    file_digest = hashlib.file_digest

    def edited(file, name):
        found = file_digest(file, name)
        os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr(sources.hashlib, "file_digest", edited)
    assert hash_sample(path) == (hashlib.sha256(CONTENT).digest(), None)


@pytest.mark.parametrize("whole", [sources.WHOLE_BYTES, 1], ids=["read into memory", "left in its file"])
def test_another_content_than_that_of_the_digest_is_refused(path, monkeypatch, whole):
    monkeypatch.setattr(sources, "WHOLE_BYTES", whole)
    with open_checked(path, hashlib.sha256(CONTENT).digest(), changed="it changed") as content:
        assert (content if isinstance(content, bytes) else content.read()) == CONTENT
    with pytest.raises(ImageRefused, match=r"^it changed$"), open_checked(path, bytes(32), changed="it changed"):
        pass


def test_no_other_module_opens_a_sample():
    images = ROOT / "extract" / "images"
    # These open tables and files of vectors, and write what is on standard input.
    modules = [path for path in images.rglob("*.py") if path.parent.name not in {"tables", "vectors", "arguments"}]
    opening = re.compile(r"(?<!Image\.)(?<!def )\bopen\(|\.read_bytes\(")
    assert {path.name for path in modules if opening.search(path.read_text())} == {"sources.py"}
    others = [path for room in ("extract/job", "pipeline") for path in (ROOT / room).rglob("*.py")]
    by_path = re.compile(r"open\(\w*sample\b|sample\.path\)\.(open|read_bytes)|decode_image\(Path\(")
    assert {path.name for path in others if by_path.search(path.read_text()) and path.parent.name != "bench"} == set()
