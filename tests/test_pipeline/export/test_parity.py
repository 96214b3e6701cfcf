"""A difference of a file, or of a program that reads images, is found in the first stage that has it, and named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from featurecache.base.progress import Silent
from featurecache.export.assembly import assemble
from featurecache.export.exported_file import ExportedFile
from featurecache.export.odd_images import write_odd_images
from featurecache.export.parity import Comparison, decoded, read_plainly
from featurecache.export.references import references_of, vectors_of
from featurecache.export.saved_heads import head_part, networks_of, specs_of
from featurecache.predictor import Predictor


class Case:
    """A predictor, its answers to odd images, and models of it that differ in one value."""

    def __init__(self, run, folder) -> None:
        self.predictor = Predictor.load(run, head="logistic")
        self.references = references_of(self.predictor, write_odd_images(folder / "odd"), Silent())
        self.specs = specs_of(self.predictor)
        self.networks = networks_of(self.predictor, lambda _: None)

    def fault(self, *, load=None, network=None, **transform) -> str:
        """Return what is found of a model with another transform or network, or of images that are read by `load`."""
        planted = [replace(spec, transform=replace(spec.transform, **transform)) for spec in self.specs]
        networks = {spec.key: network or self.networks[self.specs[0].key] for spec in planted}
        part = replace(head_part(self.predictor), keys=(planted[0].key,))
        model = assemble([part], planted, networks, n_classes=3, is_fixed=False)
        comparison = Comparison(
            ExportedFile(model.SerializeToString()), self.specs, is_fixed=False, load=load,
            vectors=lambda path: vectors_of(self.predictor, path),
        )  # fmt: skip
        return comparison.fault(comparison.agreement(self.references, report=lambda *_: None))


@pytest.fixture(scope="module")
def case(pixels_run, tmp_path_factory) -> Case:
    return Case(pixels_run, tmp_path_factory.mktemp("parity"))


def test_a_file_without_a_difference_has_no_fault(case):
    assert case.fault() == ""
    assert len(case.references) > 15


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        ({"interpolation": "bicubic"}, "resized bicubic in place of bilinear"),
        ({"interpolation": "nearest"}, "resized nearest in place of bilinear"),
        ({"fit": "squash"}, "fitted by squash in place of crop"),
    ],
    ids=["bicubic", "nearest", "squash"],
)
def test_another_transform_is_named(case, planted, named):
    found = case.fault(**planted)
    assert "The first difference is in the resized pixels of '" in found
    assert named in found


def without_exif(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    ("load", "named"),
    [
        (lambda path, _: read_plainly(path)[:, :, ::-1], "red and blue are exchanged (BGR in place of RGB)"),
        (lambda path, spec: decoded(path, spec)[:, ::-1], "the image is mirrored"),
        (decoded, ""),
    ],
    ids=["BGR", "mirrored", "own"],
)
def test_another_way_of_reading_is_named(case, load, named):
    found = case.fault(load=lambda path: load(path, case.specs[0]))
    assert named in found
    assert bool(found) == bool(named)


def test_an_orientation_that_is_not_applied_is_named(case):
    only = [each for each in case.references if each.name in ("orientation-6.jpg", "plain.jpg")]
    whole, case.references = case.references, only
    try:
        found = case.fault(load=without_exif)
    finally:
        case.references = whole
    assert "1 of 2 images are read to other pixels than predict's." in found
    assert "the orientation in the EXIF data is not applied" in found


def test_another_network_is_named_by_its_features(case):
    (network,) = case.networks.values()
    changed = type(network)()
    changed.CopyFrom(network)
    last = changed.graph.output[0].name
    for node in changed.graph.node:
        node.output[:] = [f"{name}_before" if name == last else name for name in node.output]
    from onnx import helper, numpy_helper

    changed.graph.initializer.append(numpy_helper.from_array(np.float32(1.5), "half_more"))
    changed.graph.node.append(helper.make_node("Mul", [f"{last}_before", "half_more"], [last]))
    assert "The first difference is in the features of pixels of '" in case.fault(network=changed)
