"""The report of a run: everything on one page that asks nothing of a network, names as text, gaps said in words."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from featurecache.base.defaults import DEFAULT_CACHE
from featurecache.cli.main import DONE, FAILED, REFUSED, USAGE, run
from featurecache.extract.cache.inventory import find_caches
from featurecache.extract.cache.store import FeatureCache, read_spec
from featurecache.extract.images.decode_rules import DECODE_REVISION
from featurecache.extract.job.request import FeatureRequest
from featurecache.report.page import write_report
from featurecache.report.sections.audit import read_audit
from featurecache.report.sections.reproduce import audit_commands

SCRIPT = "<script>alert(1)</script>"
QUOTED = "a 'quoted' \"name\" & <b>bold</b>"
LIKE_A_COLOUR = "var(--paper)"
CLASSES = {"0": LIKE_A_COLOUR, "1": SCRIPT, "2": QUOTED}
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
NO_CHROMIUM = not (CHROMIUM.exists() and DRIVER.exists())


@pytest.fixture(scope="module", autouse=True)
def _whole_pages(whole_pages):
    """These tests are about the page."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, digits_folder, filled_cache) -> Path:
    """A run on the digits 0, 1, 2 whose classes and files have names that would break a careless page."""
    root = tmp_path_factory.mktemp("hostile")
    lines = ["path,label"]
    for i, path in enumerate(sorted(digits_folder.rglob("*.png"))):
        copy = root / f'it\'s "{path.parent.name}" <i> {i:03d}.png'
        shutil.copy(path, copy)
        label, name = CLASSES[path.parent.name].replace('"', '""'), copy.name.replace('"', '""')
        lines.append(f'"{name}","{label}"')
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    command = ["classify", str(root / "manifest.csv"), "--cache", str(filled_cache), "--heads", "centroid,knn,ridge"]
    assert run([*command, "--out", str(root / "run"), "--quiet"]) == DONE
    return root / "run"


@pytest.fixture
def finished(tmp_path, hostile) -> Path:
    """A copy of the run to change."""
    return Path(shutil.copytree(hostile, tmp_path / "run"))


@pytest.fixture(scope="module")
def page(tmp_path_factory, hostile) -> Path:
    return write_report(hostile, out=tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def text(page) -> str:
    return page.read_text(encoding="utf-8")


def values_of(text: str) -> dict:
    return json.loads(text.split('id="values">', 1)[1].split("</script>", 1)[0])


def test_no_name_ends_a_script_or_becomes_an_element(text):
    assert SCRIPT not in text
    assert "<b>bold" not in text
    assert "<i> " not in text
    assert values_of(text)["classes"] == sorted(CLASSES.values())


def test_figures_escape_names_for_plotly_which_reads_markup(text):
    confusion = values_of(text)["heads"][0]["confusion"]["figure"]["data"][0]
    assert any(name.startswith("&lt;script") for name in confusion["x"])


def keyed(value, key=""):
    """Every string of a figure with the key it stands below."""
    if isinstance(value, dict):
        for inner, each in value.items():
            yield from keyed(each, inner)
    elif isinstance(value, list):
        for each in value:
            yield from keyed(each, key)
    elif isinstance(value, str):
        yield key, value


def test_colours_stand_below_keys_that_say_so_and_nothing_else_is_taken_for_one(text):
    values = values_of(text)
    found = list(keyed([values["figures"], *values["heads"]]))
    named = {(key, said) for key, said in found if said.startswith("var(--")}
    assert {said for key, said in named if "color" not in key} == {LIKE_A_COLOUR}
    assert {said for key, said in named if "color" in key} >= {"var(--accent)", "var(--ink)"}


def test_the_page_forbids_itself_every_request(text):
    assert "default-src 'none'" in text
    assert '<link rel="stylesheet' not in text
    assert "<script src" not in text


def test_every_part_of_the_run_is_there(text, hostile):
    values = values_of(text)
    heads = json.loads((hostile / "results.json").read_text())["heads"]
    assert set(values["heads"][0]) >= {"confusion", "reliability", "classes", "pairs", "errors"}
    assert values["titles"] == [head["name"] for head in heads]
    assert {"intervals", "sweep-0"} <= set(values["figures"])
    assert [layout["name"] for layout in values["map"]["layouts"]][-1] == "PCA"
    assert len(values["map"]["names"]) == json.loads((hostile / "results.json").read_text())["dataset"]["n_test"]


def test_the_commands_make_the_same_run_again(text, filled_cache):
    line = next(line for line in text.splitlines() if line.startswith("featurecache classify "))
    assert "manifest.csv --heads centroid,knn,ridge" in line
    assert f"--cache {filled_cache}" in line


def test_an_image_that_changed_since_the_run_is_not_shown(finished, hostile, tmp_path, digits_folder):
    images = Path(shutil.copytree(hostile.parent, tmp_path / "images", ignore=shutil.ignore_patterns("run")))
    name = pyarrow.parquet.read_table(finished / "predictions.parquet")["path"][0].as_py()
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(images / name)
    text = write_report(finished, images=str(images / "manifest.csv")).read_text()
    assert "1 picture left out: the file changed since the run." in text
    places = dict(zip(values_of(text)["map"]["names"], values_of(text)["map"]["sheet"]["places"], strict=True))
    assert [name for name, place in places.items() if place < 0] == [name]


def test_without_images_the_page_says_so(finished):
    text = write_report(finished, images="nowhere").read_text()
    assert "pictures left out: the files are not where they were when the run was made." in text
    assert values_of(text)["pictures"] == {}


def test_an_image_without_features_in_the_cache_is_left_out_of_the_map(finished, filled_cache, tmp_path):
    root = Path(shutil.copytree(filled_cache, tmp_path / "cache"))
    first = pyarrow.parquet.read_table(finished / "predictions.parquet").to_pylist()[0]
    digests = np.frombuffer(bytes.fromhex(first["digest"]), np.uint8).reshape(1, 32)
    for folder in find_caches(root):
        FeatureCache(root, read_spec(folder)).withdraw(digests, DECODE_REVISION + 1)
    text = write_report(finished, cache_root=root).read_text()
    assert "1 image is left out: the cache has no features of it." in text
    everything = values_of(write_report(finished).read_text())["map"]["names"]
    assert {*everything} - {*values_of(text)["map"]["names"]} == {first["path"]}


def test_without_the_cache_there_is_no_map_but_a_sentence(finished, tmp_path):
    text = write_report(finished, cache_root=tmp_path / "none").read_text()
    assert "The features of efficientnet_lite0 are no longer in the cache, so there is no map of them." in text
    assert values_of(text)["map"] is None


def test_without_predictions_the_comparison_is_left(finished):
    (finished / "predictions.parquet").unlink()
    text = write_report(finished).read_text()
    assert "predictions.parquet is gone: no head can be looked at closely." in text
    assert values_of(text)["heads"] == []
    assert "intervals" in values_of(text)["figures"]


def test_a_run_from_before_layers_were_named_has_a_report(finished):
    results = json.loads((finished / "results.json").read_text())
    for head in results["heads"]:
        del head["features"]
    for row in results["features"]:
        del row["name"], row["layer"], row["pooling"]
    (finished / "results.json").write_text(json.dumps(results))
    path = finished / "predictions.parquet"
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop_columns(["features"]), path)
    assert values_of(write_report(finished).read_text())["map"] is not None


