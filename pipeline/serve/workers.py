"""One process that serves, or several that listen on one socket, each with its share of the cores."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from featurecache.base.errors import FeatureCacheError, PipelineError
from featurecache.base.exits import FAILED
from featurecache.base.progress import LOGGER
from featurecache.serve.application import Application
from featurecache.serve.connections import Server
from featurecache.serve.metrics import NAMES, Metrics

STOP_SECONDS = 15.0

# Builds the application of a process, with its counts; may be pickled.
Build = Callable[[Metrics], Application]


@dataclass(frozen=True)
class Failed:
    """Why a process could not begin: the message of the error, and its exit code."""

    message: str
    exit_code: int


def serve_here(build: Build, listener: socket.socket, ready: Callable[[], None]) -> int:
    """Serve in this process until a signal, and return its number. ready: called when requests are answered."""
    return _serve(build(Metrics()), listener, ready, (signal.SIGINT, signal.SIGTERM))


def _serve(application: Application, listener: socket.socket, ready: Callable[[], None], signals: Sequence[int]) -> int:
    application.batcher.start()
    server = Server(application, signals=signals)
    parent = multiprocessing.parent_process()
    if parent is not None:  # nobody is left to stop this process
        Thread(target=_stop_after, args=(parent, server), daemon=True).start()
    ready()
    server.run([listener])
    application.batcher.join()
    return server.stopped_by or signal.SIGTERM


def _stop_after(parent: BaseProcess, server: Server) -> None:
    """Stop a service when the process that started it has ended."""
    parent.join()
    server.handle_exit(signal.SIGTERM, None)


def _work(build: Build, listener: socket.socket, rows: Any, number: int, pipe: Connection, cores: set[int]) -> None:
    """Serve in a process of several: only the first process gets the signals of the terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        application = build(Metrics(rows, number))
    except FeatureCacheError as error:
        pipe.send(Failed(str(error), error.exit_code))
        return
    _serve(application, listener, lambda: pipe.send(None), (signal.SIGTERM,))


class Workers:
    """Several processes on one socket; one that ends is started again."""

    def __init__(self, build: Build, listener: socket.socket, n: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._build, self._listener, self._n = build, listener, n
        self._rows = self._context.RawArray("d", n * len(NAMES))
        self._processes: list[BaseProcess] = []
        self._stopped_by = 0

    def serve(self, ready: Callable[[], None]) -> int:
        """Serve until a signal, and return its number. Raises PipelineError where a process cannot begin."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._begin()
            ready()
            while not self._stopped_by:
                self._watch()
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._stopped_by

    def _stop(self, number: int, _: object) -> None:
        self._stopped_by = number

    def _begin(self) -> None:
        """Start all processes: the first alone, for it may have to export the graph of the network for all."""
        for numbers in (range(1), range(1, self._n)):
            begun = [self._begun(number) for number in numbers]
            self._processes += [process for process, _ in begun]
            for process, pipe in begun:
                check_began(process, pipe)

    def _begun(self, number: int) -> tuple[BaseProcess, Connection]:
        """Start a process, and return it with the pipe on which it says that it is ready."""
        ours, theirs = self._context.Pipe(duplex=False)
        args = (self._build, self._listener, self._rows, number, theirs, share_of_cores(number, self._n))
        process = self._context.Process(target=_work, args=args, name=f"serve {number}")
        process.start()
        theirs.close()
        return process, ours

    def _watch(self) -> None:
        """Wait a moment for the end of a process, and start it again."""
        ended = wait([process.sentinel for process in self._processes], timeout=0.2)
        for number, process in enumerate(self._processes):
            if process.sentinel in ended and not self._stopped_by:
                process.join()
                logging.getLogger(LOGGER).warning(
                    "Process %d of the service ended with %s, and is started again.", number, process.exitcode
                )
                Metrics(self._rows, number).forget()
                self._processes[number], pipe = self._begun(number)
                check_began(self._processes[number], pipe)

    def _end(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(STOP_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._listener.close()


def check_began(process: BaseProcess, pipe: Connection) -> None:
    """Wait until a process is ready. Raises CannotBegin."""
    try:
        failed = pipe.recv()
    except EOFError:
        process.join()
        failed = Failed(f"A process of the service ended as it began, with {process.exitcode}.", FAILED)
    if failed is not None:
        raise CannotBegin(failed)


class CannotBegin(PipelineError):
    """A process of the service that could not begin."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.exit_code = failed.exit_code  # type: ignore[misc]


def share_of_cores(number: int, n: int) -> set[int]:
    """Return the cores of process `number` of n; empty where they cannot be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[number % len(cores) :: n]) or {cores[number % len(cores)]}
