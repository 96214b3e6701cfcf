"""Maps of features kept with the cache: the same again for the same rows and settings, and no other file believed."""

from __future__ import annotations

import contextlib
import json
import shutil

import numpy as np
import pytest

from featurecache.cli.main import DONE, run
from featurecache.report import page
from featurecache.report.page import write_report
from featurecache.report.sections import kept_maps
from featurecache.report.sections import map as maps
from featurecache.report.sections.kept_maps import LaidOut, keep_map, map_identity, read_map, scaled_layout

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
SETTINGS = {"seed": 0}
IDENTITY = map_identity(X, SETTINGS)
FOUND = LaidOut([scaled_layout("t-SNE", X[:, :2]), scaled_layout("PCA", X[:, 1:])], 0.25)


def read(folder) -> LaidOut | None:
    return read_map(folder, IDENTITY, ("t-SNE", "PCA"), len(X))


def test_a_map_is_read_as_it_was_kept(tmp_path):
    assert read(tmp_path) is None
    keep_map(tmp_path, IDENTITY, FOUND)
    assert read(tmp_path) == FOUND
    assert len(list(tmp_path.iterdir())) == 1


def test_other_features_and_other_settings_have_another_map():
    moved = X.copy()
    moved[2, 1] = np.nextafter(moved[2, 1], np.float32(9.0))
    others = [map_identity(moved, SETTINGS), map_identity(X, {"seed": 1}), map_identity(X.reshape(3, 5), SETTINGS)]
    assert len({IDENTITY, *others}) == 4
    assert map_identity(np.asfortranarray(X), SETTINGS) == IDENTITY


def changed(**fields) -> str:
    layouts = [{"name": "t-SNE", "x": [0] * 5, "y": [1.5] * 5}, {"name": "PCA", "x": [0] * 5, "y": [1.5] * 5}]
    return json.dumps({"format": 1, "identity": IDENTITY, "variance": 0.5, "layouts": layouts} | fields)


def layouts_with(**fields) -> list[dict]:
    good = {"name": "PCA", "x": [0] * 5, "y": [1] * 5}
    return [good | {"name": "t-SNE"} | fields, good]


def test_the_document_that_the_next_test_spoils_is_good(tmp_path):
    (tmp_path / f"map-{IDENTITY[:16]}.json").write_text(changed())
    assert read(tmp_path) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        changed()[:-40],
        "[" * 5000,
        changed(format=2),
        changed(identity="0" * 64),
        changed(variance=1.5),
        changed(variance="0.5"),
        changed(variance=None),
        changed(layouts=[]),
        changed(layouts=7),
        changed(layouts=["xy", "xy"]),
        changed(layouts=layouts_with()[:1]),
        changed(layouts=layouts_with(name="<script>")),
        changed(layouts=layouts_with(x=[0] * 4)),
        changed(layouts=layouts_with(y=[0] * 6)),
        changed(layouts=layouts_with(x=[0, 0, 0, 0, 100.5])),
        changed(layouts=layouts_with(x=[0, 0, 0, 0, 10**400])),
        changed(layouts=layouts_with(x=[0, 0, 0, 0, True])),
        changed(layouts=layouts_with(x=["0"] * 5)),
        changed(layouts=layouts_with(x=[0, 0, 0, 0, float("nan")])),
        changed() + " " * (1 << 20),
    ],
)
def test_what_is_no_map_of_these_points_is_not_drawn_and_is_replaced(tmp_path, text):
    (tmp_path / f"map-{IDENTITY[:16]}.json").write_text(text)
    assert read(tmp_path) is None
    keep_map(tmp_path, IDENTITY, FOUND)
    assert read(tmp_path) == FOUND


def test_a_link_out_of_the_cache_is_not_followed(tmp_path):
    folder, elsewhere = tmp_path / "cache", tmp_path / "elsewhere.json"
    folder.mkdir()
    elsewhere.write_text(changed())
    (folder / f"map-{IDENTITY[:16]}.json").symlink_to(elsewhere)
    assert read(folder) is None
    keep_map(folder, IDENTITY, FOUND)
    assert (read(folder), elsewhere.read_text()) == (FOUND, changed())


