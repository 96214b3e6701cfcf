"""Rows of a cache for programs: blocks, and a data set of PyTorch that workers open for themselves."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from featurecache import FeatureCache
from featurecache.base.errors import CacheError, RequestError
from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.images.vectors.origin import plain_spec

SPEC = plain_spec("few", 3)


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> FeatureCache:
    """25 rows in three shards: the vector of row i is (i, i, i), and its digest begins with i."""
    cache = FeatureCache(tmp_path_factory.mktemp("cache"), SPEC)
    for rows in np.split(np.arange(25), [10, 18]):
        digests = np.zeros((len(rows), 32), np.uint8)
        digests[:, 0] = rows
        X = np.repeat(rows[:, None], 3, axis=1).astype(np.float32)
        cache.add(ShardRows(X, digests, [str(i) for i in rows]), {"created": "2020", "decode_revision": 1})
    cache.refresh()
    return cache


def test_blocks_are_all_rows_in_the_order_of_the_disk(filled):
    blocks = list(filled.blocks(7))
    assert [len(X) for X, _ in blocks] == [7, 7, 7, 4]
    X, digests = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    assert X[:, 0].tolist() == digests[:, 0].tolist() == list(range(25))
    assert np.array_equal(digests, filled.digests())
    assert [len(X) for X, _ in filled.blocks()] == [25]


def test_a_cache_without_rows_has_no_blocks(tmp_path):
    empty = FeatureCache(tmp_path, SPEC)
    assert list(empty.blocks()) == []
    assert len(empty.as_dataset()) == 0
    with pytest.raises(RequestError, match="number of rows is 0 and has to be a whole number of 1 or more"):
        empty.blocks(0)


def test_a_data_set_has_vectors_with_digests_or_labels(filled):
    rows = filled.as_dataset()
    assert len(rows) == 25
    vector, digest = rows[4]
    assert vector.tolist() == [4, 4, 4]
    assert bytes.fromhex(digest)[0] == 4
    assert rows[-1][0].tolist() == [24, 24, 24]
    with pytest.raises(IndexError):
        rows[25]
    some = filled.as_dataset(filled.digests()[::-5], np.arange(5))
    assert [(vector.tolist()[0], label) for vector, label in some] == [(24, 0), (19, 1), (14, 2), (9, 3), (4, 4)]
    copied = pickle.loads(pickle.dumps(some))  # noqa: S301 (made one line above)
    assert copied._opened is None
    assert copied[1][0].tolist() == [19, 19, 19]


def test_what_does_not_fit_is_refused(filled):
    with pytest.raises(RequestError, match="There are 2 labels for 25 digests"):
        filled.as_dataset(y=[1, 2])
    with pytest.raises(RequestError, match=r"digests are uint8 \(32,\)"):
        filled.as_dataset(np.zeros(32, np.uint8))
    with pytest.raises(CacheError, match="1 of 1 images have no features"):
        filled.as_dataset(np.full((1, 32), 255, np.uint8))


LABELS = {
    "names": ["a", "b"],
    "of two types": [1, "a"],
    "pairs": [(1, "a"), (2, "b")],
    "of two lengths": [[1], [2, 3]],
    "none": [None, None],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_come_back_as_they_were_given(filled, labels):
    for given in (labels, tuple(labels), iter(labels)):
        rows = filled.as_dataset(filled.digests()[:2], given)
        assert [label for _, label in rows] == labels
        assert [type(label) for _, label in rows] in ([type(label) for label in labels], [np.str_] * 2)


@pytest.mark.parametrize("labels", ["ab", b"ab", {"a": 1, "b": 2}, {1, 2}, 5, np.array(5)], ids=repr)
def test_labels_in_no_order_are_refused(filled, labels):
    with pytest.raises(RequestError, match="have to be a list or an array, one for each row"):
        filled.as_dataset(filled.digests()[:2], labels)
    with pytest.raises(RequestError, match="The digests are a list and have to be an array"):
        filled.as_dataset([bytes(32)])


def loaded(filled, **options) -> list[tuple[float, int]]:
    _ = filled.as_dataset()[0]  # a cache that is open here stays this process's
    rows = filled.as_dataset(y=np.arange(25) * 10)
    _ = rows[0]
    found = DataLoader(rows, batch_size=4, **options)
    return [pair for X, y in found for pair in zip(X[:, 0].tolist(), y.tolist(), strict=True)]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_loader_gives_every_row_once(filled, n_workers):
    if n_workers and "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    options = {"num_workers": n_workers, "multiprocessing_context": "fork"} if n_workers else {}
    assert loaded(filled, **options) == [(i, 10 * i) for i in range(25)]


@pytest.mark.slow
def test_spawned_workers_give_the_same(filled):
    assert loaded(filled, num_workers=2, multiprocessing_context="spawn") == [(i, 10 * i) for i in range(25)]