def test_a_learning_curve_is_drawn_where_the_run_has_one(finished):
    results = json.loads((finished / "results.json").read_text())
    row = {"head": "knn", "features": "efficientnet_lite0", "repeats": 5}
    results["shots"] = [
        {**row, "shots": n, "n_train": 3 * n, "mean": n / 10, "low": n / 10, "high": n / 10 + 0.1} for n in (4, 1, 2)
    ]
    doubled = {"n_now": 12, "n_doubled": 24, "now": 0.4, "expected": 0.5, "low": 0.45, "high": 0.6, "gain": 0.1}
    results["doubling"] = [row | doubled]
    (finished / "results.json").write_text(json.dumps(results))
    line, expected = values_of(write_report(finished).read_text())["figures"]["learning"]["data"]
    assert line["x"] == [3, 6, 12]
    assert line["y"] == pytest.approx([10, 20, 40])
    assert line["error_y"]["array"] == pytest.approx([10, 10, 10])
    assert (expected["x"], expected["y"]) == ([12, 24], [40, 50])
    assert expected["error_y"]["arrayminus"] == pytest.approx([0, 5])


def write_audit_json(finished: Path, **values: object) -> None:
    """An audit of the run's own split that found test images in train, changed by `values`."""
    data = json.loads((finished / "results.json").read_text())["dataset"]
    n_of_split = {split: data[f"n_{split}"] for split in ("train", "val", "test")}
    audit = {"format": 1, "seed": 0, "n_of_split": n_of_split, "untrue": True, "why": "2 of 9 test images leak."}
    (finished / "audit.json").write_text(json.dumps(audit | values))


def test_what_the_audit_found_is_shown(finished):
    names = pyarrow.parquet.read_table(finished / "predictions.parquet")["path"].to_pylist()
    pair = {
        "cosine": 0.99,
        "across_splits": True,
        "paths": names[:2],
        "splits": ["train", "test"],
        "labels": [SCRIPT] * 2,
    }
    write_audit_json(finished, near_duplicates=[pair], outliers=[])
    text = write_report(finished).read_text()
    assert "<h3>Audit: near duplicates</h3>" in text
    assert "train: &lt;script&gt;alert(1)&lt;/script&gt; = test: &lt;script&gt;" in text
    assert "cosine 0.99" in text
    assert "2 of 9 test images leak." in text
    assert "Nothing was found." in text


