"""Every image goes through the backbone once, ever; what is done stays done, whatever stops the run."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from featurecache.base.errors import BackboneError, CacheDamaged, CacheUnwritable, ImageRefused, RequestError
from featurecache.extract.backbones.registry import Backbone
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images import digests, read_ahead
from featurecache.extract.images.decode import decode_image, decode_picture
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.decoding.jpeg import decode_stack
from featurecache.extract.images.digests import Refusal
from featurecache.extract.images.read import read_images
from featurecache.extract.images.transform import apply_transform
from featurecache.extract.job import compute, in_flight, refused_before, trial, writer
from featurecache.extract.job import extract as fill
from featurecache.extract.job.decoding import decoder as decoding
from featurecache.extract.job.extract import ExtractReport, Settings, Silent, extract_features
from featurecache.extract.job.request import FeatureRequest, recall

N = 10
TRANSFORM = TransformSpec(16, 12, "bilinear", True, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
BROKEN = b"\x89PNG\r\n\x1a\n and nothing more"


class Toy(nn.Module):
    """A real network from uint8 to vectors, with a convolution, a batch norm and pooling, of fixed random weights."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        torch.manual_seed(feature_dim)
        norm = nn.BatchNorm2d(feature_dim)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        layers = nn.Conv2d(3, feature_dim, 3, stride=2), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.network = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.float() / 255 - 0.5)


def build_toy(name: str, feature_dim: int, weights_path: Path) -> Backbone:
    return Backbone(
        name=name,
        source="tests",
        weights="toy.pth",
        weights_path=weights_path,
        weights_digest=f"{feature_dim:064x}",
        weights_state=FileState.of(weights_path.stat()),
        layer="end",
        pooling="avg",
        transform=TRANSFORM,
        feature_dim=feature_dim,
        module=Toy(feature_dim).eval().requires_grad_(False),
    )


