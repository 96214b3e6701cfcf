"""Files of vectors as samples: every format gives the same, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import hashlib
import zipfile

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from featurecache import read_arrays, read_images
from featurecache.base.errors import CacheError, ManifestError, RequestError, UnfitOption
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.vectors import rows as rows_module

N, DIM = 60, 5
X = np.arange(N * DIM, dtype=np.float32).reshape(N, DIM) / 7
Y = np.arange(N) % 3
NAMES = [f"class {code}" for code in Y]
SPLITS = ["train"] * 30 + ["val"] * 10 + ["test"] * 20
GROUPS = [f"g{i // 2}" for i in range(N)]
PATHS = [f"sounds/{i}.wav" for i in range(N)]
WIDE = {f"features_{i}": X[:, i] for i in range(DIM)}
REST = {"label": NAMES, "split": SPLITS, "group": GROUPS, "path": PATHS}


def write_npz(path, /, *, pack=False, **arrays):
    (np.savez_compressed if pack else np.savez)(path, **arrays)


def write_h5(path, /, *, classes=None, how=None, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            is_text = np.asarray(values).dtype.kind in "US"
            kind = h5py.string_dtype() if is_text else None
            file.create_dataset(name, data=list(values) if is_text else values, dtype=kind, **(how or {}))
        if classes is not None:
            file.attrs["classes"] = classes


def write_parquet(path, X=X, /, **columns):
    table = columns if X is None else {"features": list(np.asarray(X)), **columns}
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=7)


def write_csv(path, columns, *, between=","):
    lines = [between.join(columns)]
    lines += [between.join(str(cell) for cell in row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")


WRITERS = {
    "stored.npz": lambda path: write_npz(path, features=X, labels=np.array(NAMES), splits=SPLITS, groups=GROUPS,
                                         paths=PATHS),
    "packed.npz": lambda path: write_npz(path, pack=True, features=X.astype("f8"), label=NAMES, split=SPLITS,
                                         group=GROUPS, path=PATHS),
    "fortran.npz": lambda path: write_npz(path, features=np.asfortranarray(X.astype(">f8")), labels=Y, splits=SPLITS,
                                          groups=GROUPS, paths=PATHS, classes=["class 0", "class 1", "class 2"]),
    "plain.h5": lambda path: write_h5(path, features=X, labels=Y, splits=SPLITS, groups=GROUPS, paths=PATHS,
                                      classes=["class 0", "class 1", "class 2"]),
    "packed.hdf5": lambda path: write_h5(path, features=X, label=NAMES, split=SPLITS, group=GROUPS, path=PATHS,
                                         how={"chunks": True, "compression": "gzip", "shuffle": True}),
    "lists.parquet": lambda path: write_parquet(path, **REST),
    "wide.parquet": lambda path: write_parquet(path, None, **WIDE, **REST),
    "wide.csv": lambda path: write_csv(path, {**WIDE, **REST}),
    "lists.tsv": lambda path: write_csv(path, {"features": [str(row.tolist()) for row in X], **REST}, between="\t"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_samples_and_vectors(tmp_path, name):
    WRITERS[name](tmp_path / name)
    found = read_images(tmp_path / name, ReadOptions(as_="vectors") if name.startswith("wide") else None)
    assert [sample.label for sample in found.samples] == NAMES
    assert [sample.split for sample in found.samples] == SPLITS
    assert [sample.group for sample in found.samples] == GROUPS
    assert [sample.name for sample in found.samples] == PATHS
    assert (found.vectors.name, found.noun) == (f"vectors/{name.partition('.')[0]}", "row")
    digests = found.vectors.digests
    np.testing.assert_array_equal(found.vectors.lookup(digests[::-1]), X[::-1])
    assert [sample.digest for sample in found.samples] == [hashlib.sha256(row.tobytes()).digest() for row in X]


def test_a_memory_map_is_read_in_blocks_and_rows_are_found_by_their_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "BLOCK_NUMBERS", 4 * DIM)
    write_npz(tmp_path / "some.npz", features=np.concatenate([X, X[:1]]))
    vectors = read_images(tmp_path / "some.npz").vectors
    assert isinstance(vectors.rows, np.memmap)
    assert bytes(vectors.digests[0]) == bytes(vectors.digests[N])
    wanted = [59, 3, 3, 17, 60]
    np.testing.assert_array_equal(vectors.lookup(vectors.digests[wanted]), np.concatenate([X, X[:1]])[wanted])
    assert vectors.missing(np.zeros((1, 32), np.uint8)).tolist() == [True]
    with pytest.raises(CacheError, match=r"1 of 1 rows are not among the vectors of some\.npz"):
        vectors.lookup(np.zeros((1, 32), np.uint8))


def test_packed_rows_beyond_the_memory_are_in_a_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "HELD_BYTES", 100)
    write_npz(tmp_path / "some.npz", pack=True, features=X, labels=Y)
    vectors = read_images(tmp_path / "some.npz").vectors
    assert isinstance(vectors.rows, np.memmap)
    np.testing.assert_array_equal(vectors.lookup(vectors.digests), X)


def test_columns_are_named_as_those_of_tables_are(tmp_path):
    columns = {"id": range(N), **{f"pixel_{i}": X[:, i] for i in range(DIM)}, "target": Y, "patient": GROUPS}
    write_csv(tmp_path / "some.csv", columns)
    options = ReadOptions(features_column="pixel_", label_column="target", group_column="patient")
    found = read_images(tmp_path / "some.csv", options)
    np.testing.assert_array_equal(found.vectors.lookup(found.vectors.digests), X)
    assert [sample.label for sample in found.samples] == [str(code) for code in Y]
    assert found.samples[7].group == "g3"
    assert found.samples[7].name == "some[7]"
    assert "The vectors are 5 columns, 'pixel_0' to 'pixel_4'." in found.remarks
    everything = read_images(tmp_path / "some.csv", ReadOptions(as_="vectors", label_column="target"))
    assert everything.vectors.spec.feature_dim == DIM + 1  # the column `id` is a number too
    assert any("'id' is among the vectors and looks like the number of each row" in each for each in everything.remarks)
    named = ReadOptions(as_="vectors", label_column="target", path_column="id")
    found = read_images(tmp_path / "some.csv", named)
    np.testing.assert_array_equal(found.vectors.rows, X)
    assert not any("'id'" in each for each in found.remarks)


def test_whole_numbers_that_repeat_are_no_number_of_each_row(tmp_path):
    write_parquet(tmp_path / "some.parquet", None, row=Y, width=X[:, 0], label=NAMES)
    found = read_images(tmp_path / "some.parquet", ReadOptions(as_="vectors"))
    assert found.vectors.spec.feature_dim == 2
    assert not any("'row' is among" in each for each in found.remarks)


def test_numbered_columns_are_vectors_unless_they_stand_next_to_paths(tmp_path):
    write_csv(tmp_path / "some.csv", {**WIDE, "label": NAMES})
    np.testing.assert_array_equal(read_images(tmp_path / "some.csv").vectors.rows, X)
    (tmp_path / "1.png").touch()
    write_csv(tmp_path / "some.csv", {**WIDE, "path": ["1.png"] * N})
    assert read_images(tmp_path / "some.csv").vectors is None


def test_a_table_with_images_and_vectors_is_what_the_user_says(tmp_path):
    write_parquet(tmp_path / "some.parquet", **{**REST, "path": ["1.png"] * N})
    (tmp_path / "1.png").touch()
    assert read_images(tmp_path / "some.parquet").vectors is not None
    found = read_images(tmp_path / "some.parquet", ReadOptions(as_="manifest"))
    assert found.vectors is None
    assert len(found) == N
    with pytest.raises(RequestError, match=r"There is no way to read a file 'images': choose from vectors, manifest"):
        ReadOptions(as_="images")


def test_digests_of_images_are_kept_where_a_table_has_them(tmp_path):
    digests = [hashlib.sha256(str(i // 2).encode()).hexdigest() for i in range(N)]
    write_parquet(tmp_path / "some.parquet", np.repeat(X[::2], 2, axis=0), **REST, digest=digests)
    found = read_images(tmp_path / "some.parquet")
    assert [sample.digest.hex() for sample in found.samples] == digests
    write_parquet(tmp_path / "other.parquet", **REST, digest=digests)
    with pytest.raises(ManifestError, match="one digest and different vectors in the rows 1 and 2"):
        read_images(tmp_path / "other.parquet")


def wrong_sizes(path):
    write_npz(path, features=X, labels=Y[:-1])


def cut_lists(path):
    write_csv(path, {"features": ["[0.1 0.2 ... 0.9]"] * 3, "label": [0, 1, 0]})


def with_link(path):
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["features"] = X
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink("other.h5", "/features")
        file["labels"] = Y


def virtual(path):
    with_link(path)
    layout = h5py.VirtualLayout(X.shape, "f4")
    layout[:] = h5py.VirtualSource("other.h5", "features", X.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("features", layout)


def empty_promise(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (1 << 40, 1 << 10), "f4", chunks=(1, 1 << 10))


def lying_zip(path):
    write_npz(path, features=X, labels=Y)
    data = path.read_bytes().replace(b"'shape': (60, 5)", b"'shape': (90, 5)")
    path.write_bytes(data)


def torn_zip(path):
    write_npz(path, features=X, labels=Y)
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(bytes(data))


def with_nan(X):
    X = X.copy()
    X[16, 2] = np.nan
    return X


REFUSED = {
    "nan.npz": (lambda path: write_npz(path, features=with_nan(X), labels=Y),
                r"has 1 row of 60 with numbers that are NaN, infinite or too large for float32, the first is row 17 "
                r"\(index 16\)"),
    "large.h5": (lambda path: write_h5(path, features=X.astype("f8") * 1e300, labels=Y), "has 60 rows of 60 with"),
    "null.parquet": (lambda path: write_parquet(path, None, features=[[1.0, None], [2.0, 3.0]], label=["a", "b"]),
                     "has 1 row of 2 with numbers that are NaN"),
    "gap.csv": (lambda path: write_csv(path, {**WIDE, "features_2": ["", *X[1:, 2]], "label": NAMES}),
                "has 1 row of 60 with"),
    "objects.npz": (lambda path: write_npz(path, features=np.array([[1, 2], [3, None]], dtype=object), labels=[0, 1]),
                    r"has in 'features' Python objects \(pickle\), which are never read.*np.stack"),
    "labels.npz": (lambda path: write_npz(path, features=X, labels=Y.astype(object)),
                   r"has in 'labels' Python objects \(pickle\), which are never read.*Save texts .*astype\(str\)"),
    "lengths.npz": (wrong_sizes, "has 60 rows in 'features' and 59 in 'labels'. Give each row one of each."),
    "ragged.parquet": (lambda path: write_parquet(path, None, features=[[1.0, 2.0], [3.0]], label=["a", "b"]),
                       "has 1 numbers in row 2 and 2 in row 1"),
    "null-row.parquet": (lambda path: write_parquet(path, None, features=[[1.0, 2.0], None], label=["a", "b"]),
                         "has 0 numbers in row 2 and 2 in row 1"),
    "ragged.csv": (lambda path: write_csv(path, {"features": ["[1 2 3]", "[1 2]"], "label": "ab"}),
                   "has 2 numbers in row 2 and 3 in row 1"),
    "cut.csv": (cut_lists, r"has '\.\.\.' among the numbers of row 1. The program that wrote the table cut its lists"),
    "flat.npz": (lambda path: write_npz(path, features=X[0], labels=Y), r"numbers of the shape \(5,\)"),
    "three.h5": (lambda path: write_h5(path, features=X[None], labels=Y), r"numbers of the shape \(1, 60, 5\)"),
    "texts.h5": (lambda path: write_h5(path, features=PATHS, labels=Y), "has in 'features' Python objects|no numbers"),
    "complex.npz": (lambda path: write_npz(path, features=X.astype("c8")), "no numbers but complex64"),
    "none.npz": (lambda path: write_npz(path, x=Y, y=Y), r"has no column or data set 'features' \(found: x, y\)"),
    "two.npz": (lambda path: write_npz(path, a=X, b=X), "has 2 sets of vectors: a, b. Name one"),
    "empty.npz": (lambda path: write_npz(path, features=X[:0]), "no rows. Give it one"),
    "code.npz": (lambda path: write_npz(path, features=X, labels=Y, classes=["a", "b"]),
                 "has the label 2 in row 3 and 2 classes"),
    "shares.npz": (lambda path: write_npz(path, features=X, labels=np.eye(3)[Y]), "3 values for each row.*argmax"),
    "split.npz": (lambda path: write_npz(path, features=X, labels=Y, splits=["x"] * N), "has the split 'x'"),
    "link.h5": (with_link, "has no column or data set 'features'"),
    "virtual.h5": (virtual, "lies in other files, which are not followed"),
    "promise.h5": (empty_promise, "only 0 bytes are in the file"),
    "text.npz": (lambda path: path.write_text("no archive"), "cannot be read as .npz"),
    "text.h5": (lambda path: path.write_text("no HDF5"), "cannot be read as HDF5"),
    "lying.npz": (lying_zip, "cannot be read as .npz"),
    "torn.npz": (torn_zip, "cannot be read as .npz"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(tmp_path, name):
    write, said = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(ManifestError, match=said) as refused:
        read_images(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_labels_that_are_all_missing_are_said(tmp_path):
    write_npz(tmp_path / "some.npz", features=X, labels=np.full(N, -1), classes=["a"])
    found = read_images(tmp_path / "some.npz")
    assert {sample.label for sample in found.samples} == {None}
    assert found.no_labels.startswith("All values of its column of labels are missing")


def test_options_that_mean_nothing_are_refused(tmp_path):
    write_npz(tmp_path / "some.npz", features=X, labels=Y)
    for options, said in (
        (ReadOptions(layout="class"), "--layout is about images"),
        (ReadOptions(root="there"), "--root is about images"),
        (ReadOptions(label_column="target"), r"no column or data set 'target' \(found: features, labels\)"),
        (ReadOptions(features_column="x"), "is called 'x' or begins so"),
    ):
        with pytest.raises(UnfitOption, match=said):
            read_images(tmp_path / "some.npz", options)
    (tmp_path / "1.png").touch()
    with pytest.raises(UnfitOption, match=r"is not read as vectors: name a file .npz, .h5, .hdf5 or a table"):
        read_images(tmp_path / "1.png", ReadOptions(as_="vectors"))


def test_arrays_of_a_program_are_samples_too():
    found = read_arrays(X, Y, splits=SPLITS, groups=GROUPS, name="mine")
    assert [sample.label for sample in found.samples] == [str(code) for code in Y]
    assert (found.samples[3].name, found.vectors.name, found.name) == ("mine[3]", "vectors/mine", "mine")
    np.testing.assert_array_equal(found.vectors.lookup(found.vectors.digests), X)
    with pytest.raises(ManifestError, match=r"There are 60 rows in X and 3 labels\. Give each row one of each\."):
        read_arrays(X, Y[:3])
    with pytest.raises(ManifestError, match="with numbers that are NaN"):
        read_arrays(with_nan(X), Y)


def slide(path, values, name="features"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = values
        file["coords"] = np.zeros((len(values), 2))


@pytest.fixture
def slides(tmp_path):
    """Six slides of two classes with several vectors each, in both shapes that TRIDENT and CLAM write."""
    for i in range(6):
        values = X[i * 4 : i * 4 + 2 + i]
        slide(tmp_path / "slides" / "ab"[i % 2] / f"slide {i}.h5", values[None] if i > 3 else values)
    return tmp_path / "slides"


def test_a_folder_of_slides_is_the_mean_of_each(slides):
    (slides / "notes.txt").touch()
    found = read_images(slides)
    assert [sample.name for sample in found.samples] == [f"{'ab'[i % 2]}/slide {i}.h5" for i in (0, 2, 4, 1, 3, 5)]
    assert [sample.label for sample in found.samples] == ["a"] * 3 + ["b"] * 3
    means = [X[i * 4 : i * 4 + 2 + i].mean(axis=0) for i in (0, 2, 4, 1, 3, 5)]
    np.testing.assert_allclose(found.vectors.lookup(found.vectors.digests), means, rtol=1e-6)
    assert "Each sample is the mean of the vectors in its file: 6 files, 27 vectors." in found.remarks
    assert found.vectors.origin == "slides, mean of several each"


def test_slides_that_cannot_be_read_cost_themselves_alone(slides):
    slide(slides / "a" / "empty.h5", np.empty((0, DIM), np.float32))
    slide(slides / "a" / "nan.h5", with_nan(X))
    slide(slides / "b" / "other.h5", X, name="embeddings")
    found = read_images(slides)
    assert len(found) == 6
    assert [each.name for each in found.left_out.missed] == ["a/empty.h5", "a/nan.h5", "b/other.h5"]
    slide(slides / "b" / "wide.h5", np.ones((3, 9)))
    with pytest.raises(ManifestError, match=r"'b/wide.h5' has vectors of 9 numbers and 'a/slide 0.h5' of 5"):
        read_images(slides)


def test_a_table_names_slides_with_or_without_their_suffix(slides):
    rows = {"slide_id": [f"{'ab'[i % 2]}/slide {i}" for i in range(6)], "label": "xyxyxy", "case_id": "112233"}
    write_csv(slides / "list.csv", rows)
    found = read_images(slides / "list.csv", ReadOptions(path_column="slide_id", group_column="case_id"))
    assert [sample.label for sample in found.samples] == list("xyxyxy")
    assert [sample.group for sample in found.samples] == list("112233")
    np.testing.assert_allclose(found.vectors.rows[0], X[:2].mean(axis=0), rtol=1e-6)


def test_a_folder_with_an_image_is_one_of_images(slides, tmp_path):
    (slides / "a" / "1.png").touch()
    assert read_images(slides).vectors is None
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ManifestError, match="holds no images"):
        read_images(tmp_path / "nothing")
    with pytest.raises(ManifestError, match=r"holds no file .h5 or .hdf5 with vectors"):
        read_images(tmp_path / "nothing", ReadOptions(as_="vectors"))


def test_a_packed_array_cannot_promise_more_than_it_has(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = np.lib.format.header_data_from_array_1_0(np.empty((0, 5), np.float32)) | {"shape": (1 << 40, 5)}
        with archive.open("features.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(1000))
    with pytest.raises(ManifestError, match="has another size than it says"):
        read_images(tmp_path / "bomb.npz")
