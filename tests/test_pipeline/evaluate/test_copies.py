"""One picture saved twice is found whatever happened to its file; two pictures that are merely alike are not."""

import numpy as np
import pytest
from PIL import Image

from featurecache.evaluate.copies import find_near_copies, is_near_copy, near_pairs, same_bytes
from featurecache.extract.images.read import read_images


def blurred_noise(seed: int, side: int = 96) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def pictures(tmp_path):
    for seed in range(12):
        blurred_noise(seed).save(tmp_path / f"{seed:02d}.png")
    return tmp_path


def found_in(folder) -> tuple[set[frozenset[str]], set[frozenset[str]]]:
    samples = read_images(folder).samples
    digests = np.random.default_rng(0).integers(0, 256, (len(samples), 32), dtype=np.uint8)
    equal, near = find_near_copies(samples, digests)
    names = [sample.name for sample in samples]
    return (
        {frozenset(names[i] for i in each.rows) for each in equal},
        {frozenset((names[each.first], names[each.second])) for each in near},
    )


def test_different_pictures_are_no_copies(pictures):
    assert found_in(pictures) == (set(), set())


@pytest.mark.parametrize("change", ["jpeg", "half", "darker", "grey"])
def test_a_picture_saved_anew_is_a_near_copy(pictures, change):
    image = Image.open(pictures / "03.png")
    if change == "jpeg":
        image.save(pictures / "new.jpg", quality=80)
    elif change == "half":
        image.resize((48, 48), Image.Resampling.BOX).save(pictures / "new.png")
    elif change == "darker":
        image.point(lambda value: value // 2).save(pictures / "new.png")
    else:
        image.convert("L").save(pictures / "new.png")
    equal, near = found_in(pictures)
    assert equal == set()
    (pair,) = near
    assert "03.png" in pair
    assert pair - {"03.png"} <= {"new.png", "new.jpg"}


@pytest.mark.parametrize("side", [16, 32, 64])
def test_digits_of_8_pixels_that_were_enlarged_are_near_copies(tmp_path, digit_images, side):
    folder = tmp_path / "digits" / "0"
    folder.mkdir(parents=True)
    for i, image in enumerate(digit_images[0][:12]):
        small = Image.fromarray(image)
        small.save(folder / f"{i}.png")
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=85)
    near = found_in(tmp_path / "digits")[1]
    assert {frozenset({f"0/{i}.png", f"0/{i}.jpg"}) for i in range(12)} <= near


def test_the_same_pixels_in_another_file_are_an_exact_copy(pictures):
    Image.open(pictures / "03.png").save(pictures / "new.bmp")
    assert found_in(pictures) == ({frozenset({"03.png", "new.bmp"})}, set())


def test_plain_surfaces_are_like_nothing(tmp_path):
    for grey in (10, 100, 200):
        Image.new("L", (20, 20), grey).save(tmp_path / f"{grey}.png")
    assert found_in(tmp_path) == (set(), set())


def test_samples_of_one_digest_are_one_image_in_several_files():
    digests = np.zeros((4, 32), dtype=np.uint8)
    digests[1] = 7
    (copies,) = same_bytes(digests)
    assert (copies.rows, copies.same) == ((0, 2, 3), "bytes")


def test_a_near_pair_must_be_nearer_than_its_neighbours():
    distance = np.array([0.0005, 0.005, 0.005, 0.02])
    scale = np.array([0.001, 0.05, 0.01, 1.0])
    assert is_near_copy(distance, scale).tolist() == [True, True, False, False]


def test_near_pairs_are_named_once_and_the_closest_first():
    random = np.random.default_rng(0)
    rows = random.normal(size=(20, 256))
    rows[5] = rows[4] + 0.01 * random.normal(size=256)
    rows[9] = rows[8] + 0.05 * random.normal(size=256)
    units = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    assert [pair[:2] for pair in near_pairs(units)] == [(4, 5), (8, 9)]


def test_a_file_that_went_meanwhile_is_like_nothing(pictures):
    samples = read_images(pictures).samples
    (pictures / "00.png").unlink()
    equal, near = find_near_copies(samples, np.random.default_rng(0).integers(0, 256, (12, 32), dtype=np.uint8))
    assert (equal, near) == ([], [])
