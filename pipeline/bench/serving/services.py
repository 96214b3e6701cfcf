"""The services of `bench serve`: each is started as a process, asked until it answers, and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from featurecache.base.errors import PipelineError
from featurecache.base.text import printable
from featurecache.bench.serving.client import Found, Job

OURS, FASTAPI, LITSERVE = "featurecache", "FastAPI", "LitServe"
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 60.0, 20.0, 0.05
# The module of a service, and the package that it needs.
OTHERS = {FASTAPI: ("fastapi_service", "fastapi"), LITSERVE: ("litserve_service", "litserve")}


@dataclass(frozen=True)
class Model:
    """What is served. run: a run folder, for ours. graph, head: of one image, and its linear head, for the others."""

    run: Path
    graph: Path
    head: Path


@dataclass
class Service:
    """A service that answers. start_seconds: from its start to its first response."""

    name: str
    port: int
    process: subprocess.Popen[str]
    start_seconds: float = 0.0
    log: list[str] = field(default_factory=list)

    @property
    def form_field(self) -> str:
        """The field of the form that it takes; empty where it takes the bytes."""
        return "" if self.name == OURS else "image"

    def memory_mb(self, what: str = "VmRSS") -> float:
        """Return the memory of its processes in MB, now (VmRSS) or at most so far (VmHWM); 0 without /proc."""
        return sum(_memory_kb(pid, what) for pid in _family(self.process.pid)) / 1e3

    def ask(self, images: Sequence[str], *, n: int, connections: int = 1, rate: float = 0.0) -> Found:
        """Send requests from a client of its own process, and return what came back."""
        job = Job(self.port, list(images), n, connections, self.form_field, rate)
        command = [sys.executable, "-m", "featurecache.bench.serving.client"]
        found = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, text=True)
        if found.returncode:
            raise PipelineError(f"The client of the bench failed: {printable(found.stderr.strip()[-300:])}")
        return Found(**json.loads(found.stdout))


@contextmanager
def serving(name: str, model: Model, image: str, *, more: Sequence[str] = ()) -> Iterator[Service]:
    """Yield a service that has answered a request; more: options of ours. Raises PipelineError if it does not."""
    started = time.perf_counter()
    port = free_port()
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        command_of(name, model, port, more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    service = Service(name, port, process)
    try:
        _wait(service, image, started)
        service.start_seconds = time.perf_counter() - started
        yield service
    finally:
        _stop(process)


def command_of(name: str, model: Model, port: int, more: Sequence[str] = ()) -> list[str]:
    """Return the command that starts a service."""
    if name == OURS:
        words = ["-m", "featurecache", "serve", str(model.run), "--port", str(port), "--quiet", "--no-nearest", *more]
    else:
        module, _ = OTHERS[name]
        words = ["-m", f"featurecache.bench.serving.{module}", str(model.graph), str(model.head), str(port)]
    return [sys.executable, *words]


def free_port() -> int:
    """Return a port that no program listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(service: Service, image: str, started: float) -> None:
    """Ask until a request is answered with a label."""
    import asyncio

    from featurecache.bench.serving.client import Client

    last: dict[str, int] = {}
    while time.perf_counter() - started < START_SECONDS:
        if service.process.poll() is not None:
            errors = service.process.stderr.read() if service.process.stderr else ""
            raise PipelineError(f"{service.name} did not start: {printable(errors.strip()[-300:])}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", service.port), timeout=1).close()
            found = asyncio.run(Client(Job(service.port, [image], 1, 1, service.form_field)).go())
            if found.n_good:
                return
            last = found.statuses
        time.sleep(POLL_SECONDS)
    why = f"; its last response was {next(iter(last))}" if last else ""
    raise PipelineError(f"{service.name} gave no label within {START_SECONDS:.0f} s{why}.")


def _stop(process: subprocess.Popen[Any]) -> None:
    """Stop a service with all of its processes."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


def _family(pid: int) -> list[int]:
    """Return a process and all that it started."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _memory_kb(pid: int, what: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1])
    return 0
