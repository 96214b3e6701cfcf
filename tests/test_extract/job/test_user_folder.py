"""What all caches of a user share: a network that one of them knows is neither loaded nor exported for another."""

import os
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

from featurecache.base import known_answers
from featurecache.base import user_folder as places
from featurecache.base.user_folder import VARIABLE, user_folder
from featurecache.extract.engines import choice, graph_store
from featurecache.extract.engines.graph_store import GraphFolder, SharedGraphs, Verdict
from featurecache.extract.images.read import read_images
from featurecache.extract.job import plan
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.request import FeatureRequest

IDENTITY, VERDICT = {"backbone": "small"}, Verdict("onnxruntime", 1, "as fast", {}, 0.0)


@pytest.fixture(scope="module", autouse=True)
def _judged_once(judged_once):
    with judged_once():
        yield


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A folder of the user, which is not there yet."""
    folder = tmp_path / "home" / "shared"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.fixture
def one_image(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (20, 20), "red").save(folder / "red.png")
    return read_images(folder)


@pytest.fixture
def loaded(monkeypatch):
    """The requests for which networks are loaded, and the networks that are exported."""
    found = []
    load, compare = plan.load_together, choice.compare_engines
    monkeypatch.setattr(plan, "load_together", lambda asked: (found.append("loaded"), load(asked))[1])
    monkeypatch.setattr(choice, "compare_engines", lambda *a: (found.append("exported"), compare(*a))[1])
    return found


def extract(images, root):
    (filled,) = extract_features(images, [FeatureRequest("pixels")], root).filled
    return filled.n_extracted


def test_a_new_cache_neither_loads_nor_exports_a_network_that_another_knows(shared, one_image, loaded, tmp_path):
    assert extract(one_image, tmp_path / "first") == 1
    assert loaded == ["loaded", "exported"]
    assert sorted(path.name for path in shared.iterdir()) == ["graphs", "networks"]
    assert extract(one_image, tmp_path / "second") == 1
    assert loaded == ["loaded", "exported"]
    assert not [*(tmp_path / "second").rglob("*.onnx")]
    # A damaged graph is made again; an answer that cannot be read is none.
    (graph,) = (shared / "graphs").glob("*.onnx")
    graph.write_bytes(b"no graph")
    for answer in (shared / "networks").iterdir():
        answer.write_text("[]")
    assert extract(one_image, tmp_path / "third") == 1
    assert loaded == ["loaded", "exported"] * 2


@pytest.mark.parametrize("named", ["", "a file in its place"])
def test_without_a_folder_of_the_user_the_graph_is_next_to_the_features(one_image, tmp_path, monkeypatch, named):
    place = tmp_path / "file"
    place.touch()
    monkeypatch.setenv(VARIABLE, named and str(place / "below"))
    assert extract(one_image, tmp_path / "cache") == 1
    assert [*(tmp_path / "cache").rglob("engine-*.json")]
    assert place.read_bytes() == b""


def test_a_graph_next_to_an_older_cache_is_still_used(shared, tmp_path):
    GraphFolder(tmp_path / "old").save(IDENTITY, VERDICT, b"graph")
    assert SharedGraphs(tmp_path / "old").find(IDENTITY) == (VERDICT, b"graph")
    assert SharedGraphs(tmp_path / "new").find(IDENTITY) is None
    assert not shared.exists()


def test_the_longest_unused_graphs_go_when_all_are_too_large(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_store, "MOST_SHARED_BYTES", 25)
    graphs = SharedGraphs(tmp_path / "cache")
    for number in range(4):
        assert graphs.save({"number": number}, VERDICT, bytes(10))
        for age, path in enumerate(sorted((shared / "graphs").glob("*.onnx"), key=os.path.getmtime, reverse=True), 1):
            os.utime(path, (time.time() - 60 * age,) * 2)
    kept = [number for number in range(4) if graphs.find({"number": number}) is not None]
    assert len(kept) == 2
    assert 3 in kept
    assert graphs.save({"number": 9}, VERDICT, bytes(100))  # larger than all may be together: it alone stays
    assert [path.stat().st_size for path in (shared / "graphs").glob("*.onnx")] == [100]


def test_what_a_cache_says_by_the_name_of_its_weights_counts_for_that_cache_only(shared, one_image, loaded, tmp_path):
    first = tmp_path / "first"
    assert extract(one_image, first) == 1
    shutil.rmtree(shared / "networks")
    (first / "digests.sqlite").unlink()
    assert extract(one_image, first) == 0  # found by its spec, without the network
    assert loaded == ["loaded", "exported"]
    assert not (shared / "networks").exists()


def test_only_the_newest_answers_stay(shared, monkeypatch):
    monkeypatch.setattr(known_answers, "MOST_ANSWERS", 2)
    for number in range(3):
        known_answers.remember_answer(f"question {number}", f"answer {number}")
        for age, path in enumerate(sorted((shared / "networks").iterdir(), key=os.path.getmtime, reverse=True)):
            os.utime(path, (10**9 - age, 10**9 - age))
    assert known_answers.known_answer("question 2") == "answer 2"
    assert len([*(shared / "networks").iterdir()]) == 2


def let_all_write(folder, monkeypatch):
    folder.chmod(0o777)


def let_a_group_write(folder, monkeypatch):
    folder.chmod(0o770)


def let_all_replace_it(folder, monkeypatch):
    folder.parent.chmod(0o777)


def give_it_to_another(folder, monkeypatch):
    owner = max(folder.stat().st_uid, 1) + 1
    real = Path.stat
    changed = lambda path, **how: os.stat_result([*real(path, **how)[:4], owner, *real(path, **how)[5:10]])  # noqa: E731
    monkeypatch.setattr(Path, "stat", lambda path, **how: (changed if path == folder else real)(path, **how))


@pytest.mark.skipif(os.name != "posix", reason="permissions of other systems are not read")
@pytest.mark.parametrize("change", [let_all_write, let_a_group_write, let_all_replace_it, give_it_to_another])
def test_a_graph_that_another_user_could_have_planted_is_not_used(shared, tmp_path, monkeypatch, change):
    assert SharedGraphs(tmp_path / "cache").save(IDENTITY, VERDICT, b"graph")
    known_answers.remember_answer("question", "answer")
    assert SharedGraphs(tmp_path / "cache").find(IDENTITY) == (VERDICT, b"graph")
    change(shared, monkeypatch)
    assert SharedGraphs(tmp_path / "cache").find(IDENTITY) is None
    assert known_answers.known_answer("question") is None
    assert SharedGraphs(tmp_path / "cache").save(IDENTITY, VERDICT, b"mine")
    assert [path.read_bytes() for path in (tmp_path / "cache").glob("*.onnx")] == [b"mine"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of other systems are not read")
def test_the_folder_is_made_for_the_user_alone_whatever_the_umask(shared, tmp_path):
    before = os.umask(0o002)
    try:
        assert SharedGraphs(tmp_path / "cache").save(IDENTITY, VERDICT, b"graph")
    finally:
        os.umask(before)
    assert shared.stat().st_mode & 0o777 == 0o700
    assert SharedGraphs(tmp_path / "cache").find(IDENTITY) == (VERDICT, b"graph")


def test_what_killed_processes_left_goes_after_an_hour(shared, tmp_path):
    graphs = SharedGraphs(tmp_path / "cache")
    assert graphs.save(IDENTITY, VERDICT, b"graph")
    for name in (".writing-0123456789abcdef-graph.onnx", "graph-0123456789ab.onnx"):
        for age, prefix in ((7200, ""), (60, "9")):
            path = shared / "graphs" / name.replace("0", f"{prefix}0", 1)
            path.touch()
            os.utime(path, (time.time() - age,) * 2)
    assert graphs.save({"number": 2}, VERDICT, b"graph")
    left = {path.name for path in (shared / "graphs").iterdir()}
    assert {".writing-90123456789abcdef-graph.onnx", "graph-90123456789ab.onnx"} < left
    assert len(left) == 6
    assert graphs.find(IDENTITY) is not None


def test_the_folder_is_where_the_system_has_such_folders(monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(places.sys, "platform", "linux")
    assert user_folder() == Path("/home/ann/.cache/featurecache")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_folder() == Path("/home/ann/.cache/featurecache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert user_folder() == Path("/scratch/featurecache")
    monkeypatch.setenv(VARIABLE, "~/mine")
    assert user_folder() == Path("/home/ann/mine")
    monkeypatch.setenv(VARIABLE, "")
    assert user_folder() is None
