"""The service as an ASGI application: its paths, and what is done for each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.base.progress import LOGGER
from featurecache.base.text import printable
from featurecache.base.versions import installed_version
from featurecache.serve import metrics as counts
from featurecache.serve import openapi
from featurecache.serve.access import Access
from featurecache.serve.batcher import Answer, Batcher, Outcome
from featurecache.serve.bodies import Disconnected, Memory, Receive, Upload, read_uploads
from featurecache.serve.limits import MOST_NEAREST, MOST_TOP, Limits
from featurecache.serve.metrics import Metrics
from featurecache.serve.model import ServedModel
from featurecache.serve.page import page
from featurecache.serve.replies import Refused, Reply, stopping

if TYPE_CHECKING:
    from featurecache.serve.nearest import Neighbours

Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
# Paths that say nothing of the model or of images, which need no token.
OPEN = frozenset({"/", "/health", "/openapi.json"})
THUMBNAILS = "/training/"


@dataclass(frozen=True)
class Request:
    """What a request asks for. query: its parameters. started: when its head was complete."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    receive: Receive
    started: float
    tail: str = ""


Handler = Callable[[Request], Awaitable[Reply]]


class Application:
    """The service.

    neighbours: the training images for `?nearest=`; None where there are none, or as long as they are not loaded.
    n_open: requests that have no response yet. receiving: the tasks of those that are still being sent.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        limits: Limits | None = None,
        access: Access | None = None,
        metrics: Metrics | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.model, self.neighbours = model, neighbours
        self.limits, self.access, self.metrics = limits or Limits(), access or Access(), metrics or Metrics()
        self.batcher = Batcher(model, max_waiting=self.limits.waiting, note=self.metrics.batch)
        self.memory = Memory(self.limits.bytes_in_memory)
        self.is_stopping = False
        self.n_open = 0
        self.receiving: set[asyncio.Task[Any]] = set()
        self.metrics.watch(counts.WAITING, lambda: self.batcher.n_waiting)
        self.metrics.watch(counts.HELD, lambda: self.memory.used)
        self._handlers: dict[str, tuple[str, Handler]] = {
            "/": ("GET", self._page),
            "/health": ("GET", self._health),
            "/metrics": ("GET", self._metrics),
            "/model": ("GET", self._model),
            "/openapi.json": ("GET", self._openapi),
            "/predict": ("POST", self._predict),
            THUMBNAILS: ("GET", self._thumbnail),
        }
        self._page_reply = page()
        self._description = Reply.of(openapi.document(self.limits, has_token=bool(self.access.token)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Every one has a response, but where the client is gone."""
        if scope["type"] != "http":
            return
        self.n_open += 1
        try:
            reply = await self._answered(scope, receive)
        except Disconnected:
            return
        finally:
            self.n_open -= 1
        self.metrics.request(reply.status)
        for message in reply.messages(with_body=scope["method"] != "HEAD"):
            with suppress(OSError):  # the client is gone
                await send(message)

    async def _answered(self, scope: Scope, receive: Receive) -> Reply:
        try:
            if self.is_stopping:
                raise stopping()
            return await self._handled(scope, receive)
        except Refused as refused:
            return refused.reply()
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 (one request is no reason to end the service)
            logging.getLogger(LOGGER).error("A request failed: %s: %s", type(error).__name__, printable(str(error)))
            return Refused(500, "The service failed to answer this request; its log says why.").reply()

    async def _handled(self, scope: Scope, receive: Receive) -> Reply:
        headers = _headers(scope["headers"])
        self.access.check_host(headers)
        path, tail = scope["path"], ""
        if path.startswith(THUMBNAILS):
            path, tail = THUMBNAILS, path.removeprefix(THUMBNAILS)
        if path not in self._handlers:
            raise Refused(404, "There is no such path: /openapi.json lists them.")
        method, handler = self._handlers[path]
        allowed = (method, "HEAD") if method == "GET" else (method,)
        if scope["method"] not in allowed:
            raise Refused(405, f"This path takes {' and '.join(allowed)}.", {"allow": ", ".join(allowed)})
        if path not in OPEN:
            self.access.check_token(headers)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=32))
        return await handler(Request(headers, query, receive, time.monotonic(), tail))

    async def _page(self, _: Request) -> Reply:
        return self._page_reply

    async def _health(self, _: Request) -> Reply:
        return Reply.of({"status": "ok", "version": installed_version("featurecache") or ""})

    async def _openapi(self, _: Request) -> Reply:
        return self._description

    async def _metrics(self, _: Request) -> Reply:
        return Reply(200, self.metrics.text().encode(), counts.KIND)

    async def _model(self, _: Request) -> Reply:
        neighbours = self.neighbours
        return Reply.of(
            {
                "head": self.model.name,
                "classes": list(self.model.classes),
                "nearest": neighbours is not None,
                "thumbnails": neighbours is not None and neighbours.has_thumbnails,
                "limits": {"images": self.limits.images, "image_bytes": self.limits.image_bytes},
            }
        )

    async def _thumbnail(self, request: Request) -> Reply:
        number = request.tail.removesuffix("/thumbnail")
        known = self.neighbours
        if known is None or not request.tail.endswith("/thumbnail") or not _is_number(number):
            raise Refused(404, "There is no such training image.")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, known.thumbnail, int(number))
        if found is None:
            raise Refused(404, "There is no picture of this training image.")
        return Reply(200, found, "image/jpeg", {"cache-control": "private, max-age=3600"})

    async def _predict(self, request: Request) -> Reply:
        """Label the images of a request."""
        top = _count(request.query, "top", MOST_TOP, MOST_TOP)
        n_nearest = _count(request.query, "nearest", MOST_NEAREST, 0)
        self.batcher.check_room()
        deadline = request.started + self.limits.seconds
        with self.memory.account() as take:
            uploads = await self._received(request, take, deadline)
            outcomes = await self.batcher.submit([each.data for each in uploads], deadline)
        nearest = await self._nearest(outcomes, n_nearest)
        reply = self._reply(uploads, outcomes, top, nearest)
        self.metrics.predicted(time.monotonic() - request.started)
        return reply

    async def _received(self, request: Request, take: Callable[[int], None], deadline: float) -> list[Upload]:
        """Return the images of a request; refuse it where it is still being sent when the service ends."""
        task = asyncio.current_task()
        assert task is not None
        self.receiving.add(task)
        try:
            seconds = deadline - time.monotonic()
            return await read_uploads(request.headers, request.receive, self.limits, take, seconds=seconds)
        except asyncio.CancelledError:
            if not self.is_stopping:
                raise
            task.uncancel()
            raise stopping() from None
        finally:
            self.receiving.discard(task)

    async def _nearest(self, outcomes: Sequence[Outcome], n: int) -> list[list[dict[str, Any]]]:
        """Return the n nearest training images of every image that has features."""
        known = self.neighbours
        if not n or known is None:
            return [[] for _ in outcomes]
        vectors = [each.features if isinstance(each, Answer) else None for each in outcomes]
        return await asyncio.get_running_loop().run_in_executor(
            None, lambda: [[] if vector is None else known.nearest(vector, n) for vector in vectors]
        )

    def _reply(
        self, uploads: Sequence[Upload], outcomes: Sequence[Outcome], top: int, nearest: Sequence[list[dict[str, Any]]]
    ) -> Reply:
        """The labels of images; 422 where none is an image, in a body of its own or in a form."""
        images, refused = [], []
        for upload, outcome, near in zip(uploads, outcomes, nearest, strict=True):
            if isinstance(outcome, ImageRefused):
                refused.append({"name": upload.name, "reason": str(outcome)})
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                images.append({"name": upload.name, **self._label(outcome, top), "nearest": near})
        self.metrics.add(counts.ANSWERED, len(images))
        self.metrics.add(counts.REFUSED, len(refused))
        if not images:
            reasons = {each["reason"] for each in refused}
            error = f"This is no image that can be read: {'; '.join(sorted(reasons))}."
            return Reply.of({"error": error, "refused": refused}, 422)
        return Reply.of({"head": self.model.name, "images": images, "refused": refused})

    def _label(self, answer: Answer, top: int) -> dict[str, Any]:
        classes, proba = self.model.classes, answer.proba
        order: Sequence[int] = range(len(classes))
        if top < len(classes):
            order = np.argsort(-proba, kind="stable")[:top].tolist()
        return {
            "label": classes[answer.code],
            "probability": float(proba[answer.code]),
            "probabilities": {classes[code]: float(proba[code]) for code in order},
        }


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name in lower case. Raises Refused for two hosts or lengths."""
    found: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "content-length", "content-type", "authorization", "origin"):
            raise Refused(400, f"The request has two headers of the name {key}.", {"connection": "close"})
        found[key] = value.decode("latin-1").strip()
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 12


def _count(query: Mapping[str, str], name: str, most: int, usual: int) -> int:
    """Return a number in the query, up to `most`. Raises Refused for anything else."""
    if name not in query:
        return usual
    if not _is_number(query[name]) or int(query[name]) > most:
        raise Refused(422, f"'{name}' is a whole number from 0 to {most}.")
    return int(query[name])
