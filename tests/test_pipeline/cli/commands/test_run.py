"""`run` reads every file once, and refuses labels that cannot be split before it extracts."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from featurecache.cli.main import DONE, FAILED, run
from featurecache.extract.images import digests, read_ahead
from featurecache.extract.job.decoding import decoder

PIXELS = ["--backbone", "pixels", "--size", "8", "--heads", "centroid", "--quiet"]


@pytest.fixture
def reads(monkeypatch) -> Counter[str]:
    """How often each file was opened, for its digest alone or to be decoded, by a clock for which all are old."""
    found: Counter[str] = Counter()
    hash_file, read_hashed, now = digests._hash_file, read_ahead.read_hashed, time.time_ns
    monkeypatch.setattr(digests, "_hash_file", lambda s: (found.update([s.path]), hash_file(s))[1])
    for module in (read_ahead, decoder):
        monkeypatch.setattr(module, "read_hashed", lambda path: (found.update([str(path)]), read_hashed(path))[1])
    monkeypatch.setattr(time, "time_ns", lambda: now() + 3600 * 10**9)
    return found


def test_every_file_is_read_once_for_its_digest_and_its_features(cats_and_dogs, reads, tmp_path):
    place = ["--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]
    assert run(["run", str(cats_and_dogs), *PIXELS, *place]) == DONE
    assert list(reads.values()) == [1] * 24
    reads.clear()
    assert run(["run", str(cats_and_dogs), *PIXELS, *place]) == DONE
    assert reads == {}


def test_labels_that_cannot_be_split_are_refused_by_all_that_is_known_of_copies(save, reads, tmp_path, capsys):
    for number in range(6):
        kind = ("cat", "dog")[number % 2]
        save(tmp_path / "new" / kind / f"{number}.png", kind, number)
    for name in ("alone/0.png", "copied/0.png", "copied/1.png"):
        save(tmp_path / "new" / name, "owl", len(name))
    place = ["--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]
    assert run(["run", str(tmp_path / "new"), *PIXELS, *place]) == FAILED
    assert "'alone' (1 image), 'copied' (2 images)" in capsys.readouterr().err
    assert list(reads.values()) == [1] * 9
    assert not list(tmp_path.glob("cache/*/shards"))


@pytest.mark.parametrize(
    ("n_cats", "error"), [(0, "'owl' (5 images)"), (2, "Val is empty")], ids=["a class of copies", "two images a class"]
)
def test_a_class_that_is_copies_of_few_images_is_refused_before_extraction(save, tmp_path, capsys, n_cats, error):
    for number in range(5):
        save(tmp_path / "new" / "owl" / f"{number}.png", "cat", number % n_cats if n_cats else 0)
        save(tmp_path / "new" / "dog" / f"{number}.png", "dog", number % (n_cats or 5))
    place = ["--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]
    assert run(["run", str(tmp_path / "new"), *PIXELS, *place]) == FAILED
    assert error in capsys.readouterr().err
    assert not list(tmp_path.glob("cache/*/shards"))
