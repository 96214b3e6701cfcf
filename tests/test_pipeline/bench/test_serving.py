"""`bench serve`: its client counts every request, and its table says what was measured."""

from __future__ import annotations

import asyncio
from threading import Thread

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")
from serving import FakeModel

from featurecache.bench.serve import Comparison, Measured, text_of
from featurecache.bench.serving.client import Client, Found, Job, percentile
from featurecache.bench.serving.overload import Overload
from featurecache.serve.application import Application
from featurecache.serve.connections import Server, listen


@pytest.fixture(scope="module")
def port():
    app = Application(FakeModel())
    app.batcher.start()
    listener = listen("127.0.0.1", 0)
    number = listener.getsockname()[1]
    server = Server(app, signals=())
    thread = Thread(target=server.run, args=([listener],))
    thread.start()
    yield number
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def images(tmp_path):
    for name, content in (("a", b"\x01 cat"), ("b", b"bad"), ("c", b"\xf0 dog")):
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in "abc"]


@pytest.mark.parametrize("field", ["", "image"])
@pytest.mark.parametrize("rate", [0.0, 1000.0])
def test_every_request_is_counted_by_its_status(port, images, field, rate):
    found = asyncio.run(Client(Job(port, images, 30, 4, field, rate)).go())
    assert found.statuses == {"200": 20, "422": 10}
    assert (found.n_good, found.n_lost) == (20, 0)
    assert 0 < found.ms["p50"] <= found.ms["p95"] <= found.ms["p99"]


def test_requests_without_a_response_are_lost(images):
    with listen("127.0.0.1", 0) as closed:
        port = closed.getsockname()[1]
    found = asyncio.run(Client(Job(port, images, 5, 2)).go())
    assert found.statuses == {"lost": 5}


def test_a_percentile_is_a_value_that_was_measured():
    ordered = [float(i) for i in range(1, 101)]
    assert [percentile(ordered, share) for share in (50, 95, 99)] == [50.0, 95.0, 99.0]
    assert percentile([3.0], 99) == 3.0
    assert percentile([], 50) == 0.0


def test_the_table_has_every_service_the_share_and_the_overload():
    ms = {"p50": 10.0, "p95": 20.0, "p99": 30.0}
    measured = [
        Measured(service, count, 100, rate, ms, {"200": 100}, 0, 250.0, 1.0)
        for count in (1, 64)
        for service, rate in (("featurecache", 90.0), ("FastAPI", 45.0))
    ]
    beyond = Overload(180.0, Found(20.0, {"200": 1800, "429": 1800}, ms), (200.0, 210.0, 211.0))
    text = text_of(Comparison(measured, [99.0, 101.0], beyond, ["LitServe is not measured: pip install litserve."]))
    assert "share of featurecache with most connections: 0.90" in text
    assert "1,800 with 200, 1,800 with 429; 0 lost; p99 30 ms; memory 200 MB before, 210 at the beginning, 211" in text
    assert text.endswith("LitServe is not measured: pip install litserve.")
    assert text.count("FastAPI") == 2