def test_only_the_newest_maps_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_maps, "MOST_MAPS", 2)
    identities = [map_identity(X + n, SETTINGS) for n in range(3)]
    for age, identity in enumerate(identities[:2]):
        keep_map(tmp_path, identity, FOUND)
        kept_maps.os.utime(tmp_path / f"map-{identity[:16]}.json", (age, age))
    names = ("t-SNE", "PCA")
    assert read_map(tmp_path, identities[0], names, 5) == FOUND  # which makes it the newest
    keep_map(tmp_path, identities[2], FOUND)
    assert [read_map(tmp_path, each, names, 5) for each in identities] == [FOUND, None, FOUND]


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path):
    keep_map(tmp_path / "none", IDENTITY, FOUND)
    (tmp_path / "file").touch()
    keep_map(tmp_path / "file", IDENTITY, FOUND)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory, filled_cache):
    return shutil.copytree(filled_cache, tmp_path_factory.mktemp("maps") / "cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits_folder, cache):
    out = tmp_path_factory.mktemp("maps") / "run"
    assert run(["classify", str(digits_folder), "--cache", str(cache), "--heads", "ridge", "--out", str(out)]) == DONE
    return out


def laid_out_at_once(calls: list[int]):
    @contextlib.contextmanager
    def beside(points):
        calls.append(len(points))
        yield lambda seconds: points[:, ::-1][:, :2]

    return beside


def test_the_same_rows_are_laid_out_once(finished, cache, tmp_path, monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(maps, "tsne_beside", laid_out_at_once(calls))
    pages = [write_report(finished, out=tmp_path / f"{i}.html", cache_root=cache).read_text() for i in range(2)]
    assert len(calls) == 1
    assert pages[0] == pages[1]
    assert '"t-SNE"' in pages[0]
    for path in cache.glob("*/map-*.json"):
        path.write_text("spoilt")
    assert write_report(finished, out=tmp_path / "again.html", cache_root=cache).read_text() == pages[0]
    assert len(calls) == 2


def test_a_map_without_t_sne_is_not_kept(finished, cache, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def too_slow(points):
        yield lambda seconds: None

    monkeypatch.setattr(maps, "tsne_beside", too_slow)
    for path in cache.glob("*/map-*.json"):
        path.unlink()
    text = write_report(finished, out=tmp_path / "slow.html", cache_root=cache).read_text()
    assert '"PCA"' in text
    assert '"t-SNE"' not in text
    assert not list(cache.glob("*/map-*.json"))


def test_the_table_is_there_before_the_report(digits_folder, cache, tmp_path, monkeypatch, capsys):
    printed: list[str] = []

    def report(run_folder, **_):
        printed.append(capsys.readouterr().out)
        return run_folder

    monkeypatch.setattr(page, "write_report", report)
    command = ["classify", str(digits_folder), "--cache", str(cache), "--heads", "ridge", "--quiet"]
    assert run([*command, "--out", str(tmp_path / "run")]) == DONE
    assert "ridge" in printed[0]
    assert capsys.readouterr().out == ""
    assert run([*command, "--out", str(tmp_path / "again"), "--json"]) == DONE
    assert printed[1] == ""
    assert json.loads(capsys.readouterr().out)["heads"][0]["name"] == "ridge"


def test_a_reader_who_has_seen_enough_of_the_table_still_gets_the_report(digits_folder, cache, tmp_path, monkeypatch):
    from featurecache.cli.commands import classify as command

    def closed(results):
        raise BrokenPipeError

    monkeypatch.setattr(command, "results_text", closed)
    arguments = ["classify", str(digits_folder), "--cache", str(cache), "--heads", "ridge", "--quiet"]
    run([*arguments, "--out", str(tmp_path / "run")])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "report.html").exists()
