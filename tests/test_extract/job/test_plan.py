"""Requests that share a network share its forward pass, and what is ahead is said before it begins."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from featurecache.base import progress as progress_module
from featurecache.base.errors import CacheUnwritable, UnknownLayer
from featurecache.base.progress import Pace
from featurecache.base.text import readable_bytes, readable_seconds
from featurecache.extract.backbones.registry import Backbone
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.engines.torch_engine import TorchEngine
from featurecache.extract.images.read import read_images
from featurecache.extract.job.extract import ExtractReport, Settings, Silent, extract_features
from featurecache.extract.job.request import FeatureRequest, remembered

N = 6
SMALL = {"size": 64}  # an eighth of the work of 224
EARLY, LATE, ALL = (FeatureRequest(layer=layer, **SMALL) for layer in ("_blocks.1", "_blocks.4", "stages"))


@pytest.fixture
def images(tmp_path) -> Path:
    """N pictures of noise, half of them in a, half in b."""
    root, random = tmp_path / "images", np.random.default_rng(0)
    for i in range(N):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)).save(root / "ab"[i % 2] / f"{i}.png")
    return root


class Told(Silent):
    """Progress that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def extract(images, tmp_path):
    """One run, on the CPU, two images at a time."""

    def run(
        *asked: FeatureRequest, root: Path = images, cache: str = "cache", told: Told | None = None
    ) -> ExtractReport:
        settings = Settings(engine="torch", device="cpu", batch_size=2)
        return extract_features(read_images(root), asked, tmp_path / cache, settings=settings, progress=told)

    return run


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """How many images went through a network, pass by pass."""
    counts: list[int] = []
    run = TorchEngine.run

    def counting(engine, batch):
        counts.append(len(batch))
        return run(engine, batch)

    monkeypatch.setattr(TorchEngine, "run", counting)
    return counts


def vectors(report: ExtractReport) -> list[np.ndarray]:
    return [filled.cache.lookup(report.digests) for filled in report.filled]


def counted(report: ExtractReport) -> list[tuple[int, int]]:
    return [(filled.n_present, filled.n_extracted) for filled in report.filled]


# One forward pass


def test_layers_asked_for_together_are_the_same_bits_as_each_alone_and_take_one_pass(extract, forwards):
    asked = [FeatureRequest(**SMALL), ALL, LATE]
    together = extract(*asked)
    assert sum(forwards) == N
    assert counted(together) == [(0, N)] * 3
    assert [found.shape for found in vectors(together)] == [(N, 1280), (N, 2064), (N, 40)]
    assert len({filled.cache.folder for filled in together.filled}) == 3
    for request, found in zip(asked, vectors(together), strict=True):
        alone = extract(request, cache=f"alone-{request.layer}")
        assert alone.filled[0].resolved == next(f.resolved for f in together.filled if f.request == request)
        np.testing.assert_array_equal(vectors(alone)[0], found)


def test_the_stages_end_in_the_usual_vector_and_hold_the_layers_they_are_made_of(extract):
    usual, stages, late = vectors(extract(FeatureRequest(**SMALL), ALL, LATE))
    np.testing.assert_array_equal(stages[:, -1280:], usual)
    np.testing.assert_array_equal(stages[:, 16 + 24 : 16 + 24 + 40], late)