@pytest.mark.parametrize("values", [{"seed": 3}, {"n_of_split": {"train": 1, "val": 1, "test": 1}}])
def test_an_audit_of_another_split_does_not_judge_this_one(finished, values):
    write_audit_json(finished, outliers=[], **values)
    audited = read_audit(finished)
    assert (audited.leakage, [gallery["title"] for gallery in audited.galleries]) == ([], ["Audit: outliers"])
    (note,) = audited.notes
    assert note.startswith("The audit is of another split, so its findings about test accuracy are left out.")
    assert note.endswith(f"; featurecache report {finished}")


def test_the_commands_that_add_an_audit_run_and_are_heard(finished, capsys):
    (note,) = read_audit(finished).notes
    assert note.startswith("This run was not audited. To add near-duplicates, doubtful labels and outliers: ")
    for command in note.split(": ", 1)[1].split("; "):
        assert run(shlex.split(command)[1:]) in (DONE, REFUSED)
    assert (finished / "audit.json").exists()
    assert read_audit(finished).notes == []
    assert "<h3>Audit: outliers</h3>" in (finished / "report.html").read_text()


def test_the_commands_of_an_audit_name_what_is_not_as_usual():
    request = asdict(FeatureRequest("pixels", layer="x y", pooling="max"))
    config = {"images": "my photos", "requests": [request], "cache": "/elsewhere", "seed": 3}
    assert audit_commands(config, Path("a run")) == [
        "featurecache audit 'my photos' --backbone pixels --layer 'x y' --pooling max --cache /elsewhere --seed 3 "
        "--out 'a run'",
        "featurecache report 'a run'",
    ]
    usual = {"images": "photos", "requests": [asdict(FeatureRequest())], "cache": str(DEFAULT_CACHE.resolve())}
    assert audit_commands(usual, Path("run"))[0] == "featurecache audit photos --out run"


def test_the_command_names_the_page_it_wrote(hostile, tmp_path, capsys):
    assert run(["report", str(hostile), "--out", str(tmp_path / "page.html")]) == DONE
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").stat().st_size > 1_000_000


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert run(["report", str(tmp_path)]) == USAGE
    assert "is not a run: it has no results.json" in capsys.readouterr().err


def test_damaged_predictions_are_named(finished, capsys):
    (finished / "predictions.parquet").write_bytes(b"PAR1")
    assert run(["report", str(finished)]) == FAILED
    assert "predictions.parquet' is not what 'featurecache classify' writes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda results: {key: value for key, value in results.items() if key != "dataset"}, "'dataset.name' is miss"),
        (lambda results: results | {"heads": [{}]}, "'heads[0].name' is missing"),
        (lambda results: results | {"heads": [1]}, "'heads[0]' is 1 and has to be an object"),
        (lambda results: results | {"features": [{"backbone": "x"}]}, "'features[0].dim' is missing"),
        (lambda results: {key: value for key, value in results.items() if key != "created"}, "'created' is missing"),
    ],
)
def test_damaged_results_are_one_sentence(finished, capsys, damage, reason):
    results = json.loads((finished / "results.json").read_text())
    (finished / "results.json").write_text(json.dumps(damage(results)))
    assert run(["report", str(finished)]) == FAILED
    said = capsys.readouterr().err
    named = f"featurecache: '{finished / 'results.json'}' is not what 'featurecache classify' writes: {reason}"
    assert said.startswith(named)


