"""HTTP by uvicorn, with what it leaves open: slow and endless heads of requests, and an end in which none is lost.

A request whose head does not arrive in time is refused with 408, one whose head is too long with 431. When the service
is stopped, requests that it has are answered, those that wait for longer than a moment and all that come meanwhile are
refused with 503, and only then does it stop listening.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from featurecache.serve.application import Application

if TYPE_CHECKING:
    from asyncio import Transport

HEAD_SECONDS, MOST_HEAD_BYTES = 10.0, 64 << 10
# What is sent after a request was refused before its body: the client reads the refusal when it has sent this.
MOST_DISCARDED = 256 << 20
# A connection that is idle when the service is stopped may have a request on its way.
LINGER_SECONDS = 0.2
# Images that wait when the service is stopped are answered for so long, and batches that run for longer.
ANSWER_SECONDS, END_SECONDS = 1.0, 10.0
POLL_SECONDS = 0.01
KEEP_ALIVE_SECONDS = 30
MOST_CONNECTIONS = 1000
SECOND_SIGNAL_SECONDS = 0.5


class Guarded:
    """The part of a connection that waits for the head of a request; a mixin of uvicorn's protocols."""

    transport: Transport
    cycle: Any
    loop: asyncio.AbstractEventLoop
    _n_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)  # type: ignore[misc]
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        """End the waiting."""
        self._rest()
        super().connection_lost(error)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        """Pass data on; refuse a head that is too long."""
        before = self.cycle
        is_head = before is None or before.response_complete
        if is_head:
            self._n_bytes += len(data)
            self._wait()
        super().data_received(data)  # type: ignore[misc]
        if self.cycle is not before:
            self._rest()
        elif is_head and self._n_bytes > (MOST_DISCARDED if self._may_be_body() else MOST_HEAD_BYTES):
            self._refuse(431, "The head of the request is too long.")

    def shutdown(self) -> None:
        """Close after the response, or, where no request is here, after a moment in which one may come."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_SECONDS, self._close_if_idle)
        else:
            super().shutdown()  # type: ignore[misc]

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _may_be_body(self) -> bool:
        """Whether what comes may be the rest of a body whose request is refused already."""
        return self.cycle is not None and bool(self.cycle.more_body)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def _rest(self) -> None:
        self._n_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(408, f"The head of the request did not arrive within {HEAD_SECONDS:g} s.")

    def _refuse(self, status: int, reason: str) -> None:
        """Answer a request that has no whole head, unless nothing of one has come, and close the connection."""
        if self.transport.is_closing():
            return
        if self._n_bytes and not self._may_be_body():
            body = json.dumps({"error": reason}).encode()
            head = f"HTTP/1.1 {status} {'Request Timeout' if status == 408 else 'Request Header Fields Too Large'}\r\n"
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()


CONNECTION: type[asyncio.Protocol] = type("Connection", (Guarded, AutoHTTPProtocol), {})


class Server(uvicorn.Server):
    """The service on sockets, until a signal."""

    def __init__(self, application: Application, *, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM)) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=CONNECTION,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self.stopped_by: int | None = None
        self._application, self._signals, self._stopped_at = application, signals, 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal; at a second one, refuse what is not answered."""
        now = time.monotonic()
        if self.stopped_by is None:
            self.stopped_by, self._stopped_at = sig, now
        elif now - self._stopped_at > SECOND_SIGNAL_SECONDS:
            self.force_exit = True
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the block runs."""
        before = {number: signal.signal(number, self.handle_exit) for number in self._signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def on_tick(self, counter: int) -> bool:
        """Write the gauges, for the other processes, once a second."""
        if counter % 10 == 0:
            self._application.metrics.refresh()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer or refuse every request, then close the sockets."""
        app, loop = self._application, asyncio.get_running_loop()
        started = loop.time()
        app.is_stopping = True
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._until(started + LINGER_SECONDS, at_least=True)
        await self._until(started + ANSWER_SECONDS)
        app.batcher.stop()
        await self._until(started + ANSWER_SECONDS)
        for task in app.receiving:
            task.cancel()
        await self._until(started + END_SECONDS)
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await asyncio.sleep(POLL_SECONDS)

    async def _until(self, deadline: float, *, at_least: bool = False) -> None:
        """Wait until no request is open, or the deadline; at_least: until the deadline in any case."""
        loop = asyncio.get_running_loop()
        while (at_least or self._application.n_open) and loop.time() < deadline and not self.force_exit:
            await asyncio.sleep(POLL_SECONDS)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart does not wait for old connections
        found.bind(address)
        found.listen(2048)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found


def address_of(listener: socket.socket) -> str:
    """Return the address of a listening socket, for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"
