"""ONNX Runtime gives the vectors of torch; which of them runs is decided once; damaged graphs are not trusted."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
import torch._export.utils
from torch import nn

from featurecache.base.errors import EngineError, OutOfMemory
from featurecache.extract.backbones.registry import load_backbone
from featurecache.extract.engines import choice, device_check, export, onnx_engine
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.few_images import OTHER_BITS
from featurecache.extract.engines.fixed_batches import out_of_memory
from featurecache.extract.engines.graph_store import GraphFolder, Verdict
from featurecache.extract.engines.onnx_engine import MAX_LANES, OnnxEngine, count_lanes
from featurecache.extract.engines.protocol import Source, source_of
from featurecache.extract.engines.torch_engine import TorchEngine

SIDE, N_IMAGES = 32, 10


class Small(nn.Module):
    """A network with all that an engine treats in its own way: normalisation, a folded norm, pooling."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.Hardswish()
        self.network = nn.Sequential(*layers).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.float() / 255 - 0.5).mean((2, 3))


def source(module: nn.Module | None = None, name: str = "small") -> Source:
    network = (module or Small()).eval().requires_grad_(False)
    return Source({"backbone": name, "weights": "00"}, SIDE, lambda: network)


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (N_IMAGES, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, exported) -> GraphFolder:
    """A folder with the graph of the small network, for tests of what runs, not of how it is prepared."""
    folder = GraphFolder(tmp_path_factory.mktemp("graphs"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(choice, "export_graph", lambda *_, **__: exported)
        build_engine(source(), engine="onnxruntime", graphs=folder)
    return folder


@pytest.fixture(scope="module")
def exported() -> bytes:
    """The graph of the small network, in the batches that are usual."""
    return export.export_graph(source().load(), batch_size=onnx_engine.BATCH_SIZE, side=SIDE)


@pytest.fixture
def export_done(monkeypatch, exported) -> None:
    """The export of the small network takes no time: it has been done."""
    monkeypatch.setattr(choice, "export_graph", lambda *_, **__: exported)


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max())


# Vectors


def test_the_default_backbone_has_the_vectors_of_torch_whatever_the_batch_size(judged_once):
    backbone = source_of(load_backbone("efficientnet_lite0"))
    images = torch.randint(0, 256, (6, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    theirs = build_engine(backbone, engine="torch", device="cpu").run(images)
    with judged_once():
        ours = build_engine(backbone, engine="onnxruntime").run(images)
    assert ours.dtype == np.float32
    assert relative_error(ours, theirs) < 1e-4
    engine = build_engine(backbone, engine="onnxruntime")
    assert engine.prepare_few() in ("", OTHER_BITS)  # which depends on the processor
    assert np.array_equal(engine.run(images[:2]), ours[:2])
    single = build_engine(backbone, engine="onnxruntime", batch_size=1)
    assert single.batch_size == 1
    assert relative_error(single.run(images), ours) < 1e-6


@pytest.mark.parametrize("n_rows", [1, 3, 4, 7, 10])
def test_vectors_are_the_same_bits_in_groups_of_any_size_and_order(images, n_rows, graphs):
    engine = build_engine(source(), engine="onnxruntime", graphs=graphs)
    whole = engine.run(images)
    assert np.array_equal(np.concatenate([engine.run(part) for part in torch.split(images, n_rows)]), whole)
    assert np.array_equal(engine.run(images.flip(0)), whole[::-1])
    assert engine.run(images[:0]).shape == (0, 16)


def test_lanes_that_run_at_once_do_not_disturb_each_other(images, graphs):
    engine = build_engine(source(), engine="onnxruntime", graphs=graphs)
    whole = engine.run(images)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: engine.run(images), range(40)):
            assert np.array_equal(found, whole)


@pytest.mark.parametrize(("cores", "lanes"), [(1, 1), (2, 2), (16, 16), (64, MAX_LANES)])
def test_every_core_is_a_lane_up_to_a_limit(monkeypatch, cores, lanes):
    monkeypatch.setattr(onnx_engine, "count_cores", lambda: cores)
    assert count_lanes() == lanes


@pytest.mark.parametrize("cores", [2, 24])
def test_lanes_and_the_pool_that_they_share_are_as_many_threads_as_cores(monkeypatch, cores, graphs):
    told = []
    monkeypatch.setattr(onnx_engine, "count_cores", lambda: cores)

    class Noting(onnxruntime.InferenceSession):
        def __init__(self, graph: bytes, options: onnxruntime.SessionOptions, **more: object) -> None:
            told.append(options.intra_op_num_threads)
            super().__init__(graph, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Noting)
    engine = build_engine(source(), engine="onnxruntime", graphs=graphs)
    assert engine.n_lanes + told[-1] - 1 == cores


# The choice


@pytest.mark.usefixtures("export_done")
def test_the_engine_is_chosen_once_and_the_graph_is_enough_ever_after(tmp_path, images):
    said: list[str] = []
    first = build_engine(source(), graphs=GraphFolder(tmp_path), say=said.append)
    assert said == ["Preparing small for this machine, once: exporting its graph and timing it"]

    def never() -> nn.Module:
        pytest.fail("the network was loaded although its graph is at hand")

    again = Source(source().identity, SIDE, never)
    second = build_engine(again, engine="onnxruntime", graphs=GraphFolder(tmp_path), say=said.append)
    assert len(said) == 1
    assert relative_error(second.run(images), first.run(images)) < 1e-6
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".onnx"]


@pytest.mark.usefixtures("export_done")
@pytest.mark.parametrize(
    ("rates", "winner", "reason"),
    [
        ({"onnxruntime": 20.0, "torch": 10.0}, "onnxruntime", "2.0 times as fast as torch here"),
        ({"onnxruntime": 10.0, "torch": 10.9}, "onnxruntime", "as fast as torch here"),
        ({"onnxruntime": 10.0, "torch": 12.0}, "torch", "1.2 times as fast as onnxruntime here"),
    ],
)
def test_the_faster_engine_runs_and_says_by_how_much(tmp_path, monkeypatch, rates, winner, reason):
    monkeypatch.setattr(choice, "_rates", lambda *_: rates)
    for _ in range(2):  # found out, then remembered
        engine = build_engine(source(), device="cpu", graphs=GraphFolder(tmp_path))
        assert (engine.name, engine.reason) == (winner, f"{winner} on cpu in fp32: {reason}")


@pytest.mark.usefixtures("export_done")
def test_rates_are_measured_for_both(images):
    verdict, graph = choice.compare_engines(source(), 4)
    assert set(verdict.rates) == {"onnxruntime", "torch"}
    assert min(verdict.rates.values()) > 0
    assert verdict.error is not None and verdict.error < 1e-5
    assert graph is not None


class Unexportable(Small):
    """A network that decides by its values: no graph says that."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * (2.0 if bool(images.float().mean() > 300) else 1.0)


def test_a_network_that_does_not_export_runs_on_torch_and_says_why(tmp_path, images):
    for _ in range(2):
        engine = build_engine(source(Unexportable()), device="cpu", graphs=GraphFolder(tmp_path))
        assert engine.name == "torch"
        assert engine.reason.startswith("torch on cpu in fp32: it does not export (")
        assert "\n" not in engine.reason
    assert relative_error(engine.run(images), Small().forward(images).detach().numpy()) < 1e-5
    with pytest.raises(
        EngineError, match=r"^small cannot run on onnxruntime: it does not export \(.*\); use --engine auto$"
    ):
        build_engine(source(Unexportable()), engine="onnxruntime", graphs=GraphFolder(tmp_path))


@pytest.mark.usefixtures("export_done")
def test_a_graph_that_gives_other_numbers_is_not_used(tmp_path, monkeypatch):
    run = OnnxEngine.run
    monkeypatch.setattr(OnnxEngine, "run", lambda engine, batch: run(engine, batch) * 1.01)
    engine = build_engine(source(), device="cpu", graphs=GraphFolder(tmp_path))
    assert engine.reason == "torch on cpu in fp32: its ONNX graph is 1.0e-02 away, more than 0.0001"


def running_out_of_memory(engine, batch):
    raise out_of_memory(engine.batch_size)


@pytest.mark.usefixtures("export_done")
@pytest.mark.parametrize(
    ("short", "left", "name"), [(TorchEngine, "onnxruntime", "torch"), (OnnxEngine, "torch", "onnxruntime")]
)
def test_where_one_engine_runs_out_of_memory_the_other_runs(tmp_path, monkeypatch, short, left, name):
    with monkeypatch.context() as patched:
        patched.setattr(short, "run", running_out_of_memory)
        engine = build_engine(source(), device="cpu", graphs=GraphFolder(tmp_path))
    assert (engine.name, engine.reason) == (left, f"{left} on cpu in fp32: {name} needs more memory than there is")
    # Another day there may be more of it.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("export_done")
def test_an_engine_that_runs_out_of_memory_only_while_it_is_timed_is_not_taken_either(monkeypatch):
    run, n_runs = OnnxEngine.run, []

    def once(engine, batch):
        n_runs.append(len(batch))
        return run(engine, batch) if len(n_runs) == 1 else running_out_of_memory(engine, batch)

    monkeypatch.setattr(OnnxEngine, "run", once)
    verdict, _ = choice.compare_engines(source(), None)
    assert (verdict.engine, verdict.reason) == ("torch", "onnxruntime needs more memory than there is")


@pytest.mark.parametrize(("asked", "rows"), [(2, {2}), (None, {4, 16})])
def test_both_engines_are_tried_with_the_batch_size_that_was_asked_for(monkeypatch, exported, asked, rows):
    if asked is None:  # the graph that is there already
        monkeypatch.setattr(choice, "export_graph", lambda *_, **__: exported)
    seen = set()
    for engine in (TorchEngine, OnnxEngine):
        run_whole = engine._run_whole
        monkeypatch.setattr(
            engine, "_run_whole", lambda self, batch, run=run_whole: (seen.add(len(batch)), run(self, batch))[1]
        )
    choice.compare_engines(source(), asked)
    assert seen == rows


@pytest.mark.parametrize("has_list", [True, False])
def test_operators_are_listed_once_in_an_export_and_as_before_after_it(monkeypatch, has_list):
    listed, name = [], "_materialize_cpp_cia_ops"
    monkeypatch.setattr(torch._export.utils, name, lambda: listed.append(None))
    before = getattr(torch._export.utils, name)
    if not has_list:
        monkeypatch.delattr(torch._export.utils, name)

    def exported(*_: object, **__: object) -> SimpleNamespace:
        for _ in range(3):
            getattr(torch._export.utils, name, lambda: None)()
        return SimpleNamespace(model_proto=SimpleNamespace(SerializeToString=lambda: b"graph"))

    monkeypatch.setattr(torch.onnx, "export", exported)
    assert export.export_graph(Small(), batch_size=1, side=SIDE) == b"graph"
    assert listed == [None] * has_list
    assert getattr(torch._export.utils, name, before) is before


def test_weights_beyond_what_onnx_holds_are_not_exported(monkeypatch):
    monkeypatch.setattr(export, "MAX_BYTES", 1000)
    with pytest.raises(EngineError, match=r"^its weights of 0\.0 GB are more than an ONNX file holds$"):
        export.export_graph(Small(), batch_size=1, side=SIDE)


def test_vectors_that_are_not_numbers_are_infinitely_far():
    nan = np.array([[1.0, math.nan]])
    assert device_check.largest_error(nan, np.ones((1, 2))) == math.inf
    assert device_check.largest_error(np.ones((1, 2)), nan) == math.inf
    assert device_check.largest_error(
        np.array([[3.0, 4.0], [0.0, 1.1]]), np.array([[3.0, 4.0], [0.0, 1.0]])
    ) == pytest.approx(0.1)


@pytest.mark.parametrize("arguments", [{"device": "cpu", "precision": "bf16"}, {"device": "cpu", "precision": "fp16"}])
def test_onnxruntime_is_for_the_cpu_in_full_precision(arguments):
    with pytest.raises(
        EngineError, match=r"^The engine onnxruntime runs on the CPU in fp32 and int8, not on cpu in (bf|fp)16\. "
    ):
        build_engine(source(), engine="onnxruntime", **arguments)


def test_want_of_memory_is_one_sentence(images, monkeypatch, graphs):
    engine = build_engine(source(), engine="onnxruntime", graphs=graphs)

    class Full:
        def run(self, *_: object) -> None:
            raise RuntimeError("bfc_arena.cc: Failed to allocate memory for requested buffer of size 99")

    monkeypatch.setattr(engine, "_session", Full())
    with pytest.raises(OutOfMemory, match=r"^A batch of 4 images needs more memory than there is; "):
        engine.run(images)


# What is kept


@pytest.fixture
def kept(tmp_path) -> tuple[GraphFolder, dict[str, object], Verdict, bytes]:
    folder, identity = GraphFolder(tmp_path), {"backbone": "small", "versions": {"torch": "2"}, "cuts": [("a", "b")]}
    verdict, graph = Verdict("onnxruntime", 2, "because", {"torch": 1.0}, 1e-6), b"a graph" * 100
    assert folder.save(identity, verdict, graph)
    return folder, identity, verdict, graph


def test_what_is_kept_is_found_by_its_whole_identity(kept):
    folder, identity, verdict, graph = kept
    assert folder.find(identity) == (verdict, graph)
    assert folder.find({**identity, "versions": {"torch": "3"}}) is None


def test_a_verdict_without_a_graph_is_kept_too(tmp_path):
    folder, verdict = GraphFolder(tmp_path / "new"), Verdict("torch", 1, "does not export", {}, None)
    assert folder.save({"a": 1}, verdict, None)
    assert folder.find({"a": 1}) == (verdict, None)


def graph_file(folder: GraphFolder) -> Path:
    return next(folder.root.glob("graph-*.onnx"))


def described(folder: GraphFolder) -> Path:
    return next(folder.root.glob("engine-*.json"))


@pytest.mark.parametrize(
    "harm", ["flipped", "short", "gone", "foreign", "no json", "not ours", "other identity", "list"]
)
def test_a_damaged_or_foreign_graph_is_not_found(kept, harm):
    folder, identity, _, graph = kept
    document = json.loads(described(folder).read_text())
    if harm == "flipped":
        graph_file(folder).write_bytes(graph[:50] + b"!" + graph[51:])
    elif harm == "short":
        graph_file(folder).write_bytes(graph[:-1])
    elif harm == "gone":
        graph_file(folder).unlink()
    elif harm == "foreign":
        graph_file(folder).write_bytes(b"another graph")
    elif harm == "no json":
        described(folder).write_text("{")
    elif harm == "not ours":
        described(folder).write_text(json.dumps({"format": 1}))
    elif harm == "other identity":
        described(folder).write_text(json.dumps({**document, "identity": {"backbone": "large"}}))
    else:
        described(folder).write_text("[]")
    assert folder.find(identity) is None


@pytest.mark.usefixtures("export_done")
def test_a_damaged_graph_is_exported_again_and_then_sound(tmp_path, images):
    first = build_engine(source(), engine="onnxruntime", graphs=GraphFolder(tmp_path))
    graph_file(GraphFolder(tmp_path)).write_bytes(b"not a graph at all")
    said: list[str] = []
    second = build_engine(source(), engine="onnxruntime", graphs=GraphFolder(tmp_path), say=said.append)
    assert len(said) == 1
    assert relative_error(second.run(images), first.run(images)) < 1e-6
    build_engine(source(), engine="onnxruntime", graphs=GraphFolder(tmp_path), say=said.append)
    assert len(said) == 1


@pytest.mark.usefixtures("export_done")
def test_a_folder_that_cannot_be_written_keeps_nothing_and_hinders_nobody(tmp_path, images):
    (tmp_path / "file").write_text("in the way")
    folder = GraphFolder(tmp_path / "file" / "below")
    assert build_engine(source(), graphs=folder).run(images).shape == (N_IMAGES, 16)
    assert folder.find({"a": 1}) is None


def test_nothing_half_written_is_left(kept):
    folder, *_ = kept
    assert len(list(folder.root.iterdir())) == 2


def test_want_of_memory_while_exporting_is_not_taken_for_a_verdict(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("advice") from MemoryError()

    with monkeypatch.context() as patched:
        patched.setattr(torch.onnx, "export", full)
        engine = build_engine(source(), device="cpu", graphs=GraphFolder(tmp_path))
    assert engine.reason == "torch on cpu in fp32: its export needs more memory than there is"
    assert list(tmp_path.iterdir()) == []
