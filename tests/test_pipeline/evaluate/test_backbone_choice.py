"""A subsample of every class is measured, the candidates are ranked by it, and the advice follows from the numbers."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurecache.base.errors import PipelineError
from featurecache.cli.main import DONE, FAILED, REFUSED, USAGE, run
from featurecache.evaluate import backbone_choice as story
from featurecache.evaluate.backbone_choice import Candidate, advise, subsample
from featurecache.extract.cache.store import read_spec
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.images.read import read_images

BEST = Candidate("large", 512, 0.5, 5.0, 0.95, 0.9, -1.0, -0.9, 10.0, 7000.0, 200_000_000, 1.0, 1.0)
CHEAP = replace(
    BEST, backbone="small", ridge=0.94, images_per_second=100.0, full_seconds=700.0, rank=2.0, p_vs_best=0.4
)


@pytest.fixture(scope="module")
def selected(tmp_path_factory, digits_folder) -> tuple[dict, Path]:
    cache = tmp_path_factory.mktemp("select") / "cache"
    out = tmp_path_factory.mktemp("select") / "out.json"
    command = ["select", str(digits_folder), "--backbone", "efficientnet_lite0,pixels", "--sample", "45"]
    import contextlib

    with out.open("w") as file, contextlib.redirect_stdout(file):
        assert run([*command, "--cache", str(cache), "--json", "--quiet", "--engine", "torch"]) == DONE
    return json.loads(out.read_text()), cache


def test_every_measure_is_there(selected):
    found, _ = selected
    assert (found["n_images"], found["n_sample"]) == (90, 45)
    by_name = {each["backbone"]: each for each in found["candidates"]}
    assert set(by_name) == {"efficientnet_lite0", "pixels"}
    lite, pixels = by_name["efficientnet_lite0"], by_name["pixels"]
    assert (lite["dim"], pixels["dim"]) == (1280, 3072)
    assert lite["leep"] < 0
    assert lite["nce"] < 0
    assert pixels["leep"] is None
    assert all(0.6 < each[name] <= 1 for each in by_name.values() for name in ("ridge", "knn"))
    # Seconds are rounded to a tenth, images per second to a hundredth.
    assert lite["full_seconds"] == pytest.approx(90 / lite["images_per_second"], abs=0.06, rel=0.01)
    assert lite["full_bytes"] == 90 * (4 * 1280 + 256)


def test_the_order_is_the_mean_rank_over_what_all_have(selected):
    found, _ = selected
    ranks = [each["rank"] for each in found["candidates"]]
    assert ranks == sorted(ranks)
    first, second = found["candidates"]
    measures = ("logme", "h_score", "ridge", "knn")
    assert first["rank"] == sum(1 + (second[name] > first[name]) for name in measures) / 4
    assert first["p_vs_best"] == 1.0
    assert found["advice"].startswith(f"Recommended: {first['backbone']}; 90 images take ")


def test_what_was_extracted_is_kept(selected, digits_folder, capsys):
    _, cache = selected
    assert run(["extract", str(digits_folder), "--cache", str(cache), "--backbone", "pixels", "--quiet"]) == DONE
    assert "45 already there, 45 extracted" in capsys.readouterr().out


def test_the_text_shows_a_row_for_each_and_the_advice(selected, digits_folder, capsys):
    _, cache = selected
    command = ["select", str(digits_folder), "--backbone", "pixels", "--sample", "45", "--cache", str(cache)]
    assert run([*command, "--quiet"]) == DONE
    out = capsys.readouterr().out
    assert "measured on 45 of 90 images" in out
    assert "Recommended: pixels; 90 images take" in out


def test_all_are_measured_at_the_size_that_is_asked_for(digits_folder, tmp_path, capsys):
    words = ["--sample", "45", "--size", "64", "--cache", str(tmp_path), "--engine", "torch", "--json", "--quiet"]
    assert run(["select", str(digits_folder), "--backbone", "pixels,efficientnet_lite0", *words]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert (found["size"], len(found["candidates"])) == (64, 2)
    assert {read_spec(folder).transform.crop for folder in tmp_path.glob("*-*/")} == {64}
    words.remove("--json")
    assert run(["select", str(digits_folder), "--backbone", "pixels", *words]) == DONE
    assert "measured on 45 of 90 images at 64 px;" in capsys.readouterr().out


def test_an_image_that_one_backbone_refuses_counts_for_none(digits_folder, tmp_path, monkeypatch, capsys):
    extract = story.extract_features

    def refusing(sample, requests, *rest, **named):
        report = extract(sample, requests, *rest, **named)
        if requests[0].backbone != "pixels":
            return report
        return replace(report, samples=report.samples[:7] + report.samples[8:], digests=np.delete(report.digests, 7, 0))

    monkeypatch.setattr(story, "extract_features", refusing)
    command = ["select", str(digits_folder), "--backbone", "pixels,efficientnet_lite0", "--sample", "45", "--json"]
    assert run([*command, "--size", "64", "--cache", str(tmp_path / "cache"), "--engine", "torch"]) == REFUSED
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert "1 image is left out: not every backbone has features of them." in told.err
    assert found["n_sample"] == 44
    shares = [each[measure] for each in found["candidates"] for measure in ("ridge", "knn")]
    assert [44 * share for share in shares] == pytest.approx([round(44 * share) for share in shares])


def test_where_backbones_have_too_few_images_in_common_nothing_is_ranked(digits_folder, tmp_path, monkeypatch, capsys):
    extract = story.extract_features

    def refusing(sample, requests, *rest, **named):
        report = extract(sample, requests, *rest, **named)
        return replace(report, samples=report.samples[:31], digests=report.digests[:31])

    monkeypatch.setattr(story, "extract_features", refusing)
    command = ["select", str(digits_folder), "--backbone", "pixels", "--sample", "90", "--quiet"]
    assert run([*command, "--cache", str(tmp_path / "cache")]) == FAILED
    assert "Of 90 images 59 are refused, and 1 classes of two images are left" in capsys.readouterr().err


def of_classes(**sizes: int) -> Manifest:
    samples = [Sample(f"{label}/{i}", f"{label}/{i}", label) for label, n in sizes.items() for i in range(n)]
    return Manifest(Path("images"), tuple(samples))


def test_the_subsample_holds_every_class_in_its_share_and_two_at_least():
    chosen, left_out = subsample(of_classes(a=800, b=196, c=4), 100, seed=0)
    assert left_out == {}
    assert Counter(sample.label for sample in chosen.samples) == {"a": 80, "b": 20, "c": 2}


def test_the_subsample_is_that_of_its_seed():
    manifest = of_classes(a=50, b=50)
    assert subsample(manifest, 20, seed=1) == subsample(manifest, 20, seed=1)
    assert subsample(manifest, 20, seed=1) != subsample(manifest, 20, seed=2)


def test_a_class_of_one_image_is_left_out():
    chosen, left_out = subsample(of_classes(a=5, b=5, c=1), 11, seed=0)
    assert {sample.label for sample in chosen.samples} == {"a", "b"}
    assert left_out == {"c": 1}
    chosen, left_out = subsample(of_classes(a=5, b=5, c=3, d=1), 11, seed=0, least=4)
    assert {sample.label for sample in chosen.samples} == {"a", "b"}
    assert left_out == {"c": 3, "d": 1}


def test_one_class_cannot_rank_anything():
    with pytest.raises(PipelineError, match="has 1 classes with two labelled images or more"):
        subsample(of_classes(a=5, b=1), 6, seed=0)


def test_the_advice_names_a_cheaper_one_that_is_not_shown_to_be_worse():
    assert advise([BEST, CHEAP], 70_000) == (
        "Recommended: large; 70,000 images take 1 h 57 min and 200.0 MB. small is not shown to be worse "
        "(ridge 94.0 % against 95.0 %, p = 0.4) and takes 12 min and 200.0 MB."
    )


@pytest.mark.parametrize("change", [{"p_vs_best": 0.01}, {"images_per_second": 11.0}])
def test_the_advice_names_no_cheaper_one_that_is_worse_or_hardly_cheaper(change):
    assert "small" not in advise([BEST, replace(CHEAP, **change)], 70_000)


def test_an_unknown_backbone_is_a_usage_error(digits_folder, tmp_path, capsys):
    command = ["select", str(digits_folder), "--backbone", "resnet5", "--cache", str(tmp_path / "cache")]
    assert run([*command, "--quiet"]) == USAGE
    assert "There is no backbone 'resnet5'" in capsys.readouterr().err


def test_a_flat_folder_has_nothing_to_rank_by(digits_folder, tmp_path, capsys):
    assert read_images(digits_folder / "0").classes == []
    command = ["select", str(digits_folder / "0"), "--backbone", "pixels", "--cache", str(tmp_path / "cache")]
    assert run([*command, "--quiet"]) == FAILED
    assert "has 0 classes with two labelled images or more" in capsys.readouterr().err
