"""Storage of exported graphs and of the choice of engine, for all caches of a user, since exporting takes seconds.

    engine-<identity12>.json   VerdictDocument: the identity in full, the verdict, the graph's SHA-256
    graph-<identity12>.onnx    the graph, if the network could be exported

Both are derived and may be deleted at any time. A graph is used only if the identity is the same in every field
(network, cut, precision, library versions, machine, the code that exports), the file has the recorded SHA-256, and it
passes `graph_checks.py`; otherwise the network is exported again. Graphs of other library versions, machines and batch
sizes stay for whoever still uses them: saving one removes all but the newest, and those that were not used for long.

They lie in the folder of the user (`base/user_folder.py`), up to MOST_SHARED_BYTES; next to the features where that
cannot be written. Both places are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from featurecache.base.files import TEMPORARY_PREFIX, replacing_file
from featurecache.base.plain_files import check_plain_file, read_json_file
from featurecache.base.text import printable
from featurecache.base.user_folder import make_user_folder, user_folder
from featurecache.extract.engines.protocol import ENGINES

VERDICT_FORMAT = 1
# Graphs in one folder, and how long one stays without being used: a graph of vgg16 is 528 MB.
MOST_GRAPHS, UNUSED_SECONDS = 6, 60 * 24 * 3600.0
# Those of a user may take so much together: three of the largest networks, or a hundred small ones.
SHARED_FOLDER, MOST_SHARED_BYTES = "graphs", 2 << 30
# A live process writes a document seconds after its graph.
LEFT_SECONDS = 3600.0
# A document has about a kilobyte, and its reason is one sentence.
MOST_BYTES, LONGEST_REASON = 1 << 20, 500


@dataclass(frozen=True)
class Verdict:
    """The engine chosen for a network on this machine.

    engine: "onnxruntime" or "torch". n_lanes: number of batches that run at once, each on its share of the cores.
    reason: of the choice, as a clause. rates: images/s of each engine that was timed, by its name.
    error: largest relative difference of a vector between the engines; None if there was no graph to compare.
    is_lasting: whether it is saved; a choice that was due to a lack of memory is not.
    """

    engine: str
    n_lanes: int
    reason: str
    rates: dict[str, float]
    error: float | None
    is_lasting: bool = True


class VerdictDocument(TypedDict):
    """The content of engine-<identity12>.json. identity: as JSON. verdict: the fields of Verdict."""

    format: int
    identity: Any
    verdict: dict[str, Any]
    sha256: str | None


class GraphFolder:
    """The exported graphs in one folder, by identity. most_bytes: of all together; None for a few of any size."""

    def __init__(self, root: Path, *, most_bytes: int | None = None) -> None:
        self.root, self.most_bytes = root, most_bytes

    def find(self, identity: Mapping[str, Any]) -> tuple[Verdict, bytes | None] | None:
        """Return the verdict for this identity and the graph, if there is one; None if there is no valid verdict."""
        described, graph = self._paths(identity)
        try:
            document: VerdictDocument = read_json_file(described, self.root, most_bytes=MOST_BYTES)
            if document["format"] != VERDICT_FORMAT or document["identity"] != _plain(identity):
                return None
            verdict = _verdict(document["verdict"])
            if document["sha256"] is None:
                return verdict, None
            check_plain_file(graph, self.root)
            content = graph.read_bytes()
            _mark_used(graph)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (verdict, content) if hashlib.sha256(content).hexdigest() == document["sha256"] else None

    def save(self, identity: Mapping[str, Any], verdict: Verdict, graph: bytes | None) -> bool:
        """Save both for later runs and return whether that was possible; otherwise the next run exports again."""
        described, path = self._paths(identity)
        document: VerdictDocument = {
            "format": VERDICT_FORMAT,
            "identity": _plain(identity),
            "verdict": asdict(verdict),
            "sha256": None if graph is None else hashlib.sha256(graph).hexdigest(),
        }
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if graph is not None:
                with replacing_file(path) as temporary:
                    temporary.write_bytes(graph)
            with replacing_file(described) as temporary:
                temporary.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        except OSError:
            return False
        self._remove_old(described)
        return True

    def _remove_old(self, newest: Path) -> None:
        """Remove the graphs that were not used for long, and all but the most recently used; `newest` stays."""
        with contextlib.suppress(OSError):
            others = [path for path in self.root.glob("engine-*.json") if path != newest]
            dated = sorted(((_last_used(path), path) for path in others), reverse=True)
            now = _last_used(newest)  # by the clock of the file system
            self._remove_leftovers(now - LEFT_SECONDS)
            total = _size(newest)
            for number, (used, path) in enumerate(dated, start=1):
                total += _size(path)
                is_beyond = number >= MOST_GRAPHS if self.most_bytes is None else total > self.most_bytes
                if is_beyond or now - used > UNUSED_SECONDS:
                    _graph_of(path).unlink(missing_ok=True)
                    path.unlink(missing_ok=True)

    def _remove_leftovers(self, before: float) -> None:
        """Remove what killed processes left: temporary files, and graphs without a document."""
        for path in (*self.root.glob(f"{TEMPORARY_PREFIX}*"), *self.root.glob("graph-*.onnx")):
            if not _described_by(path).is_file() and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def _paths(self, identity: Mapping[str, Any]) -> tuple[Path, Path]:
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        return self.root / f"engine-{name}.json", self.root / f"graph-{name}.onnx"


class SharedGraphs(GraphFolder):
    """The exported graphs of a user, which all caches share, else those next to one cache, in the folder `root`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        folder = user_folder()
        self._shared = None if folder is None else GraphFolder(folder / SHARED_FOLDER, most_bytes=MOST_SHARED_BYTES)

    def find(self, identity: Mapping[str, Any]) -> tuple[Verdict, bytes | None] | None:
        """Return what the user's folder has for this identity, else what is next to the cache."""
        found = None if self._shared is None else self._shared.find(identity)
        return super().find(identity) if found is None else found

    def save(self, identity: Mapping[str, Any], verdict: Verdict, graph: bytes | None) -> bool:
        """Save both in the user's folder, or next to the cache where that cannot be written."""
        if self._shared is not None and make_user_folder() and self._shared.save(identity, verdict, graph):
            return True
        return super().save(identity, verdict, graph)


def _size(described: Path) -> int:
    graph = _graph_of(described)
    return graph.stat().st_size if graph.is_file() else 0


def _graph_of(described: Path) -> Path:
    return described.with_name(f"graph-{described.stem.removeprefix('engine-')}.onnx")


def _described_by(graph: Path) -> Path:
    return graph.with_name(f"engine-{graph.stem.removeprefix('graph-')}.json")


def _last_used(described: Path) -> float:
    """Return when a graph was last used, or the choice of an engine without a graph was made."""
    graph = _graph_of(described)
    return (graph if graph.is_file() else described).stat().st_mtime


def _mark_used(graph: Path) -> None:
    with contextlib.suppress(OSError):  # a cache of somebody else's
        os.utime(graph)


def _verdict(values: Mapping[str, Any]) -> Verdict:
    """Return the verdict with these values. Raises TypeError or ValueError if they are not valid."""
    found = Verdict(**values)
    is_number = isinstance(found.error, float | int | None) and type(found.n_lanes) is int
    if found.engine not in ENGINES[1:] or not is_number or not isinstance(found.reason, str):
        raise ValueError("no verdict")
    return replace(found, reason=printable(found.reason[:LONGEST_REASON]))


def _plain(identity: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(identity))
