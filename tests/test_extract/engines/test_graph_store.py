"""Graphs that nobody uses any more do not stay for ever."""

from __future__ import annotations

import os
import threading

import pytest

from featurecache.extract.engines import graph_store
from featurecache.extract.engines.export import _silenced
from featurecache.extract.engines.graph_store import MOST_GRAPHS, UNUSED_SECONDS, GraphFolder, Verdict

VERDICT = Verdict("onnxruntime", 1, "as fast", {}, 0.0)


def identity(number: int) -> dict[str, object]:
    return {"backbone": "toy", "machine": [number]}


@pytest.fixture
def folder(tmp_path):
    """A folder with as many graphs as it may have, the last saved last."""
    found = GraphFolder(tmp_path)
    for number in range(MOST_GRAPHS):
        assert found.save(identity(number), VERDICT, b"graph")
        age(found, number, seconds=1000 - number)
    return found


def age(folder: GraphFolder, number: int, seconds: float) -> None:
    described, graph = folder._paths(identity(number))
    used = described.stat().st_mtime - seconds
    for path in (described, graph):
        os.utime(path, (used, used))


def kept(folder: GraphFolder) -> list[int]:
    found = [number for number in range(MOST_GRAPHS + 1) if folder.find(identity(number)) is not None]
    assert len(list(folder.root.iterdir())) == 2 * len(found)
    return found


def test_of_too_many_graphs_the_one_that_was_not_used_for_longest_goes(folder):
    assert folder.find(identity(0)) is not None  # used now
    assert folder.save(identity(MOST_GRAPHS), VERDICT, b"graph")
    assert kept(folder) == [0, *range(2, MOST_GRAPHS + 1)]


def test_a_graph_that_was_not_used_for_long_goes_whatever_the_number(folder):
    for number in (1, 3):
        age(folder, number, UNUSED_SECONDS + 10)
    assert folder.save(identity(0), VERDICT, b"graph")
    assert kept(folder) == [number for number in range(MOST_GRAPHS) if number not in (1, 3)]


def test_a_choice_without_a_graph_is_kept_too(tmp_path):
    folder = GraphFolder(tmp_path)
    assert folder.save(identity(0), graph_store.Verdict("torch", 1, "it does not export", {}, None), None)
    assert folder.save(identity(1), VERDICT, b"graph")
    assert [folder.find(identity(number)) is not None for number in (0, 1)] == [True, True]


def test_only_what_the_exporting_thread_prints_is_dropped(capsys):
    with _silenced():
        print("of the exporter")
        other = threading.Thread(target=print, args=("of the host",))
        other.start()
        other.join()
    assert capsys.readouterr().out == "of the host\n"
