"""What is as large as the features is where those are: in memory, or in a file without a name."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, call

import numpy as np
import pytest

import featurecache.classify.arrays.memmap
import featurecache.classify.arrays.softmax
import featurecache.classify.evaluation.calibration
import featurecache.classify.heads.shared.votes
import featurecache.classify.solvers.class_moments
import featurecache.classify.solvers.kernels
import featurecache.classify.solvers.neighbours
from featurecache.base.errors import HeadFailed
from featurecache.classify.arrays.memmap import array_stored_like, file_array, mapped, random_access
from featurecache.classify.heads.knn import KNNHead
from featurecache.classify.heads.linear_svm import LinearSVMHead
from featurecache.classify.heads.rbf_svm import RBFSVMHead
from featurecache.classify.selection.holdouts import fold_rounds, val_round
from featurecache.classify.selection.sweep import sweep

WORTH_A_FILE = (1024, 256)  # float32: 1 MiB


@pytest.fixture
def in_file(tmp_path):
    (tmp_path / "features").mkdir()
    X = file_array(tmp_path / "features", (600, 8), "float32")
    X[:] = np.random.default_rng(0).normal(size=X.shape)
    return X


def test_the_file_has_no_name_and_leaves_nothing_behind(tmp_path, in_file):
    assert Path(in_file.filename).parent == tmp_path / "features"
    assert list((tmp_path / "features").iterdir()) == []


@pytest.mark.parametrize("view", [lambda X: X, lambda X: X[5:50], np.asarray, lambda X: np.asarray(X)[::2].T])
def test_a_view_of_a_mapped_array_is_known_as_one(in_file, view):
    assert mapped(view(in_file)).filename == in_file.filename
    for copy in (np.array(in_file), in_file.copy(), in_file.astype("float64"), np.empty_like(in_file)):
        assert mapped(view(copy)) is None


def test_beside_an_array_in_a_file_is_a_file_in_its_folder(in_file, monkeypatch):
    folders = []
    monkeypatch.setattr(featurecache.classify.arrays.memmap, "file_array", lambda folder, *what: folders.append(folder))
    array_stored_like(np.asarray(in_file), WORTH_A_FILE, "float32")
    assert folders == [Path(in_file.filename).parent]


def test_what_is_small_is_in_memory_and_so_is_what_is_beside_memory(in_file):
    for X, shape in ((in_file, (1023, 256)), (np.zeros((2, 2)), WORTH_A_FILE)):
        found = array_stored_like(X, shape, "float32")
        assert (type(found), found.shape, found.dtype) == (np.ndarray, shape, np.float32)


def test_where_the_folder_is_gone_the_file_is_where_temporary_files_are(in_file):
    Path(in_file.filename).parent.rmdir()
    found = array_stored_like(in_file, WORTH_A_FILE, "float32")
    assert Path(found.filename).parent == Path(tempfile.gettempdir())


def test_no_room_is_one_sentence(in_file, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(HeadFailed) as refused:
        array_stored_like(in_file, (1_000_000, 1000), "float32")
    folder = Path(in_file.filename).parent
    assert str(refused.value) == (
        f"a temporary file of 4.00 GB cannot be written to '{folder}': "
        "No space left on device. Free space there, or keep the features in memory."
    )


def test_a_system_that_cannot_reserve_room_has_files_as_well(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    found = file_array(tmp_path, (3, 4), "float32")
    found[:] = 1.0
    assert found.sum() == 12.0
    with pytest.raises(OSError, match="No space left"):
        file_array(tmp_path, (10**9, 10**6), "float32")


def peak(go):
    tracemalloc.start()
    try:
        return go(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n_classes", [3, 51])
def test_kernel_columns_are_in_memory_only_where_the_features_are(tmp_path, n_classes):
    """With few classes by the squared hinge, with many by squares."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, n_classes, 20_000)
    X = (rng.normal(size=(20_000, 6)) + rng.normal(size=(n_classes, 6))[y]).astype(np.float32)
    in_file = file_array(tmp_path, X.shape, X.dtype)
    in_file[:] = X
    fit = lambda rows: RBFSVMHead(n_landmarks=400, random_state=0).fit(rows, y)  # noqa: E731
    (of_file, little), (of_memory, much) = peak(lambda: fit(in_file)), peak(lambda: fit(X))
    assert of_file.method_ == "nystroem"
    np.testing.assert_allclose(of_file.predict_proba(X), of_memory.predict_proba(X), rtol=1e-4)
    assert much - little > 0.9 * 20_000 * 400 * 4
    # All columns in float64, as a product of both dtypes would make them, would be twice as much again.
    assert little < 2.0 * 20_000 * 400 * 4


