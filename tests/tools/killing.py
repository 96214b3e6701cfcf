"""Processes that end themselves by SIGKILL, just before or after a chosen call of a function that the code names.

A kill point is written as "module:name" and looked up when it is made, so that a name that the code has lost fails at
once. How often each is called is counted in a run that nobody disturbs, and one that is never called fails as well.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ANY_TIME = "any time"


@dataclass(frozen=True)
class Point:
    """A function as the code calls it: `owner` is the module or class whose attribute `name` it is."""

    owner: Any
    name: str

    @classmethod
    def of(cls, text: str) -> Point:
        """Return the point "module:name" or "module:Class.name". Raises AttributeError where there is none."""
        module, _, path = text.partition(":")
        *outer, name = path.split(".")
        owner: Any = import_module(module)
        for each in outer:
            owner = getattr(owner, each)
        getattr(owner, name)
        return cls(owner, name)

    def replace(self, before: Callable[[int], None], after: Callable[[int], None]) -> None:
        """In this process: call `before` and `after` with the number of the call, 1 for the first, at every call."""
        original, numbers = getattr(self.owner, self.name), itertools.count(1)

        def watched(*args: Any, **kwargs: Any) -> Any:
            number = next(numbers)
            before(number)
            result = original(*args, **kwargs)
            after(number)
            return result

        setattr(self.owner, self.name, watched)


@dataclass(frozen=True)
class Kill:
    """One kill: at a call of a point, or at any time where `point` is ANY_TIME."""

    point: str
    number: int = 0
    after: bool = False

    def __str__(self) -> str:
        return self.point if self.point == ANY_TIME else f"{self.point}, {'after' if self.after else 'before'}"


class KillPoints:
    """The points of a torture by their names, and how often an undisturbed run calls each."""

    def __init__(self, **points: str) -> None:
        self.points = {name.replace("_", " "): Point.of(text) for name, text in points.items()}
        self.calls: dict[str, int] = {}

    def counting(self, work: Callable[[], None], counted: Path) -> None:
        """In this process: do the work and write down how often it calls each point, and what it has imported."""
        calls: Counter[str] = Counter()
        for name, point in self.points.items():
            point.replace(lambda _, name=name: calls.update([name]), lambda _: None)
        work()
        counted.write_text(json.dumps({"calls": calls, "modules": [*sys.modules]}))

    def read_calls(self, counted: Path) -> None:
        """Take in what `counting` wrote, and import the same, so that no forked process has to.

        Raises AssertionError for a point that was never reached.
        """
        found = json.loads(counted.read_text())
        for name in found["modules"]:
            with contextlib.suppress(ImportError):  # some modules only ever come with another
                import_module(name)
        self.calls = found["calls"]
        missed = [name for name in self.points if not self.calls.get(name)]
        assert not missed, f"never reached: {', '.join(missed)}"

    def draw(self, rng: random.Random) -> Iterator[Kill]:
        """Yield kills without end: in turn one at any time and one at each point, so that all are drawn alike."""
        while True:
            names = rng.sample(sorted(self.points), len(self.points))
            for name in names:
                yield Kill(ANY_TIME)
                yield Kill(name, rng.randint(1, self.calls[name]), rng.random() < 0.5)

    def arm(self, kill: Kill) -> None:
        """In this process: let it end by SIGKILL where the kill says; nothing for one at any time."""
        if kill.point == ANY_TIME:
            return

        def end(number: int) -> None:
            if number == kill.number:
                os.kill(os.getpid(), signal.SIGKILL)

        early, late = (lambda _: None, end) if kill.after else (end, lambda _: None)
        self.points[kill.point].replace(early, late)

    def check_drawn(self, where: Counter[str]) -> None:
        """Raise AssertionError where a point was never killed at."""
        drawn = {text.split(",")[0] for text in where}
        missed = [name for name in self.points if name not in drawn]
        assert not missed, f"never killed at: {', '.join(missed)}"


def in_a_process(work: Callable[[], None]) -> int:
    """Run `work` in a forked process and return its pid. Nothing here has started a thread before."""
    gc.freeze()  # what is there stays, and a search in it would copy its memory for the new process
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the tables of commands
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001  (a child must end here, whatever happened)
        import traceback

        traceback.print_exc()
        os._exit(1)


def wait_for(work: Callable[[], None]) -> None:
    """Run `work` in a forked process. Raises AssertionError unless it ends well."""
    _, status = os.waitpid(in_a_process(work), 0)
    assert status == 0, "a process ended with an error"


def killed(work: Callable[[], None], seconds: float | None) -> bool:
    """Run `work` in a forked process, end it by SIGKILL after some seconds unless None, and say whether it was killed.

    Raises AssertionError where it ended by itself with an error.
    """
    pid = in_a_process(work)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    was_killed = os.WIFSIGNALED(status)
    assert was_killed or os.WEXITSTATUS(status) == 0, "the process ended with an error"
    return was_killed


def check_swept(run: Path) -> None:
    """Raise AssertionError unless all that killed processes left beside a run is swept when it is two days old."""
    from featurecache.runs.leftover_runs import sweep_runs

    before = time.time() - 2 * 86400
    for path in run.parent.glob(".*"):
        for each in [path, *path.rglob("*")]:
            os.utime(each, (before, before), follow_symlinks=False)
    sweep_runs(run)
    left = [path.name for path in run.parent.glob(".*") if path.name != ".hidden"]
    assert not left, f"left over: {left}"
