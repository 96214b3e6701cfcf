"""Waiting images, and the lanes that answer them.

A lane is a thread, as in an extraction: it takes what waits, up to a batch, decodes it and runs the network on it.
There is no timer: a lone image is answered at once, and under load batches are full because images wait meanwhile.
Lanes that are free share what waits. Where the network has fewer lanes than there are cores, as on a GPU, threads of
their own decode, and more batches are decoded than the network runs at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition, Semaphore, Thread
from typing import Any, NamedTuple

from featurecache.base.errors import ImageRefused
from featurecache.serve.limits import LEAST_RETRY_SECONDS
from featurecache.serve.model import ServedModel
from featurecache.serve.replies import Refused, busy, stopping

# The part of the last batch in the mean of the seconds of an image.
SHARE_OF_LAST = 0.1
# Batches that are decoded by threads of their own while the network runs others.
MORE_OPEN = 2


class Answer(NamedTuple):
    """Of one image: the code of its label, the probabilities (C,), and the features (D,) if there are."""

    code: int
    proba: Any
    features: Any


# The result of an image: its answer, why it was refused, or the error that ended its batch.
Outcome = Answer | ImageRefused | Exception


@dataclass(eq=False)
class Asked:
    """One request: its images, when it is too late for an answer, and the future of its outcomes."""

    images: Sequence[bytes]
    deadline: float
    future: asyncio.Future[list[Outcome]]
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def settle(self, number: int, outcome: Outcome) -> None:
        """Note the outcome of an image; the last one completes the request."""
        self.outcomes[number] = outcome
        if len(self.outcomes) == len(self.images) and not self.future.done():
            self.future.set_result([self.outcomes[i] for i in range(len(self.images))])


class Job(NamedTuple):
    """An image that waits."""

    asked: Asked
    number: int


class Batcher:
    """Answers images in batches.

    max_waiting: images that may wait. note: called in the event loop with the number of images of a batch and its
    seconds. `submit`, `refuse_waiting` and `stop` are for the thread of the event loop.
    """

    def __init__(
        self, model: ServedModel, *, max_waiting: int, note: Callable[[int, float], None] = lambda _n, _s: None
    ) -> None:
        self._model, self._max_waiting, self._note = model, max_waiting, note
        self._waiting: deque[Job] = deque()
        self._changed = Condition()
        self._n_free = 0
        self._is_stopped = False
        self._seconds_each = 0.0
        self._decoders = ThreadPoolExecutor(model.n_decoders, "decode") if model.n_decoders else None
        self._runs = Semaphore(model.n_lanes)
        n_threads = model.n_lanes + (MORE_OPEN if model.n_decoders else 0)
        self._threads = [Thread(target=self._lane, daemon=True, name=f"lane {i}") for i in range(n_threads)]

    @property
    def n_waiting(self) -> int:
        """Images that wait for a lane."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the lanes."""
        for thread in self._threads:
            thread.start()

    def check_room(self, n: int = 1) -> None:
        """Raise Refused where there is no room for n images."""
        if len(self._waiting) + n > self._max_waiting:
            raise busy(max(LEAST_RETRY_SECONDS, round(len(self._waiting) * self._seconds_each)))

    def submit(self, images: Sequence[bytes], deadline: float) -> asyncio.Future[list[Outcome]]:
        """Let images wait, and return the future of their outcomes; deadline: by time.monotonic().

        Raises Refused where too many wait, or the service is being stopped.
        """
        asked = Asked(images, deadline, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._is_stopped:
                raise stopping()
            self.check_room(len(images))
            self._waiting.extend(Job(asked, number) for number in range(len(images)))
            self._changed.notify(len(images))
        return asked.future

    def refuse_waiting(self) -> None:
        """Refuse all images that no lane has taken."""
        with self._changed:
            jobs = list(self._waiting)
            self._waiting.clear()
        for job in jobs:
            if not job.asked.future.done():
                job.asked.future.set_exception(stopping())

    def stop(self) -> None:
        """End the lanes after their batches; what waits is refused."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self.refuse_waiting()

    def join(self) -> None:
        """Wait for the lanes to end."""
        for thread in self._threads:
            thread.join()

    def _take(self) -> list[Job]:
        """Wait for images and return a share of them: with several free lanes each takes a part; none at the end."""
        with self._changed:
            self._n_free += 1
            while not self._waiting and not self._is_stopped:
                self._changed.wait()
            share = -(-len(self._waiting) // self._n_free)
            jobs = [self._waiting.popleft() for _ in range(min(share, self._model.batch_size))]
            self._n_free -= 1
            return jobs

    def _lane(self) -> None:
        while jobs := self._take():
            started = time.monotonic()
            timely = [job for job in jobs if job.asked.deadline > started and not job.asked.future.cancelled()]
            outcomes = self._outcomes([job.asked.images[job.number] for job in timely])
            seconds = time.monotonic() - started
            if timely:
                each = seconds / len(timely) / len(self._threads)
                self._seconds_each += SHARE_OF_LAST * (each - self._seconds_each)
            late = [(job, _too_late()) for job in jobs if job not in timely]
            self._deliver([*zip(timely, outcomes, strict=True), *late], seconds)

    def _outcomes(self, images: Sequence[bytes]) -> list[Outcome]:
        """Decode images and run the network on those that can be decoded."""
        decoded = self._decoded(images)
        errors = {i: each for i, each in enumerate(decoded) if isinstance(each, Exception)}
        whole = [i for i in range(len(images)) if i not in errors]
        answers: list[Answer] = []
        while whole and not answers:
            try:
                answers = self._answers([decoded[i] for i in whole])
            except ImageRefused as error:  # the features of one are not finite
                errors[whole.pop(getattr(error, "row", 0))] = error
            except Exception as error:  # noqa: BLE001 (one batch is no reason to end a lane)
                errors |= dict.fromkeys(whole, error)
                break
        found: dict[int, Outcome] = {**errors, **dict(zip(whole, answers, strict=False))}
        return [found[i] for i in range(len(images))]

    def _decoded(self, images: Sequence[bytes]) -> list[Any]:
        """Return the pixels of each image, or why there are none; threads of their own decode a part each."""
        if self._decoders is None:
            return self._decoded_part(images)
        size = -(-len(images) // self._model.n_decoders)
        parts = [images[start : start + size] for start in range(0, len(images), max(1, size))]
        return [each for part in self._decoders.map(self._decoded_part, parts) for each in part]

    def _decoded_part(self, images: Sequence[bytes]) -> list[Any]:
        try:
            return list(self._model.prepared(images))
        except Exception as error:  # noqa: BLE001 (one batch is no reason to end a lane)
            return [error] * len(images)

    def _answers(self, prepared: Sequence[Any]) -> list[Answer]:
        with self._runs:
            codes, proba, features = self._model.answers(prepared)
        rows = [None] * len(prepared) if features is None else features
        return [Answer(int(code), row, vector) for code, row, vector in zip(codes, proba, rows, strict=True)]

    def _deliver(self, outcomes: Sequence[tuple[Job, Outcome]], seconds: float) -> None:
        """Settle the jobs of a batch in the thread of the event loop."""

        def settle() -> None:
            self._note(len(outcomes), seconds)
            for job, outcome in outcomes:
                job.asked.settle(job.number, outcome)

        try:
            outcomes[0][0].asked.future.get_loop().call_soon_threadsafe(settle)
        except RuntimeError:  # the loop is closed: nobody waits
            return


def _too_late() -> Refused:
    return Refused(503, "The answer was not ready in time: try again, or with fewer images.", {"retry-after": "1"})