def test_settings_of_features_that_nobody_knows_are_one_sentence(finished, capsys):
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps(config | {"requests": [{"colour": "red"}]}))
    assert run(["report", str(finished)]) == FAILED
    assert "config.json' is not what 'featurecache classify' writes: 'requests[0]' is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"), [(b"path,label\n\xff,0\n", "UnicodeDecodeError: "), (b"file\na.png\n", "KeyError: 'path'")]
)
def test_a_damaged_list_of_splits_is_one_sentence(finished, capsys, content, reason):
    (finished / "splits.csv").write_bytes(content)
    assert run(["report", str(finished)]) == FAILED
    assert f"is not whole, or of an older version ({reason}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if NO_CHROMIUM:
        pytest.skip("needs chromium and chromium-driver")
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
    try:
        from picture import open_chromium
    finally:
        sys.path.pop(0)
    driver = open_chromium(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def opened(browser, page):
    browser.get(page.as_uri())
    browser.log_of_opening = browser.get_log("browser"), browser.get_log("performance")
    return browser


@pytest.mark.needs_package
def test_chromium_reports_no_error_and_no_request(opened, page):
    console, performance = opened.log_of_opening
    assert [entry for entry in console if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in performance]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    # The empty tab of a new window loads its own parts from inside the browser.
    assert {url for url in asked if not url.startswith(("data:", "chrome:", "chrome-untrusted:"))} == {page.as_uri()}


@pytest.mark.needs_package
def test_chromium_shows_the_whole_table_of_heads_in_a_window_of_1300_pixels(opened):
    before = opened.get_window_size()
    opened.set_window_size(1300, 900)
    shown, whole = opened.execute_script(
        "const table = document.querySelector('.wide'); return [table.clientWidth, table.scrollWidth]"
    )
    opened.set_window_size(before["width"], before["height"])
    assert 0 < whole <= shown


def test_chromium_draws_every_plot(opened):
    drawn = opened.execute_script(
        """return [...document.querySelectorAll('.plot')].map((plot) => [
            plot.dataset.figure || plot.id,
            plot.querySelectorAll('.points path, .point path, .heatmaplayer image, .bars path').length])"""
    )
    assert {name for name, _ in drawn} >= {"intervals", "confusion", "reliability", "classes", "sweep-0", "map-plot"}
    assert [name for name, n_marks in drawn if n_marks == 0] == []


@pytest.mark.needs_package
def test_chromium_shows_the_script_class_as_text(opened):
    assert SCRIPT in opened.execute_script("return document.querySelector('#legend').textContent")
    assert SCRIPT in opened.execute_script("return document.querySelector('#class-choice').textContent")
    ticks = opened.execute_script("return document.querySelector('[data-figure=classes]').textContent")
    assert "<script>" in ticks
    assert LIKE_A_COLOUR in ticks
    assert opened.execute_script("return document.querySelectorAll('script').length") == 5


@pytest.mark.needs_package
def test_chromium_shows_the_picture_of_the_point_under_the_mouse(opened):
    from selenium.webdriver import ActionChains

    plot = opened.find_element("id", "map-plot")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plot)
    x, y = opened.execute_script(
        """const plot = arguments[0], layout = plot._fullLayout, {x, y} = plot.data[0];
        const box = plot.getBoundingClientRect();
        return [layout.xaxis._offset + layout.xaxis.d2p(x[0]) - box.width / 2,
                layout.yaxis._offset + layout.yaxis.d2p(y[0]) - box.height / 2];""",
        plot,
    )
    card = opened.find_element("id", "card")
    assert not card.is_displayed()
    ActionChains(opened).move_to_element_with_offset(plot, round(x), round(y)).pause(0.3).perform()
    assert card.is_displayed()
    assert "label: " in card.text
    picture = card.find_element("class name", "picture")
    assert "data:image/jpeg" in picture.value_of_css_property("background-image")


@pytest.mark.needs_package
def test_chromium_switches_head_theme_and_class(opened):
    from selenium.webdriver.support.ui import Select

    choice = Select(opened.find_element("id", "head-choice"))
    for each in [option.text for option in choice.options]:
        choice.select_by_visible_text(each)
        assert opened.execute_script("return document.querySelector('.head-name').textContent") == each
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = opened.execute_script(colour)
    opened.execute_script("document.getElementById('theme-switch').click()")
    assert opened.execute_script(colour) != before
    opened.execute_script("document.querySelector('#legend button').click()")
    faint = opened.execute_script(
        "return document.getElementById('map-plot').data[0].marker.opacity.filter((o) => o < 0.1)"
    )
    assert len(faint) > 0
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_points_are_laid_out_beside_other_work_or_not_at_all():
    from featurecache.report.sections.tsne import LEAST_POINTS, tsne_beside

    points = np.random.default_rng(0).normal(size=(LEAST_POINTS, 4)).astype(np.float32)
    with tsne_beside(points) as flat:
        assert flat(60).shape == (LEAST_POINTS, 2)
    with tsne_beside(points) as flat:
        assert flat(0) is None
    with tsne_beside(points[:-1]) as flat:
        assert flat(60) is None


def test_the_program_that_lays_points_out_needs_nothing_of_ours(tmp_path):
    from featurecache.report.sections import tsne

    points = np.repeat(np.eye(2, dtype=np.float32), 30, axis=0) + np.random.default_rng(0).normal(0, 0.01, (60, 2))
    np.save(tmp_path / "in.npy", points.astype(np.float32))
    command = [sys.executable, "-P", "-I", tsne.__file__, tmp_path / "in.npy", tmp_path / "out.npy"]
    subprocess.run(command, check=True, cwd=tmp_path)
    flat = np.load(tmp_path / "out.npy")
    apart = np.linalg.norm(flat[:30].mean(axis=0) - flat[30:].mean(axis=0))
    assert apart > 2 * flat[:30].std()
