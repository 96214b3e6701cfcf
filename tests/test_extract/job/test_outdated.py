"""Rows whose image older decode rules read otherwise are computed again; all others, and the key, stay."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from featurecache.base.errors import CacheError
from featurecache.base.progress import Silent
from featurecache.extract.cache import store
from featurecache.extract.cache.compact import compact_cache
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.cache.verify import verify_cache
from featurecache.extract.images import digests
from featurecache.extract.images.decode_rules import DECODE_REVISION
from featurecache.extract.images.decoding import revisions
from featurecache.extract.images.read import read_images
from featurecache.extract.job import fixed_pictures, outdated, writer
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.passes import Run
from featurecache.extract.job.plan import Group
from featurecache.extract.job.request import FeatureRequest

REQUEST = FeatureRequest("pixels", size=8)


def jpeg(number: int, *segments: bytes) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    parts = [b"\xff\xe1" + struct.pack(">H", len(each) + 2) + each for each in segments]
    return file.getvalue()[:2] + b"".join(parts) + file.getvalue()[2:]


def exif(orientation: int) -> bytes:
    value = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0MM" + struct.pack(">HIH", 42, 8, 1) + value + bytes(4)


@pytest.fixture(scope="module", autouse=True)
def _judged_once(judged_once):
    with judged_once():
        yield


@pytest.fixture
def images(tmp_path):
    """Six pictures, of which the first rules of decoding turned one otherwise."""
    root = tmp_path / "images"
    root.mkdir()
    for number in range(4):
        (root / f"{number}.jpg").write_bytes(jpeg(number))
    (root / "4.jpg").write_bytes(jpeg(4, exif(6)))
    (root / "5.jpg").write_bytes(jpeg(5, b"FLIR\0" + bytes(9), exif(6)))
    return root


@pytest.fixture
def said():
    return []


@pytest.fixture
def extract(images, tmp_path, said):
    class Lines(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    def extracted():
        return extract_features(read_images(images), [REQUEST], tmp_path / "cache", progress=Lines())

    return extracted


def vectors(report) -> np.ndarray:
    filled = report.filled[0]
    return FeatureCache(filled.cache.folder.parent, filled.resolved.spec).lookup(report.digests)


@pytest.fixture
def old(extract, images, monkeypatch):
    """A cache by the first rules: its shards record no revision, and one picture was read sideways."""
    record = writer.record_of
    with monkeypatch.context() as before:
        before.setattr(
            writer,
            "record_of",
            lambda *engine: {k: v for k, v in record(*engine).items() if k != "decode_revision"},
        )
        before.setattr("featurecache.extract.images.decode.read_header", lambda data: None)
        before.setattr("featurecache.extract.images.decode.orientation_of", lambda image: 1)
        before.setattr("featurecache.extract.images.decoding.jpeg._refuse_damage", lambda error: None)
        report = extract()
    assert report.filled[0].n_extracted == len(list(images.iterdir()))
    return report


@pytest.fixture
def damaged(images):
    """A picture that was cut and closed again, which the first rules of decoding filled with grey."""
    data = jpeg(8)
    (images / "8.jpg").write_bytes(data[: len(data) * 3 // 4] + b"\xff\xd9")
    return images / "8.jpg"


def test_only_the_affected_images_are_computed_again_and_counted(old, extract, monkeypatch):
    before = vectors(old)
    second = extract()
    (filled,) = second.filled
    assert (filled.n_present, filled.n_extracted, filled.n_outdated) == (5, 1, 1)
    assert filled.resolved.spec.key == old.filled[0].resolved.spec.key
    after = vectors(second)
    np.testing.assert_array_equal(np.flatnonzero((before != after).any(axis=1)), [5])

    def never(*_: object) -> bool:
        pytest.fail("a header was looked at twice")

    monkeypatch.setattr(outdated, "reads_otherwise", never)
    third = extract()
    assert (third.filled[0].n_extracted, third.filled[0].n_outdated) == (0, 0)
    np.testing.assert_array_equal(vectors(third), after)


def test_compacting_never_takes_an_old_row_for_a_new_one(old, extract, monkeypatch):
    after = vectors(extract())
    folder = old.filled[0].cache.folder
    compact_cache(folder)
    monkeypatch.setattr(outdated, "reads_otherwise", lambda *_: pytest.fail("a header was looked at twice"))
    again = extract()
    np.testing.assert_array_equal(vectors(again), after)
    assert again.filled[0].n_extracted == 0
    assert {record.get("decode_revision", 1) for record in again.filled[0].cache.records()} == {1, DECODE_REVISION}


@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_a_file_that_cannot_be_read_is_judged_at_another_time(old, extract, monkeypatch, error):
    def unreadable(*_: object) -> bool:
        raise error("none")

    with monkeypatch.context() as broken:
        broken.setattr(outdated, "reads_otherwise", unreadable)
        assert extract().filled[0].n_extracted == 0
    assert extract().filled[0].n_outdated == 1


def test_new_shards_are_not_judged(extract, monkeypatch):
    extract()
    monkeypatch.setattr(revisions, "reads_otherwise", lambda *_: pytest.fail("a header was looked at"))
    assert extract().filled[0].n_outdated == 0


def test_other_pixels_of_the_fixed_pictures_are_noticed(extract, images, monkeypatch):
    first = extract()
    path = first.filled[0].cache.folder / fixed_pictures.PIXELS_FILE
    kept = json.loads(path.read_text())
    assert first.notes == ()
    (images / "6.jpg").write_bytes(jpeg(6))
    assert extract().notes == ()

    apply = fixed_pictures.fit_pixels
    monkeypatch.setattr(fixed_pictures, "fit_pixels", lambda image, spec: 255 - apply(image, spec))
    monkeypatch.setattr(
        fixed_pictures, "installed_version", lambda name: "99" if name == "torch" else kept["versions"][name]
    )
    (images / "7.jpg").write_bytes(jpeg(7))
    (note,) = extract().notes
    assert note.startswith("Images are decoded or resized to other pixels than when 'pixels-")
    assert f"(torch {kept['versions']['torch']} then and 99 now)" in note
    assert json.loads(path.read_text()) == kept


def test_the_fixed_pictures_exercise_the_resize_kernel():
    pixels = fixed_pictures.decode_pixels(fixed_pictures.fixed_png())
    assert pixels.shape == (3, 427, 640)
    assert fixed_pictures.decode_pixels(fixed_pictures.JPEG).shape == (3, 72, 96)


def test_dim_images_are_named(images, tmp_path):
    for number, most in enumerate((263, 4000)):
        values = np.linspace(38, most, 400).astype(np.uint16).reshape(20, 20)
        Image.fromarray(values).save(images / f"dim{number}.png")
    (note,) = extract_features(read_images(images), [REQUEST], tmp_path / "cache").notes
    assert note.startswith("2 16-bit images, the first 'dim0.png', with values in 38:4000 only")
    request = FeatureRequest("pixels", size=8, range="0:4095")
    report = extract_features(read_images(images), [request], tmp_path / "cache")
    assert report.notes == ()
    assert report.filled[0].n_extracted == 8


def test_images_of_another_unit_than_the_range_are_named(images, tmp_path):
    deep = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(deep).save(images / "deep.tif")
    for number in range(2):
        Image.fromarray((deep / 4095 - number * 9).astype(np.float32)).save(images / f"share{number}.tif")
    request = FeatureRequest("pixels", size=8, range="0:4095")
    (note,) = extract_features(read_images(images), [request], tmp_path / "cache").notes
    assert note == (
        "2 images with fewer than 4 grey levels in the range 0:4095, the first 'share0.tif' with values in 0:1: wholly "
        "black, wholly white, or nearly of one grey. Put images of another unit into a folder of their own with a "
        "range of their own, or give --range image."
    )


def test_files_that_moved_and_a_new_one_leave_old_rows_that_are_read_judged(old, extract, images, monkeypatch):
    monkeypatch.setattr(digests, "FIRST_BLOCK", 1)
    for path in sorted(images.iterdir()):
        path.rename(images / f"moved-{path.name}")
    (images / "-1.jpg").write_bytes(jpeg(6))  # the first, and new: the digests of the others are found on the way
    before = vectors(old)
    report = extract()
    assert report.filled[0].n_extracted == 2
    np.testing.assert_array_equal(np.flatnonzero((vectors(report)[1:] != before).any(axis=1)), [5])


def refused_rows(report) -> list[str]:
    return [refusal.name for refusal in report.refusals if refusal.reason.startswith("damaged: ")]


def test_a_damaged_image_that_older_rules_read_is_refused_and_its_row_does_not_count(
    damaged, old, extract, tmp_path, monkeypatch
):
    second = extract()
    assert refused_rows(second) == ["8.jpg"]
    (filled,) = second.filled
    assert (filled.n_present, filled.n_extracted, filled.n_outdated) == (5, 1, 1)
    digest = np.frombuffer(hashlib.sha256(damaged.read_bytes()).digest(), np.uint8)[None]
    cache = FeatureCache(tmp_path / "cache", filled.resolved.spec)
    assert cache.missing(digest).all()
    with h5py.File(cache.folder / "features.h5") as file:
        assert len(file["features"]) == 6
    assert verify_cache(cache.folder).damaged == ()
    with Memo(tmp_path / "cache") as memo:
        assert digest.tobytes() in memo.refusals(filled.resolved.spec.key), "classify leaves the image out by this"

    monkeypatch.setattr(outdated, "refusal_since", lambda *_: pytest.fail("a file was judged twice"))
    third = extract()
    assert refused_rows(third) == ["8.jpg"]
    assert third.filled[0].n_extracted == 0
    compact_cache(cache.folder)
    assert refused_rows(extract()) == ["8.jpg"]


def test_a_file_that_changes_after_its_digest_was_found_says_nothing_about_the_row(damaged, old):
    damaged.write_bytes(jpeg(9)[:300] + b"\xff\xd9")
    (cache,) = [filled.cache for filled in old.filled]
    changed, refused = outdated.OutdatedRows.among(old.samples, old.digests).of(cache)
    assert (int(changed.sum()), refused) == (1, {})
    row = old.digests[[Path(sample.path).name == "8.jpg" for sample in old.samples]]
    assert cache.outdated(row, DECODE_REVISION).all(), "it is judged at another time"


def test_a_run_that_is_stopped_has_kept_the_verdicts_before(old, extract, monkeypatch):
    judge = outdated.judge

    def stopping(path, *rest):
        if path.endswith("5.jpg"):
            raise KeyboardInterrupt
        return judge(path, *rest)

    monkeypatch.setattr(outdated, "BLOCK", 2)
    with monkeypatch.context() as stopped:
        stopped.setattr(outdated, "judge", stopping)
        with pytest.raises(KeyboardInterrupt):
            extract()
    asked = []
    monkeypatch.setattr(outdated, "judge", lambda path, *rest: asked.append(path[-5:]) or judge(path, *rest))
    assert extract().filled[0].n_outdated == 1
    assert sorted(asked) == ["4.jpg", "5.jpg"]


def test_an_error_of_the_cache_does_not_hide_what_ended_the_run(damaged, old, extract, monkeypatch):
    def raising(error):
        def fail(*_):
            raise error

        return fail

    monkeypatch.setattr(FeatureCache, "withdraw", raising(CacheError("no")))
    monkeypatch.setattr(Run, "fill", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        extract()


def test_what_is_found_damaged_is_said_and_that_its_row_counts_where_nothing_can_be_written(
    damaged, old, extract, said, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "withdraw", full)
    assert refused_rows(extract()) == ["8.jpg"]
    assert any(", 1 found damaged;" in line for line in said)
    (line,) = [line for line in said if line.startswith("The features of images that are refused stay in '")]
    assert line.endswith("because it cannot be written: No space left on device. Correct that and extract again.")


def test_a_damaged_image_is_refused_without_the_network(damaged, old, extract, images, monkeypatch):
    (images / "5.jpg").unlink()  # the one that was read sideways
    monkeypatch.setattr(Group, "start", lambda *_: pytest.fail("a network was loaded"))
    assert refused_rows(extract()) == ["8.jpg"]


def test_a_damaged_image_that_moved_is_refused_too(damaged, old, extract, images, monkeypatch):
    monkeypatch.setattr(digests, "FIRST_BLOCK", 1)
    for path in sorted(images.iterdir()):
        path.rename(images / f"moved-{path.name}")
    (images / "-1.jpg").write_bytes(jpeg(6))
    report = extract()
    assert refused_rows(report) == ["moved-8.jpg"]
    assert report.filled[0].n_extracted == 2
    cache = FeatureCache(report.filled[0].cache.folder.parent, report.filled[0].resolved.spec)
    assert len(cache) == 7


@pytest.mark.parametrize(("decode", "n_again"), [("full", 0), ("reduced", 1)])
def test_jpegs_with_more_pictures_are_computed_again_where_they_are_reduced_since(
    images, tmp_path, monkeypatch, decode, n_again
):
    pictures = [Image.fromarray(np.full((64, 64, 3), value, dtype=np.uint8)) for value in (9, 200)]
    pictures[0].save(images / "9.jpg", "MPO", save_all=True, append_images=pictures[1:])
    request = FeatureRequest("pixels", size=8, decode=decode)
    with monkeypatch.context() as before:
        before.setattr(writer, "DECODE_REVISION", 4)
        extract_features(read_images(images), [request], tmp_path / "cache")
    for n in (n_again, 0):
        (filled,) = extract_features(read_images(images), [request], tmp_path / "cache").filled
        assert (filled.n_extracted, filled.n_outdated) == (n, n)
