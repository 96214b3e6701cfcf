"""Files of vectors that could be read in two ways: the one that is meant, and nothing that is left out silently."""

from __future__ import annotations

import io
import zipfile

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from featurecache import read_images
from featurecache.base.errors import ManifestError
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.vectors.opening import holds_vectors

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def write_table(path, header, *rows):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def write_h5(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


@pytest.mark.parametrize("start", ["features_", "emb"])
def test_numbered_columns_are_in_the_order_of_their_numbers(tmp_path, start):
    options = ReadOptions(features_column=None if start == "features_" else start)
    header = ",".join(f"{start}{i}" for i in (10, 0, 9))
    found = read_images(write_table(tmp_path / "a.csv", f"{header},label", "3,1,2,x", "6,4,5,y"), options)
    assert np.asarray(found.vectors.rows).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_columns_with_names_of_their_own_are_told_apart(tmp_path):
    as_vectors = ReadOptions(as_="vectors")
    headers = ("width,height,label", "height,width,label", "Width,height,label")
    specs = [
        read_images(write_table(tmp_path / f"{i}.csv", header, "1,2,x", "3,4,y"), as_vectors).vectors.spec.network
        for i, header in enumerate(headers)
    ]
    assert specs[0] == specs[2] != specs[1]


def test_a_table_whose_paths_are_named_is_one_of_images(tmp_path):
    table = write_table(tmp_path / "a.csv", "file,feature_0,feature_1,label", "x.png,1,2,x")
    assert holds_vectors(table, ReadOptions())
    assert not holds_vectors(table, ReadOptions(path_column="file"))


def test_rows_of_equal_numbers_share_a_digest_whatever_the_sign_of_zero(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.array([[0.0, 1], [-0.0, 1]], np.float32))
    first, second = read_images(tmp_path / "a.npz").samples
    assert first.digest == second.digest


def test_other_numbers_for_the_digests_of_the_same_images_are_other_features(tmp_path):
    digests = np.arange(4 * 32, dtype=np.uint8).reshape(4, 32)
    keys = set()
    for scale in (1, 2):
        np.savez(tmp_path / "a.npz", features=X * scale, digests=digests)
        keys.add(read_images(tmp_path / "a.npz").vectors.spec.key)
    assert len(keys) == 2


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_texts_that_are_classes_are_names_and_no_places(tmp_path, suffix):
    path, labels, classes = tmp_path / f"a.{suffix}", ["2", "1", "2", "1"], ["1", "2"]
    if suffix == "npz":
        np.savez(path, features=X, labels=labels, classes=classes)
    else:
        write_h5(path, features=X, labels=labels, classes=classes)
    assert [sample.label for sample in read_images(path).samples] == labels


NO_LISTS = {"a matrix": np.eye(2), "texts in rows": np.array([["a", "b"], ["c", "d"]], "S1"), "one text": b"a,b"}


@pytest.mark.parametrize("classes", NO_LISTS)
@pytest.mark.parametrize("place", ["attribute", "data set", "npz"])
def test_classes_that_are_no_list_are_remarked_on(tmp_path, place, classes):
    path, labels, found = tmp_path / "a.h5", np.arange(4) % 2, NO_LISTS[classes]
    if place == "npz":
        path = path.with_suffix(".npz")
        np.savez(path, features=X, labels=labels, classes=found)
    else:
        write_h5(path, features=X, labels=labels, **({"classes": found} if place == "data set" else {}))
    if place == "attribute":
        with h5py.File(path, "a") as file:
            file.attrs["classes"] = found
    images = read_images(path)
    assert [sample.label for sample in images.samples] == ["0", "1", "0", "1"]
    assert images.remarks == (
        f"The 'classes' of '{path.name}' are no list of names, so its classes are called by the numbers of their "
        "labels.",
    )


@pytest.mark.parametrize("value", [np.ones((2, 3)), np.ones(3), h5py.Empty("f4"), np.zeros((1, 1, 1)), 5, b"\xff"])
def test_attributes_that_are_no_texts_say_nothing_of_the_origin(tmp_path, value):
    path = write_h5(tmp_path / "a.h5", features=X, labels=[b"a", b"b", b"a", b"b"])
    with h5py.File(path, "a") as file:
        file.attrs["spec"] = file.attrs["weights"] = file.attrs["specs"] = value
    assert read_images(path).vectors.origin == "a.h5"
    np.savez(tmp_path / "a.npz", features=X, weights=np.array([["x", "y"]]), spec=np.array(["x", "y"]))
    assert read_images(tmp_path / "a.npz").vectors.origin == "a.npz"


TWICE = {
    "features_0,features_1,features_1,label": "features_1",
    "width,height,height,label": "height",
    "features,features,label": "features",
    "features,Features,label": "features",
    "features_0,features_1,label,label": "label",
}


@pytest.mark.parametrize("header", TWICE)
def test_two_columns_of_a_name_are_refused(tmp_path, header):
    rows = [",".join("x" if name == "label" else "1" for name in header.split(",")) for _ in range(2)]
    with pytest.raises(ManifestError, match=rf"has (two|2) columns '{TWICE[header]}'.*Give each its own name\.$"):
        read_images(write_table(tmp_path / "a.csv", header, *rows), ReadOptions(as_="vectors"))


def test_two_columns_of_a_name_that_are_not_used_are_fine(tmp_path):
    table = write_table(tmp_path / "a.csv", "features_0,features_1,note,note,label", "1,2,p,q,x", "4,5,p,q,y")
    assert np.asarray(read_images(table).vectors.rows).tolist() == [[1, 2], [4, 5]]


def test_two_columns_of_a_name_in_parquet_are_refused(tmp_path):
    columns = [pyarrow.array(values) for values in ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0], ["a", "b"])]
    table = pyarrow.Table.from_arrays(columns, names=["features_0", "features_1", "features_1", "label"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ManifestError, match=r"has 2 columns 'features_1'.*Give each its own name\.$"):
        read_images(tmp_path / "a.parquet")


def test_texts_of_no_length_are_not_made_of_nothing(tmp_path):
    header = b"{'descr': '<U0', 'fortran_order': False, 'shape': (999999999999,), }"
    vectors = io.BytesIO()
    np.save(vectors, X)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        archive.writestr("features.npy", vectors.getvalue())
    with pytest.raises(ManifestError, match=r"its array 'labels.npy' has texts without any length"):
        read_images(tmp_path / "a.npz")


@pytest.fixture
def folder(tmp_path):
    """Two classes of two files each."""
    for i, name in enumerate(("a/1.h5", "a/2.h5", "b/1.h5", "b/2.h5")):
        write_h5(tmp_path / "slides" / name, features=X + i)
    return tmp_path / "slides"


def test_what_is_in_a_folder_of_vectors_besides_is_counted(folder, tmp_path):
    (folder / "a" / "notes.txt").write_text("")
    (folder / "a" / ".hidden.h5").write_text("")
    Image.new("L", (2, 2)).save(folder / "b" / "thumbnail.png")
    (folder / "back").symlink_to(folder)
    (tmp_path / "c").mkdir()
    write_h5(tmp_path / "c" / "1.h5", features=X + 9)
    (folder / "c").symlink_to(tmp_path / "c")
    found = read_images(folder, ReadOptions(as_="vectors"))
    assert [sample.name for sample in found.samples] == ["a/1.h5", "a/2.h5", "b/1.h5", "b/2.h5", "c/1.h5"]
    reasons = {reason for reason, _ in found.left_out.counts}
    assert reasons >= {"no_image", "hidden", "link_back", "image_next_to_vectors"}
    assert [each.name for each in found.left_out.missed] == ["b/thumbnail.png"]


def test_a_pipe_is_not_waited_for(folder):
    import os

    os.mkfifo(folder / "b" / "3.h5")
    (missed,) = read_images(folder, ReadOptions(as_="vectors")).left_out.missed
    assert (missed.name, missed.code) == ("b/3.h5", "refused")
    assert missed.reason.startswith("is not an ordinary file")


def test_a_folder_that_cannot_be_listed_is_named(folder, monkeypatch):
    import os

    listed = os.scandir
    closed = str(folder / "b")

    def scandir(place):
        if str(place).rstrip(os.sep) == closed:
            raise PermissionError(13, "Permission denied")
        return listed(place)

    monkeypatch.setattr(os, "scandir", scandir)
    found = read_images(folder, ReadOptions(as_="vectors"))
    assert [(each.name, each.code) for each in found.left_out.missed] == [("b", "closed_folder")]


def test_a_folder_of_images_stays_one_whatever_lies_next_to_them(tmp_path):
    many, unnamed, linked, cache = (tmp_path / name for name in ("many", "unnamed", "linked", "cache"))
    for folder in (many, unnamed, linked):
        write_h5(folder / "0.h5", features=X)
    for i in range(1, 150):
        (many / f"{i}.h5").write_bytes(b"")
    (many / "class").mkdir()
    Image.new("L", (2, 2)).save(many / "class" / "1.png")
    Image.new("L", (2, 2)).save(unnamed / "1", format="png")
    (linked / "class").symlink_to(many / "class")
    write_h5(cache / "pixels-0123" / "shards" / "1.h5", features=X)
    (cache / "pixels-0123" / "spec.json").write_text("{}")
    assert not any(holds_vectors(folder, ReadOptions()) for folder in (many, unnamed, linked, cache))
