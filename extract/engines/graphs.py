"""Exported graphs and what was found out about them, kept beside the cache: exporting and comparing takes seconds.

    engine-<identity12>.json   the identity in full, the verdict (engine, lanes, why), the graph's SHA-256
    graph-<identity12>.onnx    the graph, where there is one

Both are derived and may be deleted at any time. A graph is used only when the identity is the same in every field
(network, cut, numbers, library versions, machine, the code that exports) and the file has the recorded SHA-256;
anything else is exported again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from extract.shards import TEMPORARY_PREFIX, publish

FORMAT = 1


@dataclass(frozen=True)
class Verdict:
    """Which engine runs a network best on this machine.

    engine: "onnxruntime" or "torch". n_lanes: how many batches run at once, each on its share of the cores.
    reason: why, for people to read. rates: images/s of every way that was tried, by its name.
    error: largest relative difference of a vector between the engines; None where there was no graph to compare.
    is_lasting: whether it would be the same tomorrow; where memory was short it might not, and it is not kept.
    """

    engine: str
    n_lanes: int
    reason: str
    rates: dict[str, float]
    error: float | None
    is_lasting: bool = True


class GraphFolder:
    """The graphs in one folder, found by identity."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, identity: Mapping[str, Any]) -> tuple[Verdict, bytes | None] | None:
        """The verdict on exactly this network and its graph; None where there is none to trust."""
        described, graph = self._paths(identity)
        try:
            document = json.loads(described.read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["identity"] != _plain(identity):
                return None
            verdict = Verdict(**document["verdict"])
            if document["sha256"] is None:
                return verdict, None
            content = graph.read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (verdict, content) if hashlib.sha256(content).hexdigest() == document["sha256"] else None

    def keep(self, identity: Mapping[str, Any], verdict: Verdict, graph: bytes | None) -> bool:
        """Keep both for the next run; says whether it could: without, the next run exports again."""
        described, path = self._paths(identity)
        document = {
            "format": FORMAT,
            "identity": _plain(identity),
            "verdict": asdict(verdict),
            "sha256": None if graph is None else hashlib.sha256(graph).hexdigest(),
        }
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if graph is not None:
                _write(path, graph)
            _write(described, json.dumps(document, indent=2, sort_keys=True).encode() + b"\n")
        except OSError:
            return False
        return True

    def _paths(self, identity: Mapping[str, Any]) -> tuple[Path, Path]:
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        return self.root / f"engine-{name}.json", self.root / f"graph-{name}.onnx"


def _plain(identity: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(identity))


def _write(path: Path, content: bytes) -> None:
    """The file, whole or not at all."""
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        temporary.write_bytes(content)
        publish(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