class Counts:
    """How often a backbone was loaded and an image decoded."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.decoded: list[bytes] = []


@pytest.fixture(autouse=True)
def counts(open_folder, monkeypatch) -> Counts:
    """The toys in place of the backbones, and every load and every decode counted."""
    weights_path, counts = open_folder / "toy.pth", Counts()
    weights_path.write_bytes(b"weights")
    dims = {"toy": 6, "other": 9}

    def load(name, *, weights=None, layer=None, pooling=None, size=None):
        counts.loaded.append(name)
        if name not in dims:
            raise BackboneError(f"no backbone {name}")
        return build_toy(name, dims[name], weights_path)

    def decode(data, **options):
        counts.decoded.append(data)
        return decode_picture(data, **options)

    def decode_together(files, *given, **options):
        stack, whole = decode_stack(files, *given, **options)
        counts.decoded += [files[i] for i in whole]
        return stack, whole

    monkeypatch.setattr("featurecache.extract.backbones.registry.load_backbone", load)
    monkeypatch.setattr(decoding, "decode_picture", decode)
    monkeypatch.setattr(decoding, "decode_stack", decode_together)
    # Toys are no networks that could be built from shapes, to find their caches without their weights.
    monkeypatch.setattr("featurecache.extract.job.plan.find_unique", lambda *_, **__: None)
    return counts


@pytest.fixture
def images(tmp_path) -> Path:
    """N different pictures of different sizes and formats."""
    root, random = tmp_path / "images", np.random.default_rng(0)
    for i in range(N):
        folder = root / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20 + i, 30 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{'jpg' if i % 3 == 0 else 'png'}")
    return root


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def extract(images, cache) -> Callable[..., ExtractReport]:
    """One run over the images, on the CPU, two at a time."""

    def run(
        *names: str, root: Path = images, progress: fill.Progress | None = None, **settings: object
    ) -> ExtractReport:
        options = Settings(**{"engine": "torch", "device": "cpu", "batch_size": 2, **settings})
        asked = [FeatureRequest(name) for name in names or ("toy",)]
        return extract_features(read_images(root), asked, cache, settings=options, progress=progress)

    return run


class Told(Silent):
    """Progress that keeps what it was told, and may stop the run."""

    def __init__(self, stop_after: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.lines: list[str] = []
        self.stop_after, self.error = stop_after, error

    def say(self, text: str) -> None:
        self.lines.append(text)

    def extracting(self, done: int, total: int, refused: int) -> None:
        self.calls.append((done, total, refused))
        if self.stop_after is not None and done >= self.stop_after:
            raise self.error


def alone(path: Path, backbone: Backbone) -> np.ndarray:
    """The vector of one image by itself, without engine or cache."""
    pixels = apply_transform(decode_image(path.read_bytes()), backbone.transform)
    return backbone.module(pixels[None])[0].numpy()


def counted(report: ExtractReport) -> list[tuple[int, int]]:
    return [(filled.n_present, filled.n_extracted) for filled in report.filled]


def shard_files(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/shards/*"))


def open_toy(cache: Path, name: str = "toy") -> FeatureCache:
    with Memo(cache) as memo:
        resolved = recall(FeatureRequest(name), memo)
    return FeatureCache(cache, resolved.spec)


def settle(monkeypatch) -> None:
    """A clock for which every file was written long ago."""
    now = time.time_ns
    monkeypatch.setattr(digests.time, "time_ns", lambda: now() + 3600 * 10**9)


# The vectors


def test_every_vector_is_that_of_the_backbone_on_the_image_alone(extract, images):
    report = extract()
    assert counted(report) == [(0, N)]
    found = report.filled[0].cache.lookup(report.digests)
    backbone = build_toy("toy", 6, Path(__file__))
    expected = np.stack([alone(Path(sample.path), backbone) for sample in report.samples])
    assert len(np.unique(expected, axis=0)) == N
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, N, 50])
def test_vectors_do_not_depend_on_who_shared_the_batch(extract, cache, batch_size):
    report = extract(batch_size=batch_size)
    found = report.filled[0].cache.lookup(report.digests)
    shutil.rmtree(cache)
    again = extract(batch_size=2)
    np.testing.assert_array_equal(again.digests, report.digests)
    np.testing.assert_allclose(again.filled[0].cache.lookup(again.digests), found, rtol=1e-5, atol=1e-6)


def test_the_report_names_every_sample_in_the_order_of_the_manifest(extract, images):
    report = extract()
    assert report.samples == read_images(images).samples
    assert [bytes(row) for row in report.digests] == [
        image_digest(Path(sample.path).read_bytes()) for sample in report.samples
    ]
    assert report.refusals == ()
    assert report.n_decoded == N
    assert report.engines == ("torch on cpu in fp32: asked for",)


def test_the_index_shows_what_was_extracted(extract):
    report = extract()
    with h5py.File(report.filled[0].cache.folder / "features.h5") as file:
        rows = {bytes(digest): bytes(row) for digest, row in zip(file["digests"][:], file["features"][:], strict=True)}
    found = report.filled[0].cache.lookup(report.digests)
    assert rows == {bytes(digest): bytes(row) for digest, row in zip(report.digests, found, strict=True)}


def test_the_shard_says_how_it_was_made(extract):
    (record,) = extract().filled[0].cache.records()
    assert record["n"] == N
    assert (record["engine"], record["device"], record["batch_size"]) == ("torch", "cpu", 2)
    assert record["weights"] == "toy.pth"
    assert record["seconds"] >= 0
    assert f'"torch": "{torch.__version__.partition("+")[0]}' in record["versions"]
    assert record["created"].endswith("Z")


# Once, ever


def test_a_second_run_extracts_nothing_decodes_nothing_and_loads_nothing(extract, monkeypatch):
    settle(monkeypatch)
    first = extract()
    before = {path: path.stat() for path in shard_files(first.filled[0].cache.folder.parent)}

    def never(*_: object, **__: object) -> None:
        pytest.fail("a warm run did work")

    for place in (
        "featurecache.extract.backbones.registry.load_backbone",
        "featurecache.extract.engines.build.build_engine",
        "featurecache.extract.images.digests._hash_file",
    ):
        monkeypatch.setattr(place, never)
    monkeypatch.setattr(decoding, "decode_picture", never)
    monkeypatch.setattr(decoding, "decode_stack", never)
    second = extract()
    assert counted(second) == [(N, 0)]
    assert second.n_decoded == 0
    assert second.engines == ()
    assert {path: path.stat() for path in before} == before
    np.testing.assert_array_equal(
        second.filled[0].cache.lookup(second.digests), first.filled[0].cache.lookup(first.digests)
    )


def test_renaming_copying_and_touching_extract_nothing(extract, images, counts):
    extract()
    counts.decoded.clear()
    (images / "a" / "0.jpg").rename(images / "b" / "renamed.jpeg")
    shutil.copy(images / "a" / "2.png", images / "b" / "copy.png")
    os.utime(images / "b" / "1.png", (1, 1))
    images.rename(images.with_name("elsewhere"))
    report = extract(root=images.with_name("elsewhere"))
    assert counted(report) == [(N, 0)]
    assert len(report.samples) == N + 1
    assert counts.decoded == []


def test_editing_one_image_extracts_one_and_adding_three_extracts_three(extract, images, counts):
    extract()
    Image.new("RGB", (20, 20), "red").save(images / "a" / "2.png")
    counts.decoded.clear()
    assert counted(extract()) == [(N - 1, 1)]
    assert counts.decoded == [(images / "a" / "2.png").read_bytes()]
    for i, colour in enumerate(["green", "blue", "white"]):
        Image.new("RGB", (20, 20), colour).save(images / "b" / f"new{i}.png")
    assert counted(extract()) == [(N, 3)]


def test_copies_are_read_and_computed_once(extract, images, counts):
    for i in range(3):
        shutil.copy(images / "a" / "2.png", images / "b" / f"copy{i}.png")
    report = extract()
    assert counted(report) == [(0, N)]
    assert len(counts.decoded) == N
    rows = report.filled[0].cache.lookup(report.digests)
    same = [i for i, sample in enumerate(report.samples) if sample.name == "a/2.png" or "copy" in sample.name]
    assert len(same) == 4
    assert len(np.unique(rows[same], axis=0)) == 1
    with h5py.File(report.filled[0].cache.folder / "features.h5") as file:
        shown = {name.decode() for name in file["paths"][:]}
    assert shown == {sample.name for sample in report.samples if "copy" not in sample.name}


def test_only_what_is_missing_is_extracted(extract, images, tmp_path, counts):
    half = tmp_path / "half"
    shutil.copytree(images / "a", half / "a")
    assert counted(extract(root=half)) == [(0, N // 2)]
    assert counted(extract()) == [(N // 2, N // 2)]
    assert len(counts.decoded) == N


# Several backbones at once


def test_two_requests_share_one_pass_over_the_images(extract, counts):
    report = extract("toy", "other")
    assert counted(report) == [(0, N), (0, N)]
    assert len(counts.decoded) == report.n_decoded == N
    for filled, dim in zip(report.filled, (6, 9), strict=True):
        backbone = build_toy(filled.request.backbone, dim, Path(__file__))
        expected = np.stack([alone(Path(sample.path), backbone) for sample in report.samples])
        np.testing.assert_allclose(filled.cache.lookup(report.digests), expected, rtol=1e-4, atol=1e-6)


def test_a_backbone_that_has_everything_is_left_alone_beside_one_that_has_nothing(extract, counts):
    extract("toy")
    counts.loaded.clear()
    report = extract("toy", "other")
    assert counted(report) == [(N, 0), (0, N)]
    assert counts.loaded == ["other"]


def test_each_request_gets_only_what_it_misses(extract, images, tmp_path, counts):
    half = tmp_path / "half"
    shutil.copytree(images / "a", half / "a")
    extract("toy", root=half)
    counts.decoded.clear()
    report = extract("toy", "other")
    assert counted(report) == [(N // 2, N // 2), (0, N)]
    assert max(Counter(counts.decoded).values()) == 1


def test_precision_and_dtype_are_caches_of_their_own(extract, images, cache):
    asked = [FeatureRequest("toy"), FeatureRequest("toy", dtype="float16"), FeatureRequest("toy", precision="bf16")]
    settings = Settings(engine="torch", device="cpu", batch_size=4)
    report = extract_features(read_images(images), asked, cache, settings=settings)
    single, half, rough = (filled.cache.lookup(report.digests) for filled in report.filled)
    np.testing.assert_array_equal(half, single.astype(np.float16))
    np.testing.assert_allclose(rough, single, rtol=0.1, atol=0.05)
    assert not np.array_equal(rough, single)
    assert len({filled.cache.folder for filled in report.filled}) == 3


# Refused images


def test_a_corrupt_image_is_refused_with_its_copies_and_the_rest_is_done(extract, images):
    for name in ("a/broken.png", "b/again.png"):
        (images / name).write_bytes(BROKEN)
    progress = Told()
    report = extract(progress=progress)
    assert counted(report) == [(0, N)]
    assert [(r.name, r.digest) for r in report.refusals] == [
        ("a/broken.png", image_digest(BROKEN).hex()),
        ("b/again.png", image_digest(BROKEN).hex()),
    ]
    assert len(report.samples) == len(report.digests) == N
    assert not report.filled[0].cache.missing(report.digests).any()
    assert progress.calls[-1] == (N + 2, N + 2, 1)


def test_nothing_but_corrupt_images_is_no_error_of_the_run(extract, tmp_path):
    root = tmp_path / "bad"
    root.mkdir()
    (root / "x.png").write_bytes(BROKEN)
    report = extract(root=root)
    assert counted(report) == [(0, 0)]
    assert report.samples == ()
    assert report.digests.shape == (0, 32)
    assert not (report.filled[0].cache.folder / "features.h5").exists()


def test_images_that_cannot_be_read_and_too_large_or_long_ones_are_refused_by_reason(extract, images):
    (images / "a" / "nowhere.png").symlink_to("gone")
    Image.new("1", (2000, 1000)).save(images / "a" / "large.png")
    Image.new("1", (1, 900_000)).save(images / "a" / "long.png")
    reasons = {r.name: r.reason for r in extract(max_pixels=1_000_000).refusals}
    assert reasons["a/nowhere.png"] == "cannot be read: No such file or directory"
    assert reasons["a/large.png"].startswith("2000 x 1000 pixels are more than the limit of 1,000,000")
    assert "too elongated" in reasons["a/long.png"]
    assert len(reasons) == 3


def after_hashing(monkeypatch, act) -> None:
    """Let all images be hashed first, and `act` happen once between that and their decoding."""
    monkeypatch.setattr(fill, "lacks_rows", lambda *_: lambda digests: False)
    plan_work = fill.plan_work

    def then_act(*arguments, **options):
        work = plan_work(*arguments, **options)
        monkeypatch.setattr(fill, "plan_work", plan_work)
        act()
        return work

    monkeypatch.setattr(fill, "plan_work", then_act)


def test_a_file_that_changes_between_hashing_and_decoding_is_taken_for_what_it_is(extract, images, monkeypatch):
    edited = images / "a" / "2.png"
    after_hashing(monkeypatch, lambda: Image.new("RGB", (20, 20), "red").save(edited))
    report = extract()
    assert report.refusals == ()
    assert counted(report) == [(0, N)]
    assert image_digest(edited.read_bytes()) in set(map(bytes, report.digests))
    assert not report.filled[0].cache.missing(report.digests).any()
    assert counted(extract()) == [(N, 0)]


@pytest.mark.parametrize("content", ["of nothing else", "of another image", "of a copy"])
def test_a_wrong_row_of_the_memo_heals_in_the_same_run(extract, images, cache, monkeypatch, content):
    """A memo has no checksums. Nobody is served the vector of another image, and what is right is remembered."""
    settle(monkeypatch)
    wrong, right = images / "a" / "0.jpg", images / "b" / "1.png"
    if content == "of a copy":
        shutil.copy(wrong, images / "b" / "copy.jpg")
    digest = bytes(32) if content != "of another image" else image_digest(right.read_bytes())
    with Memo(cache) as memo:
        paths = [wrong] if content != "of a copy" else [wrong, images / "b" / "copy.jpg"]
        rows = [(os.fsencode(path), FileState.of(path.stat()), digest) for path in paths]
        memo.remember_digests(rows, read_ns=time.time_ns() + 10**12)
    report = extract()
    assert report.refusals == ()
    assert counted(report) == [(0, N)]
    expected = [image_digest(Path(sample.path).read_bytes()) for sample in report.samples]
    assert [bytes(row) for row in report.digests] == expected
    with Memo(cache) as memo:
        known = memo.known_digests([os.fsencode(wrong)])
    assert known[os.fsencode(wrong)][1] == image_digest(wrong.read_bytes())
    assert counted(extract()) == [(N, 0)]


def test_only_what_the_bytes_are_refused_for_is_remembered(extract, images, cache, monkeypatch):
    """A file that changed or vanished in the middle says nothing about those bytes when they come back."""
    (images / "a" / "broken.png").write_bytes(BROKEN)
    kept = (images / "a" / "2.png").read_bytes(), (images / "a" / "4.png").read_bytes()

    def change() -> None:
        (images / "a" / "2.png").write_bytes(b"changed")
        (images / "a" / "4.png").unlink()

    after_hashing(monkeypatch, change)
    report = extract()
    assert len(report.refusals) == 3
    key = report.filled[0].resolved.spec.key
    with Memo(cache) as memo:
        assert set(memo.refusals(key)) == {image_digest(BROKEN), image_digest(b"changed")}
    (images / "a" / "2.png").write_bytes(kept[0])
    (images / "a" / "4.png").write_bytes(kept[1])
    assert counted(extract()) == [(N - 2, 2)]


# Read once


@pytest.fixture
def reads(monkeypatch) -> Counter[str]:
    """How often each file was opened, for its digest alone or to be decoded."""
    found: Counter[str] = Counter()
    hash_file, read_hashed = digests._hash_file, read_ahead.read_hashed
    monkeypatch.setattr(digests, "_hash_file", lambda s: (found.update([s.path]), hash_file(s))[1])
    for module in (read_ahead, decoding):
        monkeypatch.setattr(module, "read_hashed", lambda path: (found.update([str(path)]), read_hashed(path))[1])
    monkeypatch.setattr(digests, "FIRST_BLOCK", 1)
    return found


def test_a_first_run_reads_every_file_once_and_computes_every_content_once(
    extract, images, cache, counts, reads, monkeypatch
):
    settle(monkeypatch)
    for number in range(3):
        shutil.copy(images / "b" / "9.jpg", images / "b" / f"copy {number}.jpg")
    (images / "b" / "broken.png").write_bytes(BROKEN)
    (images / "b" / "none.png").write_bytes(b"")
    told = Told()
    report = extract(progress=told)
    assert counted(report) == [(0, N)]
    assert list(reads.values()) == [1] * (N + 5)
    assert len(counts.decoded) == N + 2
    assert {r.name for r in report.refusals} == {"b/broken.png", "b/none.png"}
    assert [sample.name for sample in report.samples] == [
        s.name for s in read_images(images).samples if s.name not in ("b/broken.png", "b/none.png")
    ]
    assert [bytes(row) for row in report.digests] == [image_digest(Path(s.path).read_bytes()) for s in report.samples]
    assert any(line.startswith(f"up to {N + 5} images to extract, 0 already there") for line in told.lines)
    with Memo(cache) as memo:
        assert len(list(memo.paths())) == N + 5
    reads.clear()
    assert counted(extract()) == [(N, 0)]
    assert reads == {}


def test_files_that_the_memo_does_not_know_need_no_network_where_the_cache_has_their_content(
    extract, images, counts, reads
):
    extract()
    del counts.loaded[:], counts.decoded[:]
    moved = images.rename(images.with_name("moved"))
    assert counted(extract(root=moved)) == [(N, 0)]
    Image.new("RGB", (9, 9), "red").save(moved / "b" / "new.png")
    assert counted(extract(root=moved)) == [(N, 1)]
    assert len(counts.decoded) == 1


def test_copies_do_not_count_as_disk_space_that_is_needed(extract, images, reads, monkeypatch):
    for number in range(30):
        shutil.copy(images / "b" / "9.jpg", images / "b" / f"copy {number}.jpg")
    room = 15 * (6 * 4 + 256)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(room, 0, room))
    assert counted(extract()) == [(0, N)]


def test_a_file_that_vanishes_before_it_is_read_is_refused_by_name(extract, images, reads, monkeypatch):
    after_hashing(monkeypatch, (images / "b" / "9.jpg").unlink)
    monkeypatch.setattr(fill, "lacks_rows", lambda *_: lambda digests: True)
    report = extract()
    assert [(r.name, r.digest, r.reason) for r in report.refusals] == [
        ("b/9.jpg", "", "cannot be read: No such file or directory")
    ]
    assert counted(report) == [(0, N - 1)]


# Decode processes


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="processes are started by a fork server"
)
def test_decode_processes_give_the_same_vectors_and_refusals(extract, images, cache, counts, monkeypatch):
    monkeypatch.setattr(compute, "FEW_IMAGES", 1)
    (images / "b" / "broken.png").write_bytes(BROKEN)
    report = extract(decode_processes=1)
    assert counts.decoded == []
    assert counted(report) == [(0, N)]
    found = report.filled[0].cache.lookup(report.digests)
    shutil.rmtree(cache)
    again = extract()
    np.testing.assert_array_equal(report.digests, again.digests)
    np.testing.assert_array_equal(again.filled[0].cache.lookup(again.digests), found)
    assert report.refusals == again.refusals


# What ends the process


def leave_notes(cache: Path, *decoding: Path) -> Path:
    """The notes of a process that was ended while it decoded these files."""
    notes = cache / f"{in_flight.PREFIX}0123456789abcdef"
    cache.mkdir(exist_ok=True)
    slots = b"".join(image_digest(path.read_bytes()) + bytes(32) for path in decoding)
    notes.write_bytes(slots.ljust(in_flight.N_SLOTS * 32, b"\0"))
    return notes


@pytest.mark.parametrize("is_known", [True, False])
def test_what_was_in_flight_at_a_crash_comes_last_and_is_refused_if_it_ends_a_process_again(
    extract, images, cache, counts, monkeypatch, is_known
):
    settle(monkeypatch)
    innocent, deadly = images / "a" / "0.jpg", images / "b" / "3.jpg"
    if is_known:
        monkeypatch.setattr(fill, "lacks_rows", lambda *_: lambda digests: False)
    notes = leave_notes(cache, innocent, deadly)
    program = (
        "import json, os, signal, sys\n"
        "print('begun', flush=True)\n"
        "for path in json.load(sys.stdin):\n"
        "    os.kill(os.getpid(), signal.SIGSEGV) if path.endswith('3.jpg') else print('decoded', flush=True)"
    )
    monkeypatch.setattr(trial, "command", lambda: [sys.executable, "-c", program])
    told = Told()
    report = extract(progress=told)
    assert "trying 2 images that a process was decoding when it was ended" in told.lines
    assert [(r.name, r.reason) for r in report.refusals] == [
        ("b/3.jpg", "decoding it ends the process (SIGSEGV); convert it to another format, for example PNG")
    ]
    assert counted(report) == [(0, N - 1)]
    assert counts.decoded[-1] == innocent.read_bytes()
    assert deadly.read_bytes() not in counts.decoded
    assert not notes.exists()
    assert [path.name for path in cache.iterdir() if path.name.startswith(in_flight.PREFIX)] == []
    assert len(extract().refusals) == 1
    assert counted(extract(retry_refused=True)) == [(N - 1, 1)]


def test_notes_about_other_images_are_kept_and_change_nothing(extract, images, cache, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (9, 9), "red").save(other)
    notes = leave_notes(cache, other)
    assert counted(extract()) == [(0, N)]
    assert notes.exists()


def test_what_is_being_decoded_is_noted_while_it_is_and_read_by_nobody_else(extract, cache, counts, monkeypatch):
    seen = []

    def look(digest):
        seen.append((digest, in_flight.InFlight(cache).suspects))
        (path,) = cache.glob(f"{in_flight.PREFIX}*")
        assert digest in path.read_bytes()

    def noting(decoder, decoded, *arguments):
        look(decoded.digest)
        return fit(decoder, decoded, *arguments)

    def noting_each(files, *given, begin, **options):
        return together(files, *given, begin=lambda i: (begin(i), look(image_digest(files[i]))), **options)

    fit, together = decoding.Decoder._fit, decoding.decode_stack
    monkeypatch.setattr(decoding.Decoder, "_fit", noting)
    monkeypatch.setattr(decoding, "decode_stack", noting_each)
    extract()
    assert len(seen) == N
    assert all(suspects == set() for _, suspects in seen)
    assert list(cache.glob(f"{in_flight.PREFIX}*")) == []


# Several caches


def test_a_file_that_changes_to_what_a_complete_cache_lacks_is_refused_and_not_counted_as_there(
    extract, images, counts, monkeypatch
):
    settle(monkeypatch)
    extract("other")
    edited = images / "a" / "2.png"
    after_hashing(monkeypatch, lambda: Image.new("RGB", (20, 20), "red").save(edited))
    report = extract("toy", "other")
    assert [(r.name, r.reason) for r in report.refusals] == [("a/2.png", decoding.CHANGED)]
    assert counted(report) == [(0, N - 1), (N - 1, 0)]
    assert report.n_decoded == N - 1
    assert all(not filled.cache.missing(report.digests).any() for filled in report.filled)
    assert counted(extract("toy", "other")) == [(N - 1, 1), (N - 1, 1)]


# Refused before


def test_a_refused_image_is_refused_again_without_a_network_and_without_decoding(extract, images, counts, monkeypatch):
    settle(monkeypatch)
    (images / "a" / "broken.png").write_bytes(BROKEN)
    first = extract()
    del counts.decoded[:], counts.loaded[:]
    again = extract()
    assert again.refusals == first.refusals
    assert (counts.decoded, counts.loaded, again.engines) == ([], [], ())
    assert counted(again) == [(N, 0)]
    assert len(again.samples) == N
    with pytest.raises(ImageRefused, match=r"^'a/broken\.png' is refused: "):
        extract(on_error="fail")
    assert extract(retry_refused=True).refusals == first.refusals
    assert counts.decoded == [BROKEN]


@pytest.mark.parametrize("change", ["limit", "library", "decoding"])
def test_a_refused_image_is_decoded_again_in_other_circumstances(extract, images, counts, monkeypatch, change):
    settle(monkeypatch)
    (images / "a" / "broken.png").write_bytes(BROKEN)
    extract()
    del counts.decoded[:]
    if change == "library":
        monkeypatch.setattr(refused_before, "installed_version", lambda name: "999")
        monkeypatch.setattr(refused_before, "_decoding_digest", refused_before._decoding_digest.__wrapped__)
    if change == "decoding":
        monkeypatch.setattr(refused_before, "_decoding_digest", lambda: "another rule")
    assert len(extract(max_pixels=10**8 if change == "limit" else MAX_PIXELS).refusals) == 1
    assert counts.decoded == [BROKEN]


def test_a_refusal_for_one_backbone_says_nothing_of_another(extract, images, counts, monkeypatch):
    settle(monkeypatch)
    (images / "a" / "broken.png").write_bytes(BROKEN)
    extract()
    del counts.decoded[:]
    report = extract("toy", "other")
    assert counted(report) == [(N, 0), (0, N)]
    assert counts.decoded.count(BROKEN) == 1
    assert len(report.refusals) == 1


def test_an_image_that_a_limit_refused_is_extracted_under_a_higher_one(extract, images, cache):
    Image.new("1", (200, 100)).save(images / "a" / "large.png")
    report = extract(max_pixels=19_999)
    assert len(report.refusals) == 1
    with Memo(cache) as memo:
        assert len(memo.refusals(report.filled[0].resolved.spec.key)) == 1
    assert counted(extract(max_pixels=20_000)) == [(N, 1)]


def test_features_too_large_for_half_precision_are_refused_and_the_rest_is_kept(extract, images, cache, monkeypatch):
    from featurecache.extract.engines.torch_engine import TorchEngine

    run = TorchEngine.run

    def large_for_the_first(engine, batch):
        vectors = run(engine, batch)
        vectors[0, 0] = 1e6
        return vectors

    monkeypatch.setattr(TorchEngine, "run", large_for_the_first)
    asked = [FeatureRequest("toy", dtype="float16")]
    settings = Settings(engine="torch", device="cpu", batch_size=5)
    report = extract_features(read_images(images), asked, cache, settings=settings)
    assert counted(report) == [(0, N - 2)]
    assert {r.reason for r in report.refusals} == {"its features overflow float16; use --dtype float32"}
    assert len(report.refusals) == 2
    with Memo(cache) as memo:
        assert len(memo.refusals(report.filled[0].resolved.spec.key)) == 2


# What stops a run


def test_on_error_fail_stops_at_the_first_and_keeps_what_was_done(extract, images, counts):
    (images / "a" / "3broken.png").write_bytes(BROKEN)
    with pytest.raises(ImageRefused, match=r"^'a/3broken\.png' is refused: .*\.$"):
        extract(on_error="fail", batch_size=1)
    (images / "a" / "3broken.png").unlink()
    assert counted(extract()) == [(2, N - 2)]


def test_on_error_fail_stops_before_anything_when_a_file_cannot_be_read(extract, images, cache, counts):
    (images / "a" / "nowhere.png").symlink_to("gone")
    with pytest.raises(ImageRefused, match=r"'a/nowhere\.png' is refused: cannot be read: No such file or directory\."):
        extract(on_error="fail")
    assert counts.loaded == []
    assert shard_files(cache) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_whatever_stops_the_run_leaves_the_finished_rows_and_the_next_run_does_the_rest(extract, counts, error):
    with pytest.raises(error) as stopped:
        extract(progress=Told(stop_after=3, error=error), batch_size=2)
    assert stopped.tb is not None  # while somebody still looks at the error, no thread decodes on
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("ahead", "decode", "write"))]
    report = extract()
    assert counted(report) == [(4, N - 4)]
    assert not report.filled[0].cache.missing(report.digests).any()


def test_both_caches_keep_their_rows_when_the_run_is_interrupted(extract):
    with pytest.raises(KeyboardInterrupt):
        extract("toy", "other", progress=Told(stop_after=6), batch_size=2)
    assert counted(extract("toy", "other")) == [(6, N - 6), (6, N - 6)]


def test_an_error_in_the_engine_keeps_the_batches_before_it(extract, monkeypatch):
    from featurecache.extract.engines.torch_engine import TorchEngine

    run, calls = TorchEngine.run, []

    def fails_the_third_time(engine, batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return run(engine, batch)

    with monkeypatch.context() as patched:
        patched.setattr(TorchEngine, "run", fails_the_third_time)
        with pytest.raises(RuntimeError, match="out of memory"):
            extract(batch_size=2)
    assert counted(extract()) == [(4, N - 4)]


def test_shards_are_published_along_the_way(extract, cache, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_SECONDS", -1.0)
    report = extract(batch_size=2)
    assert len(shard_files(cache)) == N // 2
    assert counted(report) == [(0, N)]
    assert not report.filled[0].cache.missing(report.digests).any()


def test_shards_are_published_when_they_grow_large(extract, cache, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_BYTES", 3 * 6 * 4)
    extract(batch_size=1)
    assert [record["n"] for record in open_toy(cache).records()] == [4, 4, 2]


def test_too_little_space_is_said_before_anything_is_loaded_or_written(extract, cache, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(
        CacheUnwritable, match=r"^10 vectors need 2\.8 kB and '.*' has 100 B free: 2\.7 kB too little\. Free"
    ):
        extract()
    assert shard_files(cache) == []


def test_a_shard_that_cannot_be_written_ends_the_run_and_leaves_no_half(extract, cache, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_SECONDS", -1.0)
    publish, calls = FeatureCache.add, []

    def full_the_third_time(toy, rows, record):
        calls.append(len(rows.names))
        if len(calls) >= 3:
            raise CacheUnwritable("no space left")
        publish(toy, rows, record)

    with monkeypatch.context() as patched:
        patched.setattr(FeatureCache, "add", full_the_third_time)
        with pytest.raises(CacheUnwritable, match="no space left"):
            extract(batch_size=2)
    assert counted(extract()) == [(4, N - 4)]


def test_an_unknown_backbone_or_device_ends_the_run_before_anything_is_written(extract, cache):
    with pytest.raises(BackboneError):
        extract("nobody")
    with pytest.raises(RequestError):
        extract(device="abacus")
    assert shard_files(cache) == []


def test_a_damaged_shard_is_said_and_after_it_is_moved_away_only_its_rows_are_redone(extract, cache, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_SECONDS", -1.0)
    extract(batch_size=2)
    broken = shard_files(cache)[1]
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(CacheDamaged, match=broken.name):
        extract()
    broken.unlink()
    assert counted(extract()) == [(N - 2, 2)]


def test_another_weights_file_is_loaded_to_see_whether_its_tensors_are_others(
    extract, counts, open_folder, monkeypatch
):
    extract()
    (open_folder / "toy.pth").write_bytes(b"saved again")
    assert counted(extract()) == [(N, 0)]
    assert counts.loaded == ["toy", "toy"]
    (open_folder / "toy.pth").write_bytes(b"trained further")
    monkeypatch.setattr(
        "featurecache.extract.backbones.registry.load_backbone",
        lambda *_, **__: build_toy("toy", 7, open_folder / "toy.pth"),
    )
    assert counted(extract()) == [(0, N)]


def test_progress_counts_every_chunk_once_and_names_the_engine(extract):
    progress = Told()
    extract(progress=progress)
    assert progress.calls == [(i, N, 0) for i in range(2, N + 1, 2)]
    outlook, engine = progress.lines
    assert re.fullmatch(
        r"up to 10 images to extract, 0 already there; 2\.8 kB of disk needed, [\d.]+ [kMGT]?B free", outlook
    )
    assert engine == "torch on cpu in fp32: asked for"


def test_the_time_is_told_apart(extract):
    seconds = extract().seconds
    assert min(seconds.read, seconds.decode, seconds.forward, seconds.write) > 0
    assert seconds.total >= max(seconds.forward, seconds.write)


def test_a_warm_cache_that_may_only_be_read_serves_a_second_run(open_folder, closed_to_us, monkeypatch):
    settle(monkeypatch)
    images, cache = open_folder / "images", open_folder / "cache"
    images.mkdir()
    Image.new("RGB", (20, 20), "red").save(images / "x.png")
    settings = Settings(engine="torch", device="cpu", batch_size=2)
    first = extract_features(read_images(images), [FeatureRequest("toy")], cache, settings=settings)
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with closed_to_us():
        second = extract_features(read_images(images), [FeatureRequest("toy")], cache, settings=settings)
    assert counted(second) == [(1, 0)]
    assert counted(first) == [(0, 1)]


def test_a_refusal_is_one_line_for_people():
    line = fill.refused_line(Refusal("new\nline.png", "", "the file is empty"))
    assert line == "'new\\nline.png' is refused: the file is empty."


def test_a_run_with_other_settings_finds_what_the_first_has_done(extract, counts):
    extract(batch_size=2)
    assert counted(extract(batch_size=5, engine="auto", device="auto")) == [(N, 0)]
    assert counts.loaded == ["toy"]
