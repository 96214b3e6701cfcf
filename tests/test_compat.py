"""The parts of `make compat` that need no second environment: its image files, and the comparison of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compat import (
    ENGINES,
    compare_pixels,
    compare_vectors,
    hash_pixels,
    judge,
    oldest_requirements,
)
from compat_images import KINDS, make_images
from compat_measure import ABOUT, VARIANTS, measure_pixels

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
SHAPES = ((12, 20), (1, 1), (9, 7))


def small_images(**options) -> dict[str, bytes]:
    """One image of every kind, and the damaged ones among them."""
    return dict(make_images(len(KINDS), shapes=SHAPES, **options))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for name, data in small_images().items():
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def measured(images):
    vectors = {f"vectors/{engine}": np.ones((3, 4), np.float32) for engine in ENGINES}
    about = '{"torch": "2", "torchvision": "0", "capability": "AVX2"}'
    return {**measure_pixels(sorted(images.iterdir())), **vectors, ABOUT: np.array(about)}


def test_the_same_seed_makes_the_same_files(images):
    files = {path.name: path.read_bytes() for path in images.iterdir()}
    assert small_images() == files
    assert small_images(seed=20) != files


def test_every_kind_is_measured_in_every_variant_and_only_damaged_images_are_refused(images, measured):
    names = {path.name for path in images.iterdir()}
    assert {name[4:].split(".")[0] for name in names if "-cut" not in name} == {*KINDS}
    keys = {f"{name}/{what}" for name in names for what in ("decoded", *VARIANTS)}
    assert keys == {key for key in measured if key != ABOUT and not key.startswith("vectors")}
    refused = {key for key in keys if not measured[key].size}
    assert {key for key in refused if "range" not in key} == {
        key for key in keys if "-cut" in key and "range" not in key
    }
    assert measured["000-jpg-444.jpg/decoded"].shape == (3, *SHAPES[0])


def test_a_planted_pixel_is_found(measured):
    assert compare_pixels(measured, measured) == ([], [], 0)
    name = "004-jpg-420.jpg"
    planted = {**measured, f"{name}/bicubic": measured[f"{name}/bicubic"].copy()}
    planted[f"{name}/bicubic"][1, 100, 17] ^= 1
    assert compare_pixels(measured, planted) == ([], [name], 1)
    assert hash_pixels(measured) == hash_pixels(dict(reversed(measured.items()))) != hash_pixels(planted)
    cells, failures = judge(measured, planted)
    assert cells[4:] == ["0", "1", "1", "0.0e+00", "0.0e+00"]
    assert failures == [f"1 image resized and cropped to other pixels: {name}"]


def test_an_image_that_only_one_refuses_or_turns_otherwise_is_a_difference(measured):
    name = "000-jpg-444.jpg"
    for other in (np.empty(0, np.uint8), measured[f"{name}/decoded"].transpose(0, 2, 1)):
        assert compare_pixels(measured, {**measured, f"{name}/decoded": other}) == ([name], [], 255)


def test_an_engine_that_does_not_run_somewhere_is_named_and_torch_has_to_run(measured):
    nothing = np.ones((0, 4), np.float32)
    cells, failures = judge(measured, {**measured, "vectors/onnxruntime": nothing})
    assert (cells[-2:], failures) == (["0.0e+00", "does not run"], [])
    without = {**measured, "vectors/onnxruntime": nothing}
    assert len(judge(without, without)[1]) == 1
    assert len(judge(measured, {**measured, "vectors/torch": nothing})[1]) == 1


@pytest.mark.parametrize("vectors", [np.full((3, 4), 1.001), np.full((3, 4), np.nan), np.ones((2, 4))])
def test_other_vectors_are_a_difference(measured, vectors):
    other = {**measured, "vectors/onnxruntime": vectors.astype(np.float32)}
    errors = compare_vectors(measured, other)
    assert errors["torch"] == 0 and not (errors["onnxruntime"] or 0.0) <= 1e-4
    assert [line.split(" differ")[0] for line in judge(measured, other)[1]] == ["vectors of onnxruntime"]


def test_the_oldest_versions_are_the_lower_bounds_of_pyproject(tmp_path):
    found = oldest_requirements(PYPROJECT)
    assert {"torch", "torchvision", "numpy", "simplejpeg"} <= {each.split("==")[0] for each in found}
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["torch"]')
    with pytest.raises(ValueError, match="'torch' has no lower bound"):
        oldest_requirements(tmp_path / "pyproject.toml")
