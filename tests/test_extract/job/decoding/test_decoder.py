"""Small JPEGs of one size are decoded together, to the pixels and refusals of each alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch  # noqa: F401 (with which images are resized together)

from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.read_ahead import LEFT, ReadFile
from featurecache.extract.images.sources import read_hashed
from featurecache.extract.job.decoding.batch import Batch, kinds_of
from featurecache.extract.job.decoding.decoder import Decoder, Item

SPECS = {
    "bicubic": TransformSpec(20, 16, "bicubic", True, (), ()),
    "bilinear": TransformSpec(12, 12, "bilinear", True, (), ()),
    "without antialias": TransformSpec(9, 9, "bilinear", False, (), ()),
    "nearest": TransformSpec(8, 8, "nearest", False, (), ()),
    "larger crop": TransformSpec(12, 20, "bicubic", True, (), ()),
}
MAX_PIXELS = 400


def group(spec: TransformSpec, misses: Callable[[bytes], bool] = lambda digest: True) -> SimpleNamespace:
    return SimpleNamespace(at_least=None, levels="full", geometry=spec, view=None, misses=misses)


def read(items: list[Item]) -> list[ReadFile]:
    return [ReadFile(read_hashed(sample.path), None, 0.0) for _, sample in items]


def pixels(decoded: list, batch: Batch, groups: list) -> dict[tuple[str, int], np.ndarray]:
    return {
        (item.name, groups.index(of)): batch.rows(kind)[row].copy()
        for row, item in enumerate(decoded)
        for of, kind in item.images
    }


@pytest.mark.parametrize("spec", SPECS)
def test_images_that_are_decoded_together_have_the_pixels_and_the_refusals_of_each_alone(items, spec):
    some = {digest for digest, _ in items[::2]}
    groups = [group(SPECS[spec]), group(SPECS["bilinear"], lambda digest: digest in some)]
    alone, together = Decoder(groups, MAX_PIXELS), Decoder(groups, MAX_PIXELS)
    one, other = Batch(len(items)), Batch(len(items))
    each = [alone.decode(item, one, row) for row, item in enumerate(items)]
    part = together.decode_part(items, read(items), other)
    assert [item.name for item in part] == [sample.name for _, sample in items]
    assert [(item.digest, item.refusal) for item in part] == [(item.digest, item.refusal) for item in each]
    assert [item.name for item in part if item.refusal] == ["large", "cut", "closed", "none", "empty"]
    expected, found = pixels(each, one, groups), pixels(part, other, groups)
    assert expected.keys() == found.keys()
    for place, image in expected.items():
        np.testing.assert_array_equal(found[place], image, str(place))


def test_only_what_is_not_alike_is_decoded_alone(items, monkeypatch):
    alone, decode = [], Decoder.decode
    monkeypatch.setattr(
        Decoder, "decode", lambda self, item, *given: (alone.append(item[1].name), decode(self, item, *given))[1]
    )
    Decoder([group(SPECS["bicubic"])], MAX_PIXELS).decode_part(items, read(items), Batch(len(items)))
    assert alone == ["turned", "cmyk", "line", "long", "large", "cut", "closed", "png", "none", "empty"]


def test_what_fails_for_all_is_tried_one_by_one(items, monkeypatch):
    def scarce(*_):
        raise MemoryError

    monkeypatch.setattr("featurecache.extract.images.transform.fit_together", scarce)
    groups, batch = [group(SPECS["bicubic"])], Batch(len(items))
    part = Decoder(groups, MAX_PIXELS).decode_part(items, read(items), batch)
    assert sum(item.refusal is None for item in part) == len(items) - 5
    assert len(pixels(part, batch, groups)) == len(items) - 5


class Taking:
    """Claims that count what is taken, and refuse one image."""

    def __init__(self, refused: bytes) -> None:
        self.refused, self.taken, self.noted = refused, [], []

    def lacking(self, digests: list[bytes]) -> list[list]:
        return [[] for _ in digests]

    def take(self, digest: bytes, path: str, lacking: object = None) -> bool:
        if digest == self.refused:
            raise OSError(5, "Input/output error")
        self.taken.append(digest)
        return self.taken.count(digest) == 1

    @contextmanager
    def noting(self) -> AbstractContextManager[Callable[[bytes], None]]:
        yield self.noted.append


def test_a_content_is_claimed_once_also_if_its_image_is_decoded_alone_in_the_end(items):
    """Files whose digest is not known: each is claimed, a second copy is skipped, and none is claimed twice."""
    unknown = [(None, sample) for _, sample in [*items, items[0], items[8]]]
    claims = Taking(refused=items[1][0])
    part = Decoder([group(SPECS["bicubic"])], MAX_PIXELS, claims).decode_part(
        unknown, read(unknown), Batch(len(unknown))
    )
    assert [item.digest for item in part if item.name != "1"] == [
        d for d, _ in [*items, items[0], items[8]] if d != items[1][0]
    ]
    assert sorted(claims.taken) == sorted(digest for digest, _ in [*items, items[0], items[8]] if digest != items[1][0])
    assert [item.is_skipped for item in part] == [False] * len(items) + [True, True]
    assert part[1].refusal == "cannot be read: Input/output error"
    assert not part[1].is_lasting
    assert all(item.file[0] == sample.path for item, (_, sample) in zip(part, unknown, strict=True))
    assert set(claims.noted) == {digest for digest, _ in items} - {items[1][0]}


def test_what_is_left_to_be_opened_is_opened(items):
    groups, batch = [group(SPECS["bicubic"])], Batch(len(items))
    part = Decoder(groups, MAX_PIXELS).decode_part(items, [LEFT] * len(items), batch)
    assert sum(item.refusal is None for item in part) == len(items) - 5


def test_what_the_check_raises_ends_the_decoding(items):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Decoder([group(SPECS["bicubic"])], MAX_PIXELS).decode_part(
            items, [LEFT] * len(items), Batch(len(items)), check=stop
        )


def test_rows_that_are_not_one_after_another_are_written_to_their_places():
    (_, kind), batch = kinds_of([group(SPECS["nearest"])])[0], Batch(4)
    batch.rows(kind)[:] = 0
    batch.write(kind, [1, 3], np.full((2, 1, 8, 8), 7, dtype=np.uint8))
    assert batch.rows(kind).max(axis=(1, 2, 3)).tolist() == [0, 7, 0, 7]
