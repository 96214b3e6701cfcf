"""The service on a socket: slow and endless requests end in time, and no request is lost when it stops."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from threading import Thread

import pytest
from serving import FakeModel

from featurecache.serve import connections
from featurecache.serve.application import Application
from featurecache.serve.connections import Server, listen
from featurecache.serve.limits import Limits

CAT = b"\x01 an image"


OPEN = []


def post(body=CAT, *, path="/predict", length=None, extra=""):
    n = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n}\r\n{extra}\r\n".encode() + body


class Client:
    """A connection that sends bytes and reads whole responses."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.socket.makefile("rb")
        OPEN.append(self)

    def send(self, data):
        self.socket.sendall(data)
        return self

    def read(self):
        """Status, headers and body of a response; None at the end of the connection."""
        line = self.file.readline()
        if not line:
            return None
        headers = {}
        while (header := self.file.readline().strip()) != b"":
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        return int(line.split()[1]), headers, self.file.read(int(headers["content-length"]))

    def status(self):
        found = self.read()
        return found and found[0]


@contextmanager
def serving(app):
    """Yield the server in a thread, and its port."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    app.batcher.start()
    server = Server(app, signals=())
    thread = Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield server, port
    finally:
        app.model.go.set()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nothing is waited for longer than a test needs."""
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.05)
    yield
    while OPEN:
        client = OPEN.pop()
        client.file.close()
        client.socket.close()


@pytest.fixture
def served():
    with serving(Application(FakeModel(), limits=Limits(image_bytes=100_000, request_bytes=400_000))) as (_, port):
        yield port


def test_requests_of_one_connection_are_answered_in_order_also_when_sent_at_once(served):
    client = Client(served).send(post() + post(b"\xf0") + post(b"bad"))
    found = [client.read() for _ in range(3)]
    assert [status for status, _, _ in found] == [200, 200, 422]
    assert [json.loads(body)["images"][0]["label"] for _, _, body in found[:2]] == ["cat", "dog"]
    assert "date" in found[0][1]


def test_a_body_that_is_too_large_is_refused_before_it_is_sent_and_the_connection_goes_on(served):
    client = Client(served).send(post(b"", length=300_000))
    assert client.status() == 413
    client.send(b"x" * 300_000 + post())
    assert client.status() == 200


def test_a_chunked_body_is_taken_and_one_without_an_end_in_bytes_is_refused(served):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert Client(served).send(head + b"2\r\n\x01a\r\n0\r\n\r\n").status() == 200
    piece = b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"
    assert Client(served).send(head + piece * 2).status() == 413


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_refused(served, garbage):
    client = Client(served).send(garbage)
    assert client.status() == 400
    assert client.read() is None


def test_a_request_without_a_host_is_refused(served):
    assert Client(served).send(b"GET /health HTTP/1.1\r\n\r\n").status() == 400


def test_a_head_that_does_not_end_is_refused_in_time(served, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    client = Client(served).send(b"POST /predict HTTP/1.1\r\nHost: loc")
    status, headers, body = client.read()
    assert (status, headers["connection"]) == (408, "close")
    assert "did not arrive within" in json.loads(body)["error"]
    assert client.read() is None
    assert Client(served).read() is None  # nothing is sent: closed without a word
    again = Client(served).send(post())
    assert again.status() == 200
    again.send(b"GET / ")
    assert again.status() == 408


def test_a_head_that_is_too_long_is_refused(served):
    client = Client(served).send(b"GET / HTTP/1.1\r\n" + 9 * (b"X-More: " + b"x" * 8000 + b"\r\n"))
    assert client.status() == 431
    assert client.read() is None
    assert Client(served).send(post()).status() == 200


def test_a_slow_body_is_refused_in_time():
    app = Application(FakeModel(), limits=Limits(seconds=0.05))
    with serving(app) as (_, port):
        client = Client(port).send(post(b"half", length=100))
        status, headers, _ = client.read()
        assert (status, headers["connection"]) == (408, "close")
        assert client.read() is None


def test_when_the_service_stops_what_it_has_is_answered_and_what_comes_is_refused():
    model = FakeModel()
    app = Application(model)
    model.go.clear()
    with serving(app) as (server, port):
        asked = [Client(port).send(post()) for _ in range(8)]
        assert model.began.wait(20)
        idle = Client(port).send(post(b"bad", path="/nothing"))
        assert idle.status() == 404
        while app.n_open < 8:
            pass
        server.should_exit = True
        while not app.is_stopping:
            pass
        late = Client(port).send(post())
        status, headers, _ = late.read()
        assert (status, headers["connection"]) == (503, "close")
        assert late.read() is None
        model.go.set()
        found = [client.read() for client in asked]
        assert [status for status, _, _ in found] == [200] * 8
        assert {headers["connection"] for _, headers, _ in found} == {"close"}
        assert idle.read() is None
    with pytest.raises(ConnectionRefusedError):
        Client(port)


def test_when_the_service_stops_what_waits_for_long_is_refused(monkeypatch):
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.1)
    model = FakeModel(batch_size=1)
    app = Application(model)
    model.go.clear()
    with serving(app) as (server, port):
        first = Client(port).send(post())
        assert model.began.wait(20)
        waiting, half = Client(port).send(post()), Client(port).send(post(b"half", length=100))
        while app.n_open < 3:
            pass
        server.should_exit = True
        assert waiting.status() == 503
        assert half.status() == 503
        model.go.set()
        assert first.status() == 200


def test_a_port_that_is_taken_is_an_error_and_one_that_was_used_is_free_at_once(served):
    with pytest.raises(OSError):
        listen("127.0.0.1", served)
