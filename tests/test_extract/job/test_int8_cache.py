"""A cache in int8 keeps its activation ranges: they are measured once, and used by whatever adds to it later."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from featurecache.base.errors import EngineError
from featurecache.extract.backbones.registry import Backbone
from featurecache.extract.cache.memo import FILE_NAME, FileState
from featurecache.extract.cache.ranges import RANGES_FILE
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.engines import int8
from featurecache.extract.images.read import read_images
from featurecache.extract.job.extract import ExtractReport, Settings, Silent, extract_features
from featurecache.extract.job.request import FeatureRequest

N, SIDE = 4, 16
REQUEST = FeatureRequest("toy", precision="int8")


class Toy(nn.Module):
    """A small network of fixed random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(images.float() / 255 - 0.5).relu()).relu().mean((2, 3))


@pytest.fixture(scope="module")
def exported() -> bytes:
    """The graph of the toy, exported once."""
    return int8.export_graph(Toy().eval().requires_grad_(False), batch_size=int8.BATCH_SIZE, side=SIDE)


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path, exported) -> list[str]:
    """The toy in place of the backbones, its export done; returns the names that were loaded."""
    path, loaded = tmp_path / "toy.pth", []
    path.write_bytes(b"weights")

    def load(name, **_: object) -> Backbone:
        loaded.append(name)
        return Backbone(
            name=name,
            source="tests",
            weights="toy.pth",
            weights_path=path,
            weights_digest="ab" * 32,
            weights_state=FileState.of(path.stat()),
            layer="end",
            pooling="avg",
            transform=TransformSpec(SIDE, SIDE, "bilinear", True, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
            feature_dim=5,
            module=Toy().eval().requires_grad_(False),
        )

    monkeypatch.setattr("featurecache.extract.backbones.registry.load_backbone", load)
    monkeypatch.setattr(int8, "export_graph", lambda *_, **__: exported)
    monkeypatch.setattr("featurecache.extract.job.plan.find_unique", lambda *_, **__: None)
    return loaded


def add_image(root: Path, number: int) -> None:
    root.mkdir(exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / f"{number}.png")


@pytest.fixture
def images(tmp_path) -> Path:
    for number in range(N):
        add_image(tmp_path / "images", number)
    return tmp_path / "images"


def extract(images: Path, *asked: FeatureRequest, said: Silent | None = None, **settings: object) -> ExtractReport:
    cache = images.with_name("cache")
    return extract_features(
        read_images(images), asked or [REQUEST], cache, settings=Settings(**settings), progress=said
    )


def no_measurement(monkeypatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("ranges were measured again")

    monkeypatch.setattr(int8, "measure_ranges", never)


def as_if_elsewhere(cache: Path) -> None:
    """Let the cache have no memo and no graphs, as one that was copied from another machine."""
    (cache / FILE_NAME).unlink()
    for path in (*cache.glob("*/engine-*.json"), *cache.glob("*/graph-*.onnx")):
        path.unlink()


def test_the_first_run_measures_ranges_and_a_second_loads_nothing(images, toy):
    said = Silent()
    (filled,) = extract(images, said=said).filled
    assert (filled.n_extracted, filled.cache.spec.precision) == (N, "int8")
    assert (filled.cache.folder / RANGES_FILE).is_file()
    assert filled.cache.records()[0]["engine"] == "onnxruntime"
    starts = [line.partition(",")[0] for line in said.lines if "toy" in line and "once" in line]
    assert starts == [
        "Measuring the activation ranges of toy for int8",
        "Preparing toy in int8 for this machine",
    ]
    assert toy == ["toy"]
    assert extract(images).filled[0].n_extracted == 0
    assert toy == ["toy"]


def test_vectors_in_int8_are_near_those_in_fp32_in_a_cache_of_their_own(images):
    reports = extract(images), extract(images, FeatureRequest("toy"), engine="torch")
    ours, exact = (report.filled[0].cache.lookup(report.digests) for report in reports)
    assert 0.99 < int8.mean_cosine(ours, exact) < 1
    assert reports[0].filled[0].cache.folder != reports[1].filled[0].cache.folder


def test_images_are_added_elsewhere_with_the_ranges_of_the_cache(images, monkeypatch):
    first = extract(images)
    as_if_elsewhere(images.with_name("cache"))
    no_measurement(monkeypatch)
    add_image(images, N)
    (filled,) = extract(images).filled
    assert (filled.cache.folder, filled.n_present, filled.n_extracted) == (first.filled[0].cache.folder, N, 1)


def test_images_are_added_by_an_exporter_that_names_tensors_otherwise(images, monkeypatch, exported):
    first = extract(images)
    before = first.filled[0].cache.lookup(first.digests)
    shutil.rmtree(first.filled[0].cache.folder / "shards")
    as_if_elsewhere(images.with_name("cache"))
    no_measurement(monkeypatch)
    model = onnx.load_model_from_string(exported)
    inner = {name for node in model.graph.node for name in node.output} - {each.name for each in model.graph.output}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"other.{name}" if name in inner else name for name in names]
    for each in model.graph.value_info:
        each.name = f"other.{each.name}"
    monkeypatch.setattr(int8, "export_graph", lambda *_, **__: model.SerializeToString())
    again = extract(images)
    assert again.filled[0].cache.folder == first.filled[0].cache.folder
    assert np.array_equal(again.filled[0].cache.lookup(again.digests), before)


def test_another_data_type_takes_the_ranges_over(images, monkeypatch):
    (first,) = extract(images).filled
    no_measurement(monkeypatch)
    (half,) = extract(images, FeatureRequest("toy", precision="int8", dtype="float16")).filled
    assert half.cache.spec.ranges == first.cache.spec.ranges
    assert (half.cache.folder / RANGES_FILE).read_bytes() == (first.cache.folder / RANGES_FILE).read_bytes()


@pytest.mark.parametrize("fault", ["gone", "damaged"])
def test_ranges_that_are_gone_or_damaged_are_measured_again_to_the_same_key(fault, images):
    (first,) = extract(images).filled
    path = first.cache.folder / RANGES_FILE
    whole = path.read_bytes()
    path.write_text("{}") if fault == "damaged" else path.unlink()
    add_image(images, N)
    (again,) = extract(images).filled
    assert (again.cache.folder, again.n_extracted) == (first.cache.folder, 1)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("settings", [{"device": "cuda"}, {"engine": "torch"}])
def test_other_engines_and_devices_are_refused_before_anything_is_loaded(settings, images, toy):
    with pytest.raises(EngineError, match=r"int8.*Use --"):
        extract(images, **settings)
    assert toy == []
