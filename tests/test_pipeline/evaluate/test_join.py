"""Labels, splits and cached vectors meet by digest, and nothing is guessed."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from featurecache.base.errors import PipelineError
from featurecache.cli.declare import picked
from featurecache.cli.options import FeatureOptions
from featurecache.evaluate.join import label_samples, look_up
from featurecache.extract.cache.memo import Memo
from featurecache.extract.images.read import read_images
from featurecache.extract.job.request import FeatureRequest
from featurecache.runs.command_lines import extract_commands


def test_row_i_of_x_is_the_vector_of_sample_i(digits_folder, filled_cache):
    with Memo(filled_cache) as memo:
        labelled = label_samples(read_images(digits_folder), memo, seed=0)
        (features,) = look_up(labelled, [FeatureRequest()], cache_root=filled_cache, memo=memo)
    module = FeatureRequest().load()
    from featurecache.extract.images.decode import decode_image
    from featurecache.extract.images.transform import apply_transform

    for i in (0, 41, 89):
        pixels = apply_transform(decode_image(Path(labelled.samples[i].path).read_bytes()), module.transform)
        alone = module.module(pixels[None]).numpy()[0]
        assert np.linalg.norm(features.X[i] - alone) < 1e-5 * np.linalg.norm(alone)
        assert labelled.classes[labelled.y[i]] == labelled.samples[i].label


def test_copies_of_an_image_stand_in_one_split(images):
    for path in list((images / "0").iterdir()):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    with Memo(images, read_only=True) as memo:
        labelled = label_samples(read_images(images), memo, seed=0)
    split_of = {s.name: split for s, split in zip(labelled.samples, labelled.splits, strict=True)}
    originals = [name for name in split_of if name.startswith("0/") and "copy-" not in name]
    assert len(originals) == 30
    assert all(split_of[name] == split_of[f"0/copy-{name[2:]}"] for name in originals)


def test_relabelling_needs_no_new_features(images, filled_cache):
    (images / "0").rename(images / "nought")
    with Memo(filled_cache) as memo:
        labelled = label_samples(read_images(images), memo, seed=0)
        (features,) = look_up(labelled, [FeatureRequest()], cache_root=filled_cache, memo=memo)
    assert labelled.classes == ["1", "2", "nought"]
    assert features.X.shape == (90, 1280)


def test_classes_that_are_numbers_are_in_their_order_and_splits_stay_as_they_were(images):
    with Memo(images, read_only=True) as memo:
        before = label_samples(read_images(images), memo, seed=0)
        for name, number in (("0", "10"), ("1", "9"), ("2", "100")):
            (images / name).rename(images / number)
        labelled = label_samples(read_images(images), memo, seed=0)
    assert labelled.classes == ["9", "10", "100"]
    assert [labelled.classes[code] for code in labelled.y] == [sample.label for sample in labelled.samples]
    splits = [dict(zip(map(bytes, each.digests), each.splits, strict=True)) for each in (before, labelled)]
    assert splits[0] == splits[1]


def test_a_fine_tune_of_an_earlier_run_takes_its_order_of_classes(images):
    from featurecache.finetune.source_run import _in_order

    with Memo(images, read_only=True) as memo:
        labelled = _in_order(label_samples(read_images(images), memo, seed=0), ["2", "0", "1"])
    assert labelled.classes == ["2", "0", "1"]
    assert [labelled.classes[code] for code in labelled.y] == [sample.label for sample in labelled.samples]


def test_images_without_a_label_are_left_out_and_counted(images):
    lines = ["path,label"]
    for label in "012":
        lines += [
            f"{label}/{path.name},{label if i else ''}" for i, path in enumerate(sorted((images / label).iterdir()))
        ]
    (images / "list.csv").write_text("\n".join(lines))
    with Memo(images, read_only=True) as memo:
        labelled = label_samples(read_images(images / "list.csv"), memo, seed=0)
    assert len(labelled.samples) == 87
    assert labelled.notes == ("3 images without a label are left out.",)


def test_a_group_never_stands_on_both_sides(images):
    lines = ["path,label,group"]
    for label in "012":
        for i, path in enumerate(sorted((images / label).iterdir())):
            lines.append(f"{label}/{path.name},{label},{label}-{i // 3}")
    (images / "list.csv").write_text("\n".join(lines))
    with Memo(images, read_only=True) as memo:
        labelled = label_samples(read_images(images / "list.csv"), memo, seed=0)
    splits: dict[str | None, set[str]] = {}
    for sample, split in zip(labelled.samples, labelled.splits, strict=True):
        splits.setdefault(sample.group, set()).add(str(split))
    assert len(splits) == 30
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}


def test_no_label_at_all_says_how_to_give_some(tmp_path, digits_folder):
    for path in (digits_folder / "0").iterdir():
        shutil.copy(path, tmp_path / path.name)
    with Memo(tmp_path, read_only=True) as memo, pytest.raises(PipelineError, match="one folder per class"):
        label_samples(read_images(tmp_path), memo, seed=0)


def test_the_command_to_run_is_one_that_is_taken_and_gives_the_same_request(parsed):
    request = FeatureRequest("vgg16", "my weights.pth", "features.22", "gem", "bf16", "float16")
    (command,) = extract_commands("my photos", [request], Path("some cache"))
    words = shlex.split(command)
    values = parsed(words[1:])
    assert (values["images"], values["cache"]) == ("my photos", Path("some cache"))
    assert picked(FeatureOptions, values).requests() == (request,)


def refused_cache(images: Path, cache: Path, *options: str) -> None:
    from featurecache.cli.main import run

    assert run(["extract", str(images), "--cache", str(cache), "--engine", "torch", "--quiet", *options]) == 3


def test_a_limit_that_refused_images_for_one_cache_takes_none_from_another(images, cache):
    request = FeatureRequest()
    refused_cache(images, cache, "--pooling", "max", "--max-pixels", "10")
    with Memo(cache) as memo:
        labelled = label_samples(read_images(images), memo, seed=0, requests=[request], cache_root=cache)
        assert len(labelled.samples) == 90
        with pytest.raises(PipelineError, match=r"All 90 images in .* are refused, the first, '0/"):
            label_samples(read_images(images), memo, seed=0, requests=[FeatureRequest(pooling="max")], cache_root=cache)


def test_an_image_whose_features_were_refused_is_left_out_of_these_features_only(images, cache):
    request = FeatureRequest()
    with Memo(cache) as memo:
        everything = label_samples(read_images(images), memo, seed=0, requests=[request], cache_root=cache)
        (known,) = look_up(everything, [request], cache_root=cache, memo=memo)
        memo.remember_refusals({(bytes(everything.digests[0]), known.resolved.spec.key): "overflow"})
        again = label_samples(read_images(images), memo, seed=0, requests=[request], cache_root=cache)
    assert len(again.samples) == 90, "a row in the cache counts more than a refusal"
