"""For tests of the service: a model that answers from the bytes of an image, and requests without a network."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from threading import Event

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.serve.model import Answers

HOST = (b"host", b"127.0.0.1:8000")


@dataclass
class FakeModel:
    """Labels an image "cat" or "dog" by its first byte; `go` holds its batches back, `sizes` are those of all."""

    classes: list[str] = field(default_factory=lambda: ["cat", "dog"])
    batch_size: int = 4
    n_lanes: int = 1
    n_decoders: int = 0
    name: str = "logistic on pixels"
    go: Event = field(default_factory=Event)
    began: Event = field(default_factory=Event)
    sizes: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.go.set()

    def prepared(self, images):
        return [self._prepared(data) for data in images]

    def _prepared(self, data):
        if data.startswith(b"bad"):
            return ImageRefused("no image format that can be read")
        if data.startswith(b"crash"):
            raise MemoryError("no memory")
        return np.full(3, data[0], np.uint8)

    def answers(self, batch):
        self.began.set()
        assert self.go.wait(20)
        self.sizes.append(len(batch))
        p = np.array([each[0] for each in batch]) / 256 + 1 / 3000
        proba = np.stack([1 - p, p], axis=1)
        return Answers(proba.argmax(axis=1), proba, np.stack(batch).astype(np.float32))


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


async def respond(app, method, path, body=b"", headers=(), *, pieces=None):
    """The response of an application to a request; pieces: the body in parts, None for one that never comes."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [HOST, *headers] if not any(name == b"host" for name, _ in headers) else list(headers),
    }
    parts = [body] if pieces is None else list(pieces)
    sent = []

    async def receive():
        if parts and parts[0] is None:
            await asyncio.Event().wait()
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return None
    start, end = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return Response(start["status"], found, end["body"])


def form(*files, boundary="xyz"):
    """The body of a form with files, (name, data) each, and its Content-Type."""
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode() + data
        for name, data in files
    ]
    return b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"
