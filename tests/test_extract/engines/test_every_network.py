"""Every network that can be named runs through `auto` at batch 2, with random weights. Slow: `make survey`.

The table of engine, rate and error is written to networks.csv in the folder of the test's temporary files, whose place
is printed at the end.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torchvision import models

from featurecache.extract.backbones.architectures import build_network
from featurecache.extract.backbones.cutting import cut_network
from featurecache.extract.backbones.listing import LITE_SIZES, PIXELS, network_names
from featurecache.extract.backbones.weights import fill_network, find_weights
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.choice import TOLERANCE, compare_engines
from featurecache.extract.engines.protocol import Source

pytestmark = pytest.mark.slow
BATCH = 2
NETWORKS = [name for name in network_names() if name not in (*LITE_SIZES, PIXELS)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Takes the rows; the file is complete up to the last network that was tried."""
    path = tmp_path_factory.mktemp("survey") / "networks.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["backbone", "engine", "images/s", "error", "reason"])
        yield lambda *row: (rows.writerow(row), file.flush())
    print(f"\n{path}\n{Path(path).read_text()}")


def random_source(name: str) -> Source:
    """The network with torchvision's own initial values, normalised as for its default weights."""
    found = find_weights(name)
    torch.manual_seed(0)
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    network = build_network(name, found.meta)
    values = models.get_model(name, weights=None, **options, **_image_size(name, found.transform.crop)).state_dict()
    fill_network(network, values, backbone=name, file_name="random values")
    module = cut_network(name, network, found.transform).module
    return Source({"backbone": name}, found.transform.crop, lambda: module)


def _image_size(name: str, side: int) -> dict[str, int]:
    return {"image_size": side} if name.startswith("vit_") else {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_it_runs_and_a_fallback_says_why(name, table):
    source = random_source(name)
    verdict, graph = compare_engines(source, BATCH)
    images = torch.randint(0, 256, (BATCH, 3, source.side, source.side), dtype=torch.uint8)
    table(name, verdict.engine, verdict.rates.get(verdict.engine, ""), verdict.error, verdict.reason)
    assert verdict.engine == "torch" or (graph is not None and verdict.error <= TOLERANCE)
    assert verdict.reason
    engine = build_engine(source, engine=verdict.engine, device="cpu", batch_size=BATCH)
    vectors = engine.run(images)
    assert vectors.shape[0] == BATCH
    assert torch.isfinite(torch.from_numpy(vectors)).all()
