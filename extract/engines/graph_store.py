"""Exported graphs and the verdicts on them, kept next to the cache: exporting and comparing takes seconds.

    engine-<identity12>.json   the identity in full, the verdict (engine, lanes, why), the graph's SHA-256
    graph-<identity12>.onnx    the graph, where there is one

Both are derived and may be deleted at any time. A graph is used only when the identity is the same in every field
(network, cut, numbers, library versions, machine, the code that exports), the file has the recorded SHA-256, and it is
what such a graph is (`graph_checks.py`); anything else is exported again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featurecache.base.files import replacing_file
from featurecache.base.plain_files import check_plain_file, read_json_file
from featurecache.base.text import printable
from featurecache.extract.engines.protocol import ENGINES

VERDICT_FORMAT = 1
# A verdict is a kilobyte, and its reason one sentence.
MOST_BYTES, MOST_CHARACTERS = 1 << 20, 500


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
            document = read_json_file(described, self.root, most_bytes=MOST_BYTES)
            if document["format"] != VERDICT_FORMAT or document["identity"] != _plain(identity):
                return None
            verdict = _verdict(document["verdict"])
            if document["sha256"] is None:
                return verdict, None
            check_plain_file(graph, self.root)
            content = graph.read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (verdict, content) if hashlib.sha256(content).hexdigest() == document["sha256"] else None

    def save(self, identity: Mapping[str, Any], verdict: Verdict, graph: bytes | None) -> bool:
        """Keep both for the next run; says whether it could: without, the next run exports again."""
        described, path = self._paths(identity)
        document = {
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
        return True

    def _paths(self, identity: Mapping[str, Any]) -> tuple[Path, Path]:
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        return self.root / f"engine-{name}.json", self.root / f"graph-{name}.onnx"


def _verdict(values: Mapping[str, Any]) -> Verdict:
    """The verdict with these values. Raises TypeError or ValueError where they are none."""
    found = Verdict(**values)
    is_number = isinstance(found.error, float | int | None) and type(found.n_lanes) is int
    if found.engine not in ENGINES[1:] or not is_number or not isinstance(found.reason, str):
        raise ValueError("no verdict")
    return replace(found, reason=printable(found.reason[:MOST_CHARACTERS]))


def _plain(identity: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(identity))
