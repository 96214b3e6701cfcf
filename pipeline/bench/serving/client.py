"""A client of its own process: python -m featurecache.bench.serving.client < job.json > found.json.

It keeps a number of connections busy (closed loop), or sends at a rate whatever the answers take (open loop).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

BOUNDARY = "featurecache-bench"
PATIENCE_SECONDS = 60.0
LOST = "lost"


@dataclass(frozen=True)
class Job:
    """What is sent. images: files, sent in turn. field: of a form; empty for the bytes as the body.

    rate: requests a second of an open loop; 0 for a closed one of `connections`.
    """

    port: int
    images: list[str]
    n: int
    connections: int
    field: str = ""
    rate: float = 0.0


@dataclass(frozen=True)
class Found:
    """What came back: seconds of all, responses by status, and the latencies of those with 200 in ms, by percent."""

    seconds: float
    statuses: dict[str, int]
    ms: dict[str, float]

    @property
    def n_good(self) -> int:
        """Requests that were answered with labels."""
        return self.statuses.get("200", 0)

    @property
    def n_lost(self) -> int:
        """Requests without any response."""
        return self.statuses.get(LOST, 0)


class Exchange(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._status: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that requests may be sent."""
        # uvloop's transports have the methods of asyncio.Transport, and are none.
        self._transport, self.is_open = cast("asyncio.Transport", transport), True

    def connection_lost(self, error: Exception | None) -> None:
        """A request without a response is lost."""
        self.is_open = False
        if self._status is not None and not self._status.done():
            self._status.set_exception(ConnectionError("no response"))

    def data_received(self, data: bytes) -> None:
        """Complete the request when the whole response is here."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[:end]).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(self._data) < end + 4 + length:
            return
        if b"connection: close" in head:
            self.is_open = False
        status, self._status = self._status, None
        self._data.clear()
        if status is not None and not status.done():
            status.set_result(int(head.split(b" ", 2)[1]))

    async def ask(self, request: bytes) -> int:
        """Send a request and return the status of its response. Raises ConnectionError, TimeoutError."""
        if self._transport is None or not self.is_open:
            raise ConnectionError("closed")
        self._status = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._status, PATIENCE_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()


class Client:
    """Sends the requests of a job and counts what comes back."""

    def __init__(self, job: Job) -> None:
        self._job, self._statuses, self._seconds = job, Counter[str](), list[float]()
        self._requests = [request_of(Path(path).read_bytes(), job) for path in job.images]
        self._sent = 0

    async def go(self) -> Found:
        """Send them all."""
        started = time.perf_counter()
        await (self._at_rate() if self._job.rate else self._busy())
        return self._found(time.perf_counter() - started)

    async def _busy(self) -> None:
        async def keep_busy() -> None:
            exchange = await self._connected()
            while self._sent < self._job.n:
                self._sent += 1
                exchange = await self._one(exchange, self._requests[self._sent % len(self._requests)])
            exchange.close()

        await asyncio.gather(*(keep_busy() for _ in range(self._job.connections)))

    async def _at_rate(self) -> None:
        """Send each request when its time has come, on a connection that is free, or on a new one."""
        free: list[Exchange] = []
        started, tasks = time.perf_counter(), []

        async def send(request: bytes) -> None:
            free.append(await self._one(free.pop() if free else await self._connected(), request))

        for number in range(self._job.n):
            await asyncio.sleep(max(0.0, started + number / self._job.rate - time.perf_counter()))
            tasks.append(asyncio.ensure_future(send(self._requests[number % len(self._requests)])))
        await asyncio.gather(*tasks)
        for exchange in free:
            exchange.close()

    async def _connected(self) -> Exchange:
        exchange = Exchange()
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().create_connection(lambda: exchange, "127.0.0.1", self._job.port)
        return exchange

    async def _one(self, exchange: Exchange, request: bytes) -> Exchange:
        """Send a request, count its response, and return a connection for the next one."""
        started = time.perf_counter()
        try:
            status = await exchange.ask(request)
        except (OSError, TimeoutError):
            self._statuses[LOST] += 1
            exchange.close()
            return await self._connected()
        self._statuses[str(status)] += 1
        if status == 200:
            self._seconds.append(time.perf_counter() - started)
        return exchange if exchange.is_open else await self._connected()

    def _found(self, seconds: float) -> Found:
        ordered = sorted(self._seconds)
        ms = {f"p{share}": round(1e3 * percentile(ordered, share), 2) for share in (50, 95, 99)}
        return Found(seconds, dict(self._statuses), ms)


def percentile(ordered: Sequence[float], share: int) -> float:
    """Return the value that `share` percent of ordered values do not exceed; 0 for none."""
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)] if ordered else 0.0


def request_of(data: bytes, job: Job) -> bytes:
    """Return a whole request for the labels of an image."""
    kind = "image/jpeg"
    if job.field:
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{job.field}"; filename="photo.jpg"\r\n'
        head += "Content-Type: image/jpeg\r\n\r\n"
        data = head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def run_loop(work: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
    """Run in the faster loop, where that is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(work())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


if __name__ == "__main__":
    client = Client(Job(**json.load(sys.stdin)))
    json.dump(asdict(run_loop(client.go)), sys.stdout)