def test_an_image_runs_when_any_layer_misses_it_and_only_what_is_missing_is_written(extract, images, forwards):
    extract(EARLY, root=images / "a")
    extract(LATE, root=images / "b")
    forwards.clear()
    report = extract(EARLY, LATE)
    assert sum(forwards) == N
    assert counted(report) == [(N // 2, N // 2)] * 2
    for filled in report.filled:
        assert sum(record["n"] for record in filled.cache.records()) == N
    fresh = extract(EARLY, LATE, cache="fresh")
    for found, expected in zip(vectors(report), vectors(fresh), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_layer_that_is_complete_is_not_computed_again(extract, monkeypatch):
    extract(EARLY)
    widths = []
    run = TorchEngine.run

    def watching(engine, batch):
        found = run(engine, batch)
        widths.append(found.shape[1])
        return found

    monkeypatch.setattr(TorchEngine, "run", watching)
    report = extract(EARLY, LATE)
    assert counted(report) == [(N, 0), (0, N)]
    assert set(widths) == {40}


def test_a_run_that_was_stopped_goes_on_for_every_layer_where_it_was(extract):
    class Stopping(Told):
        def extracting(self, done: int, total: int, refused: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(EARLY, LATE, told=Stopping())
    assert counted(extract(EARLY, LATE)) == [(4, N - 4)] * 2


def test_single_and_half_precision_numbers_of_one_layer_come_from_one_pass(extract, forwards):
    half = FeatureRequest(layer=EARLY.layer, dtype="float16", **SMALL)
    single, halved = vectors(extract(EARLY, half))
    assert sum(forwards) == N
    np.testing.assert_array_equal(halved, single.astype(np.float16))


def test_two_names_of_the_same_features_are_one_cache_and_are_written_once(extract, forwards):
    report = extract(FeatureRequest(**SMALL), FeatureRequest(layer="_swish_1", **SMALL))
    assert sum(forwards) == N
    assert counted(report) == [(0, N)] * 2
    assert report.filled[0].cache.folder == report.filled[1].cache.folder
    assert [record["n"] for record in report.filled[0].cache.records()] == [N]


def test_the_same_request_twice_is_one(extract, forwards):
    report = extract(EARLY, EARLY)
    assert counted(report) == [(0, N)] * 2
    assert sum(forwards) == N


def test_layers_in_another_arithmetic_run_by_themselves(extract, forwards):
    rough = FeatureRequest(layer=EARLY.layer, precision="bf16", **SMALL)
    fine, other = vectors(extract(EARLY, rough))
    assert sum(forwards) == 2 * N
    assert not np.array_equal(fine, other)
    np.testing.assert_allclose(other, fine, rtol=0.2, atol=0.2)


def test_a_layer_that_is_not_there_ends_the_run_before_anything_is_written(extract, tmp_path):
    with pytest.raises(UnknownLayer, match="efficientnet_lite0 has no layer 'features'"):
        extract(EARLY, FeatureRequest(layer="features", **SMALL))
    assert not list((tmp_path / "cache").glob("*/shards/*"))


def test_what_requests_were_resolved_to_is_remembered_one_by_one(extract, tmp_path):
    report = extract(EARLY, LATE)
    with Memo(tmp_path / "cache") as memo:
        found = dict(remembered(memo))
        assert found == {filled.request: filled.resolved.spec for filled in report.filled}
        memo.remember_answer("[{}]", "{}")
        memo.remember_answer('[{"colour": "red"}]', '{"spec": {}}')
        memo.remember_answer("no JSON", "")
        assert dict(remembered(memo)) == found


# One set of pixels


def toy(name: str, mean: float, crop: int, weights_path: Path) -> Backbone:
    """A backbone that answers with the mean colour of its pixels, less `mean`."""

    class Colour(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float().mean((2, 3)) - mean

    return Backbone(
        name=name,
        source="tests",
        weights="toy.pth",
        weights_path=weights_path,
        weights_digest=f"{crop:064x}",
        weights_state=FileState.of(weights_path.stat()),
        layer="end",
        pooling="avg",
        transform=TransformSpec(16, crop, "bilinear", True, (mean,) * 3, (1.0,) * 3),
        feature_dim=3,
        module=Colour().eval(),
    )


def test_networks_that_want_the_same_pixels_share_them(extract, tmp_path, monkeypatch):
    weights_path = tmp_path / "toy.pth"
    weights_path.write_bytes(b"weights")
    toys = {"one": (0.0, 12), "other": (0.5, 12), "smaller": (0.0, 8)}
    monkeypatch.setattr(
        "featurecache.extract.backbones.registry.load_backbone",
        lambda name, **_: toy(name, *toys[name], weights_path=weights_path),
    )
    from featurecache.extract.images import transform

    fit, sizes = transform.fit_pixels, []

    def counting(image, spec, out=None):
        sizes.append(spec.crop)
        return fit(image, spec, out)

    monkeypatch.setattr(transform, "fit_pixels", counting)
    one, other, smaller = vectors(extract(*(FeatureRequest(name) for name in toys)))
    assert sorted(sizes) == [8] * N + [12] * N
    np.testing.assert_allclose(other, one - 0.5, rtol=1e-5)
    assert np.abs(smaller - one).max() > 1e-3


# What is ahead


def test_before_it_begins_one_line_says_what_is_to_do(extract, images):
    extract(EARLY, root=images / "a")
    told = Told()
    extract(EARLY, LATE, told=told)
    needed = (N // 2) * (24 * 4 + 256) + N * (40 * 4 + 256)
    assert re.fullmatch(
        rf"{N} images to extract into 2 caches, 0 already there; "
        rf"{re.escape(readable_bytes(needed))} of disk needed, [\d.]+ [kMGT]?B free",
        told.lines[0],
    )
    told = Told()
    extract(EARLY, FeatureRequest(layer=LATE.layer, **SMALL), told=told)
    assert told.lines == []


def test_images_that_are_there_are_counted(extract, images):
    extract(EARLY, root=images / "a")
    told = Told()
    extract(EARLY, told=told)
    assert told.lines[0].startswith(f"{N // 2} images to extract, {N // 2} already there; ")


def test_all_caches_together_must_fit_on_the_disk(extract, tmp_path, monkeypatch):
    """Each alone would."""
    first, second = N * (24 * 4 + 256), N * (40 * 4 + 256)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=max(first, second)))
    with pytest.raises(CacheUnwritable) as refused:
        extract(EARLY, LATE)
    assert str(refused.value) == (
        f"{2 * N} vectors need {readable_bytes(first + second)} and '{tmp_path / 'cache'}' has "
        f"{readable_bytes(max(first, second))} free: {readable_bytes(min(first, second))} too little. "
        "Free some space or choose another folder with --cache."
    )
    assert not list((tmp_path / "cache").glob("*/shards/*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=first + second))
    assert counted(extract(EARLY, LATE)) == [(0, N)] * 2


class Clock:
    """A clock that stands still between two looks."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def paced(monkeypatch, *, total: int, seconds_per_image: float) -> list[str]:
    """What is said during a run of `total` images at this speed, after a first batch that takes a minute."""
    clock, told = Clock(), Told()
    monkeypatch.setattr(progress_module, "time", clock)
    pace = Pace(total, told)
    clock.now += 60
    for done in range(4, total + 1, 4):
        pace.reached(done)
        clock.now += 4 * seconds_per_image
    return told.lines


def test_after_the_first_batches_of_a_long_run_the_rate_and_the_time_left_are_said_once(monkeypatch):
    # 5 s are over at the 16th image, when 984 are left: 8.2 min.
    assert paced(monkeypatch, total=1000, seconds_per_image=0.5) == ["2.0 images/s: 8 min left"]


def test_a_short_run_has_no_forecast(monkeypatch):
    assert paced(monkeypatch, total=100, seconds_per_image=0.5) == []


def test_a_run_of_less_than_a_batch_has_none_either(monkeypatch):
    assert paced(monkeypatch, total=3, seconds_per_image=1000) == []


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (7.2e10, "72.0 GB"), (3e15, "3000.0 TB")],
)
def test_sizes_are_written_as_people_write_them(n, text):
    assert readable_bytes(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (12_000, "3 h 20 min")]
)
def test_times_are_said_as_people_say_them(seconds, text):
    assert readable_seconds(seconds) == text


# Where the time went


def test_what_follows_one_another_fits_into_the_total(extract):
    seconds = extract(EARLY).seconds
    parts = [seconds.digest, seconds.load, seconds.wait]
    assert min(parts) > 0
    assert sum(parts) <= seconds.total
