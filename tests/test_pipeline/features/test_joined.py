"""Features of several backbones side by side: each block scaled for itself, in classify, predict, audit and report."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from featurecache import FeatureRequest, Predictor, audit_images, compare_runs, read_images
from featurecache.base.errors import PipelineError, UsageError
from featurecache.cli.main import DONE, REFUSED, USAGE, run
from featurecache.cli.text import leaderboard_text
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.vectors.origin import plain_spec
from featurecache.features.feature_set import Part
from featurecache.features.joined import Joined, joined_rate, joined_spec, scale_of
from featurecache.features.saved_with_head import head_meta
from featurecache.runs.record_checks import read_results

BOTH = "efficientnet_lite0+pixels"


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits_folder, filled_cache):
    """A cache with the features of two networks, and a run on each and on both side by side."""
    folder = tmp_path_factory.mktemp("joined")
    shutil.copytree(filled_cache, folder / "cache")
    root = str(folder / "cache")
    assert run(["extract", str(digits_folder), "--backbone", BOTH, "--cache", root, "--quiet"]) == DONE
    words = [
        "--backbone",
        "efficientnet_lite0",
        "--backbone",
        f"pixels,{BOTH}",
        "--heads",
        "ridge,knn",
        "--ensemble",
        "--quiet",
    ]
    assert run(["classify", str(digits_folder), *words, "--cache", root, "--out", str(folder / "run")]) == DONE
    return folder


class Few:
    """A source of three rows, whose digests are their numbers."""

    def __init__(self, name: str, X: list[list[float]]) -> None:
        self.X = np.array(X, dtype=np.float32)
        self.spec: FeatureSpec = plain_spec(name, self.X.shape[1])

    def missing(self, digests):
        return digests[:, 0] >= len(self.X)

    def stored_order(self, digests):
        return np.arange(len(digests))[::-1]

    def lookup(self, digests):
        return self.X[digests[:, 0]]


def test_each_block_is_divided_by_its_root_mean_square_norm():
    one, other = Few("one", [[3, 4], [0, 5], [6, 8]]), Few("other", [[0.1], [0.1], [0.7]])
    digests = np.zeros((3, 32), np.uint8)
    digests[:, 0] = (0, 1, 2)
    scales = [scale_of(source, digests[:2]) for source in (one, other)]
    assert scales == pytest.approx([5.0, 0.1])
    parts = [
        Part(FeatureRequest(s.spec.backbone), s.spec, scale) for s, scale in zip((one, other), scales, strict=True)
    ]
    joined = Joined.of(parts, [one, other])
    np.testing.assert_allclose(joined.lookup(digests), [[0.6, 0.8, 1], [0, 1, 1], [1.2, 1.6, 7]], rtol=1e-6)
    assert (joined.spec.backbone, joined.spec.feature_dim) == ("one+other", 3)
    assert joined.spec.key != Joined.of(parts[::-1], [other, one]).spec.key
    assert joined.missing(digests + 1).tolist() == [False, False, True]
    assert scale_of(Few("zero", [[0.0]]), digests[:1]) == 1.0
    assert (joined_rate([100.0, 50.0]), joined_rate([100.0, 0.0])) == (33.33, 0.0)


def test_names_are_joined_but_a_folder_with_the_joint_in_its_path_is_one(tmp_path):
    from featurecache.runs.command_lines import parts_of

    names = [part.backbone for part in parts_of(FeatureRequest("resnet18+timm/vit.x", size=64))]
    assert names == ["resnet18", "timm/vit.x"]
    (tmp_path / "a+b").mkdir()
    request = FeatureRequest(f"local-dir:{tmp_path}/a+b")
    assert parts_of(request) == (request,)
    long = [Few("n" * 150, [[1.0]]).spec, Few("m" * 150, [[1.0]]).spec]
    assert FeatureSpec.from_dict(joined_spec(long).to_dict()) == joined_spec(long)


def test_joined_features_have_rows_of_their_own_and_cost_no_extraction(place):
    results = read_results(place / "run")
    assert {(head["features"], head["name"]) for head in results["heads"]} - {("tied-heads", "ensemble")} == {
        (features, name) for features in ("efficientnet_lite0", "pixels", BOTH) for name in ("ridge", "knn")
    }
    rows = {row["name"]: row for row in results["features"]}
    parts = rows[BOTH]["parts"]
    assert rows[BOTH]["dim"] == rows["efficientnet_lite0"]["dim"] + rows["pixels"]["dim"]
    assert [part["key"] for part in parts] == [rows["efficientnet_lite0"]["key"], rows["pixels"]["key"]]
    assert rows[BOTH]["weights"] == f"IMAGENET1K + {rows['pixels']['weights']}"
    assert len(list((place / "cache").glob("*/spec.json"))) == 2
    assert any(BOTH in sentence for sentence in results["transfer"])
    assert {row["features"] for row in compare_runs([place / "run"])["heads"]} >= {BOTH}


def test_the_scales_are_those_of_train(place, digits_folder):
    from featurecache.extract.cache.store import FeatureCache, read_spec

    results = read_results(place / "run")
    listed = (place / "run" / "splits.csv").read_text().splitlines()[1:]
    train = [line.split(",")[3] for line in listed if line.split(",")[2] == "train"]
    digests = np.frombuffer(bytes.fromhex("".join(train)), np.uint8).reshape(-1, 32)
    row = next(row for row in results["features"] if row["name"] == BOTH)
    for part in row["parts"]:
        (folder,) = (place / "cache").glob(f"{part['backbone']}-{part['key'][:12]}")
        X = FeatureCache(place / "cache", read_spec(folder)).lookup(digests)
        assert part["scale"] == pytest.approx(float(np.sqrt((X.astype("f8") ** 2).sum(axis=1).mean())), rel=1e-6)


def test_a_head_on_joined_features_labels_images_old_and_new(place, digits_folder, images, tmp_path, capsys):
    head = f"{BOTH}--ridge"
    predictor = Predictor.load(place / "run", head=head)
    found = predictor.predict(read_images(digits_folder))
    n_right, n = found.accuracy()
    assert (n, found.head) == (90, f"ridge on {BOTH}")
    assert n_right >= 85
    new = tmp_path / "cache"  # an empty one: both networks are run
    words = ["predict", str(place / "run"), str(images / "0"), "--head", head, "--cache", str(new), "--json", "--quiet"]
    (images / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(words) == REFUSED
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["images"]) == 30
    assert [each["path"] for each in answer["refused"]] == ["broken.png"]
    own = {sample.name: row for sample, row in zip(found.samples, found.proba, strict=True)}
    for image in answer["images"]:
        np.testing.assert_allclose(list(image["probabilities"].values()), own[f"0/{image['path']}"], atol=1e-4)
    assert run([*words, "--weights", "some.pth"]) == USAGE
    assert "takes features of 2 backbones" in capsys.readouterr().err


def test_an_ensemble_over_several_backbones_is_a_row_and_predicts(place, digits_folder):
    results = read_results(place / "run")
    assert re.search(r"tied-heads ensemble \*? +mean_of=\d heads ", leaderboard_text(results))
    row = next(head for head in results["heads"] if head["name"] == "ensemble")
    assert row["features"] == "tied-heads"
    assert len(row["members"]) >= 2
    features = next(each for each in results["features"] if each["name"] == "tied-heads")
    assert set(features["weights"].split(", ")) == {name.split("--")[0] for name in row["members"]} >= {BOTH}
    singles = [each for each in results["features"] if each["name"] in BOTH.split("+")]
    assert features["dim"] == sum(each["dim"] for each in singles)
    assert features["extract_seconds"] == pytest.approx(sum(each["extract_seconds"] for each in singles), abs=0.01)
    slowness = sum(1 / each["images_per_second"] for each in singles)
    assert 1 / features["images_per_second"] == pytest.approx(slowness, rel=0.01)
    found = Predictor.load(place / "run", head="tied-heads--ensemble").predict(read_images(digits_folder))
    assert found.accuracy()[0] >= 85
    members = [Predictor.load(place / "run", head=name).predict(read_images(digits_folder)) for name in row["members"]]
    np.testing.assert_allclose(found.proba, np.mean([each.proba for each in members], axis=0), atol=1e-6)
    compared = compare_runs([place / "run"])["heads"]
    assert {each["head"] for each in compared if each["features"] == "tied-heads"} == {"ensemble"}


def test_the_report_and_its_commands_know_joined_features(place):
    page = (place / "run" / "report.html").read_text()
    shown = re.search(r"<pre>(.*?)</pre>", page, re.S)[1]
    assert "featurecache extract" in shown
    assert f"--backbone efficientnet_lite0 --backbone pixels --backbone {BOTH} --heads ridge,knn --ensemble" in shown
    extracts = [line for line in shown.splitlines() if "extract" in line]
    assert not any("+" in line for line in extracts)
    assert '"map":null' not in page


def test_an_audit_takes_joined_features(place, digits_folder):
    found = audit_images(read_images(digits_folder), FeatureRequest(BOTH), cache_root=place / "cache")
    assert found.backbone == BOTH


@pytest.mark.parametrize("suffix", ["h5", "npz", "parquet"])
def test_joined_features_are_exported_next_to_each_other(place, digits_folder, tmp_path, suffix, capsys):
    root, out = str(place / "cache"), tmp_path / f"out.{suffix}"
    for name, path in ((BOTH, out), *((each, tmp_path / f"{each}.npz") for each in BOTH.split("+"))):
        assert run(["cache", "export", str(digits_folder), str(path), "--backbone", name, "--cache", root]) == DONE
    assert f"90 rows of {1280 + 3072} numbers ({BOTH})" in capsys.readouterr().out
    found = read_images(out, ReadOptions(as_="vectors"))
    blocks = [np.load(tmp_path / f"{each}.npz")["features"] for each in BOTH.split("+")]
    assert np.array_equal(found.vectors.rows[:90], np.concatenate(blocks, axis=1))
    assert [sample.name for sample in found.samples] == [s.name for s in read_images(digits_folder).samples]
    assert found.vectors.origin == f"{out.name}, exported from efficientnet_lite0 + pixels"
    with pytest.raises(UsageError, match=r"nothing in .* says that its vectors are these"):
        Predictor.load(place / "run", head=f"{BOTH}--ridge").predict(found)


def test_a_head_on_exported_joined_features_refuses_them_in_another_order(place, digits_folder, tmp_path):
    root, other = str(place / "cache"), "pixels+efficientnet_lite0"
    files = {name: str(tmp_path / f"{i}.npz") for i, name in enumerate((BOTH, other))}
    for name, path in files.items():
        words = ["cache", "export", str(digits_folder), path, "--backbone", name, "--cache", root, "--quiet"]
        assert run(words) == DONE
    heads = ["--heads", "centroid", "--quiet", "--out", str(tmp_path / "run")]
    assert run(["classify", files[BOTH], *heads]) == DONE
    assert run(["predict", str(tmp_path / "run"), files[BOTH], "--quiet"]) == DONE
    with pytest.raises(UsageError, match="takes vectors of other columns, or in another order"):
        Predictor.load(tmp_path / "run").predict(read_images(files[other]))


def test_what_is_missing_is_named_by_its_backbone(place, digits_folder, filled_cache, capsys, tmp_path):
    words = ["classify", str(digits_folder), "--cache", str(filled_cache), "--out", str(tmp_path / "run")]
    assert run([*words, "--backbone", BOTH]) != DONE
    said = capsys.readouterr().err
    assert "Not every image has features of pixels in" in said
    assert "--backbone pixels" in said.splitlines()[-1]
    for name in ("pixels+", "pixels+pixels", "+"):
        assert run([*words, "--backbone", name]) == USAGE
        assert "name two or more different ones with + between them" in capsys.readouterr().err
    assert run(["finetune", str(digits_folder), "--from", str(place / "run"), "--head", f"{BOTH}--ridge"]) == USAGE
    assert "takes the features of 2 backbones side by side" in capsys.readouterr().err


def test_a_record_of_joined_features_is_checked(place):
    from featurecache.classify.heads.saving.folder import load_meta

    (folder,) = (place / "run" / "heads").glob(f"{BOTH}--ridge")
    meta = load_meta(folder)
    assert [part.request.backbone for part in head_meta(folder, meta).parts] == ["efficientnet_lite0", "pixels"]
    for scale in (0.0, -1.0):
        parts = [{**meta["parts"][0], "scale": scale}, meta["parts"][1]]
        with pytest.raises(PipelineError, match=r"'meta.parts\[0\].scale' is .* and has to be above 0"):
            head_meta(folder, {**meta, "parts": parts})
    with pytest.raises(PipelineError, match=r"'meta.parts' have other lengths than 'meta.spec'"):
        head_meta(folder, {**meta, "parts": meta["parts"][:1]})