# What a sweep holds beside the features: 300 rows by 2 x 200 neighbours and their numbers; three matrices of 201 x 201.
LARGE = {
    "knn": ([KNNHead(k=k) for k in (5, 200)], 300 * 200 * 8),  # four bytes for the row, four for its similarity
    "linear_svm": ([LinearSVMHead(C=C) for C in (1e-4, 1e-2)], 3 * 201**2 * 4),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_a_sweep_holds_is_in_memory_only_where_the_features_are_and_changes_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setattr(featurecache.classify.arrays.memmap, "WORTH_A_FILE", 1)
    heads, size = LARGE[name]
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 1500)
    X = (rng.normal(size=(1500, 200)) + rng.normal(size=(3, 200))[y]).astype(np.float32)
    in_file = file_array(tmp_path, X.shape, X.dtype)
    in_file[:] = X
    sweep = lambda rows: list(type(heads[0]).try_grid(heads, rows, y, val_round(1200, 1500)))  # noqa: E731
    sweep(X)  # imports what it needs
    (of_file, little), (of_memory, much) = peak(lambda: sweep(in_file)), peak(lambda: sweep(X))
    assert much - little > 0.7 * size  # the most that the one holds is at another time
    for (setting, _, one), (other_setting, _, other) in zip(of_file, of_memory, strict=True):
        assert setting == other_setting
        assert (one.sums.loss, one.sums.squares) == (other.sums.loss, other.sums.squares)


def test_a_sweep_of_knn_over_folds_holds_half_of_features_that_are_in_a_file(tmp_path, monkeypatch):
    """With blocks as small beside these features as the usual ones are beside features that fill the memory."""
    monkeypatch.setattr(featurecache.classify.arrays.memmap, "WORTH_A_FILE", 1)
    for module, name, value in (
        (featurecache.classify.solvers.neighbours, "SQUARE", (64, 128)),
        (featurecache.classify.solvers.neighbours, "FLAT", (64, 128)),
        (featurecache.classify.heads.shared.votes, "BLOCK", 64),
        (featurecache.classify.evaluation.calibration, "BLOCK_NUMBERS", 2**12),
        (featurecache.classify.arrays.softmax, "BLOCK_NUMBERS", 2**12),
        (featurecache.classify.solvers.class_moments, "BLOCK", 64),
    ):
        monkeypatch.setattr(module, name, value)
    rng = np.random.default_rng(2)
    y = rng.integers(0, 60, 1200)
    X = (rng.normal(size=(1200, 500)) + 0.3 * rng.normal(size=(60, 500))[y]).astype(np.float32)
    in_file = file_array(tmp_path, X.shape, X.dtype)
    in_file[:] = X
    rounds = fold_rounds(np.arange(1200) % 3)
    choose = lambda rows: sweep("knn", rows, y, rounds=rounds, calibrate=True)  # noqa: E731
    choose(X[:, :2])  # imports what it needs
    of_file, held = peak(lambda: choose(in_file))
    assert mapped(of_file.head.rows_) is not None
    # The probabilities of all settings would be eight times the features.
    assert held < 0.5 * X.nbytes < of_file.grid_size * 1200 * 60 * 4 / 7
    of_memory = choose(X)
    assert (of_file.params, of_file.val) == (of_memory.params, of_memory.val)


def test_rows_here_and_there_are_read_alone_until_that_is_over(monkeypatch, in_file):
    file = Mock()
    monkeypatch.setattr(
        featurecache.classify.arrays.memmap, "mapped", lambda X: SimpleNamespace(base=file) if X is in_file else None
    )
    with pytest.raises(KeyboardInterrupt), random_access(in_file):
        assert file.madvise.call_args_list == [call(mmap.MADV_RANDOM)]
        raise KeyboardInterrupt
    assert file.madvise.call_args_list == [call(mmap.MADV_RANDOM), call(mmap.MADV_NORMAL)]
    with random_access(np.zeros((2, 2))):
        pass
    assert file.madvise.call_count == 2


def test_rows_here_and_there_are_read_of_a_real_file_and_of_a_system_without_such_advice(monkeypatch, in_file):
    with random_access(in_file[5:50]):
        assert (in_file[[7, 3]] == np.array(in_file)[[7, 3]]).all()
    monkeypatch.setattr(featurecache.classify.arrays.memmap, "mapped", lambda X: SimpleNamespace(base=object()))
    with random_access(in_file):
        pass
