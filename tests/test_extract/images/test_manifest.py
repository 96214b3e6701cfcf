"""Folders and tables become the samples that a person would expect of them."""

from __future__ import annotations

import os
import re

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featurecache.base.errors import ManifestError, NoSuchImages
from featurecache.base.text import printable
from featurecache.extract.images.decoding.pillow_formats import READ, readable_formats
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.images.folders.split_names import SPLIT_NAMES
from featurecache.extract.images.formats import IMAGE_SUFFIXES
from featurecache.extract.images.left_out import NO_IMAGE, LeftOut
from featurecache.extract.images.manifest import MANIFEST_SUFFIXES, Manifest, Sample, merge
from featurecache.extract.images.read import read_images
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.tables.cells import MISSING, WHOLE
from featurecache.extract.images.tables.read_table import read_manifest

# What Pillow lists as readable and is no picture that it reads by itself.
NOT_STILL_PICTURES = {
    ".eps": "PostScript, drawn by Ghostscript",
    ".ps": "PostScript, drawn by Ghostscript",
    ".wmf": "a drawing, rendered by Windows alone",
    ".emf": "a drawing, rendered by Windows alone",
    ".bufr": "weather data, for a plug-in that Pillow does not have",
    ".grib": "weather data, for a plug-in that Pillow does not have",
    ".h5": "HDF5, for a plug-in that Pillow does not have",
    ".hdf": "HDF5, for a plug-in that Pillow does not have",
    ".mpeg": "a film, which is identified only",
    ".mpg": "a film, which is identified only",
}
# Read by the JPEG plug-in; Pillow registers the suffix only for saving.
READ_UNDER_ANOTHER_NAME = {".mpo"}


def make(root, *names):
    """Empty files: a scan never opens them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def facts(manifest: Manifest):
    return [(sample.name, sample.label, sample.split) for sample in manifest.samples]


def names(manifest: Manifest):
    return [sample.name for sample in manifest.samples]


def sentence(call, *arguments, error=ManifestError):
    with pytest.raises(error) as raised:
        call(*arguments)
    text = str(raised.value)
    assert text.isprintable()
    return text


def test_suffixes_are_those_that_pillow_itself_can_open():
    Image.init()
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert (readable | READ_UNDER_ANOTHER_NAME) - set(NOT_STILL_PICTURES) == IMAGE_SUFFIXES


def test_pillow_opens_the_formats_of_these_suffixes_and_no_others():
    Image.init()
    kinds = {kind for suffix, kind in Image.registered_extensions().items() if suffix in IMAGE_SUFFIXES}
    assert kinds & set(Image.OPEN) == set(READ)
    assert set(readable_formats()) == set(READ)


def test_folders_are_the_classes(tmp_path):
    make(tmp_path, "dog/2.png", "cat/1.JPG", "cat/0.png")
    manifest = scan_folder(tmp_path)
    assert facts(manifest) == [("cat/0.png", "cat", None), ("cat/1.JPG", "cat", None), ("dog/2.png", "dog", None)]
    assert manifest.classes == ["cat", "dog"]
    assert manifest.notes == ()
    assert len(manifest) == 3
    assert [sample.path for sample in manifest.samples] == [str(tmp_path / name) for name in names(manifest)]


def test_a_flat_folder_has_no_labels(tmp_path):
    make(tmp_path, "b.png", "a.webp")
    manifest = scan_folder(tmp_path)
    assert facts(manifest) == [("a.webp", None, None), ("b.png", None, None)]
    assert manifest.classes == []


@pytest.mark.parametrize("written", [*SPLIT_NAMES, *(name.upper() for name in SPLIT_NAMES), "Train", "Validation"])
def test_every_spelling_of_a_split_above_the_classes_is_understood(tmp_path, written):
    split = SPLIT_NAMES[written.lower()]
    make(tmp_path, f"{written}/cat/0.png", f"{'test' if split == 'train' else 'train'}/cat/1.png")
    assert (f"{written}/cat/0.png", "cat", split) in facts(scan_folder(tmp_path))


def test_train_val_and_test_stand_above_the_same_classes(tmp_path):
    make(tmp_path, "train/cat/0.png", "val/cat/1.png", "valid/dog/2.png", "test/dog/3.png")
    manifest = scan_folder(tmp_path)
    assert [sample.split for sample in manifest.samples] == ["test", "train", "val", "val"]
    assert manifest.classes == ["cat", "dog"]


def test_a_test_split_without_class_folders_keeps_its_images_unlabelled(tmp_path):
    make(tmp_path, "train/cat/0.png", "train/dog/1.png", "test/2.png")
    assert ("test/2.png", None, "test") in facts(scan_folder(tmp_path))


def test_val_and_test_without_train_are_class_names_where_other_folders_stand_beside_them(tmp_path):
    make(tmp_path, "test/0.png", "exam/1.png")
    assert facts(scan_folder(tmp_path)) == [("exam/1.png", "exam", None), ("test/0.png", "test", None)]


def test_train_beside_other_folders_is_refused_by_their_names(tmp_path):
    make(tmp_path, "train/cat/0.png", "raw\n/1.png", "val/cat/2.png")
    text = sentence(scan_folder, tmp_path)
    assert text.startswith(f"'{tmp_path}' can be read in two ways: it has 'train', 'val' and next to it 'raw\\n'. ")


def test_folders_inside_a_class_belong_to_it(tmp_path):
    make(tmp_path, "cat/2020/may/0.png", "cat/1.png", "dog/train/2.png")
    assert facts(scan_folder(tmp_path)) == [
        ("cat/1.png", "cat", None),
        ("cat/2020/may/0.png", "cat", None),
        ("dog/train/2.png", "dog", None),
    ]


def test_images_beside_the_class_folders_are_left_out_with_a_note(tmp_path):
    make(tmp_path, "cat/0.png", "stray.png", "stray2.png")
    manifest = scan_folder(tmp_path)
    assert names(manifest) == ["cat/0.png"]
    assert manifest.notes == (
        "2 images outside the class folders are left out (2 .png). Move each into the folder of its class.",
    )
    assert [each.name for each in manifest.left_out.missed] == ["stray.png", "stray2.png"]


def test_images_beside_split_folders_without_classes_are_left_out_with_a_note(tmp_path):
    make(tmp_path, "train/0.png", "stray.png")
    manifest = scan_folder(tmp_path)
    assert facts(manifest) == [("train/0.png", None, "train")]
    assert len(manifest.notes) == 1


def test_empty_class_folders_beside_flat_images_do_not_hide_them(tmp_path):
    make(tmp_path, "0.png")
    (tmp_path / "later").mkdir()
    assert facts(scan_folder(tmp_path)) == [("0.png", None, None)]


def test_hidden_files_and_folders_and_what_is_no_image_are_left_out(tmp_path):
    make(tmp_path, "cat/0.png", "cat/._0.png", "cat/.hidden/1.png", ".git/2.png", "__MACOSX/cat/0.png")
    make(tmp_path, "cat/Thumbs.db", "cat/notes.txt", "desktop.ini", ".DS_Store")
    manifest = scan_folder(tmp_path)
    assert names(manifest) == ["cat/0.png"]
    assert manifest.notes == (
        "1 file that is no image is left out (1 .txt).",
        "4 hidden files are left out (3 .png).",
        "3 files of the operating system are left out (1 .db, 1 .ini, 1 .png).",
    )
    assert manifest.left_out.n_files == 8
    assert not manifest.left_out.missed


def test_links_to_files_and_folders_are_followed(tmp_path):
    make(tmp_path, "elsewhere/0.png", "elsewhere/one.png")
    root = make(tmp_path / "root", "cat/1.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "cat" / "linked.png").symlink_to(tmp_path / "elsewhere" / "one.png")
    assert names(scan_folder(root)) == ["cat/1.png", "cat/linked.png", "dog/0.png", "dog/one.png"]


@pytest.mark.parametrize("target", ["..", ".", "../..", "../../../root/cat/inner"])
def test_a_link_back_to_a_folder_above_is_not_followed(tmp_path, target):
    root = make(tmp_path / "root", "cat/inner/0.png", "dog/1.png")
    (root / "cat" / "inner" / "loop").symlink_to(target, target_is_directory=True)
    manifest = scan_folder(root)
    assert facts(manifest) == [("cat/inner/0.png", "cat", None), ("dog/1.png", "dog", None)]
    assert len(manifest.notes) == 1
    assert manifest.notes == ("1 link that leads back to a folder above it is left out.",)


def test_a_link_to_itself_hides_nothing_else(tmp_path):
    make(tmp_path, "cat/0.png", "cat/z.png")
    (tmp_path / "cat" / "loop").symlink_to("loop")
    (tmp_path / "cat" / "nowhere").symlink_to("not there")
    assert names(scan_folder(tmp_path)) == ["cat/0.png", "cat/z.png"]


def test_an_unreadable_folder_is_noted_and_the_rest_is_read(open_folder, closed_to_us):
    make(open_folder, "cat/0.png", "dog/1.png")
    (open_folder / "dog").chmod(0)
    with closed_to_us():
        manifest = scan_folder(open_folder)
    assert names(manifest) == ["cat/0.png"]
    assert manifest.notes == (
        "1 folder that cannot be read is left out: 'dog'. Make them readable, or move them away.",
    )
    assert manifest.unreadable == ("dog",)
    assert manifest.left_out.missed[0].reason.startswith("folder that cannot be read (Permission denied). ")


def test_a_link_into_a_closed_folder_is_unreadable_and_not_just_no_image(open_folder, closed_to_us):
    make(open_folder, "root/cat/0.png", "closed/dog/1.png")
    (open_folder / "root" / "dog").symlink_to(open_folder / "closed" / "dog")
    (open_folder / "closed").chmod(0)
    with closed_to_us():
        assert scan_folder(open_folder / "root").unreadable == ("dog",)


def test_folders_nested_deeper_than_python_calls_are_read(tmp_path):
    """Made and removed level by level, for the standard library's own ways recurse."""
    made = [tmp_path / "cat"]
    while len(made) < 1500:
        made.append(made[-1] / "d")
    for folder in made:
        os.mkdir(folder)
    try:
        for place in (made[-1], made[0]):
            (place / "0.png").touch()
        assert [name.count("/") for name in names(scan_folder(tmp_path))] == [1, 1500]
    finally:
        for place in (made[-1], made[0]):
            (place / "0.png").unlink()
        for folder in reversed(made):
            os.rmdir(folder)


def test_a_folder_that_may_not_be_entered_is_no_such_folder(open_folder, closed_to_us):
    make(open_folder, "inner/cat/0.png")
    (open_folder / "inner").chmod(0)
    with closed_to_us():
        assert "no folder or file" in sentence(read_images, open_folder / "inner" / "cat", error=NoSuchImages)


ODD_NAMES = [
    "with space",
    "new\nline",
    "quo'te\"s",
    "ta\tb",
    "back\\slash",
    "ünï",
    "\u202eright to left",
    os.fsdecode(b"\xff\xfe"),
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=printable)
def test_names_are_kept_as_they_are(tmp_path, name):
    make(tmp_path, f"{name}/{name}.png")
    (sample,) = scan_folder(tmp_path).samples
    assert sample == Sample(str(tmp_path / name / f"{name}.png"), f"{name}/{name}.png", name)
    assert os.path.exists(sample.path)


def test_the_order_is_that_of_the_bytes_of_the_names(tmp_path):
    make(
        tmp_path, "b/0.png", "B/0.png", "a b/0.png", "a/0.png", "é/0.png", "10/0.png", "9/0.png", "a/b/0.png", "a/b.png"
    )
    found = names(scan_folder(tmp_path))
    assert found == sorted(found, key=os.fsencode)
    assert len(found) == 9


def test_an_empty_folder_says_what_to_put_into_it(tmp_path):
    assert "holds no images. Put one folder per class into it" in sentence(scan_folder, tmp_path)


def test_a_folder_without_images_says_what_was_there(tmp_path):
    make(tmp_path, "cat/a.txt", "train.md")
    assert "holds no images (2 files that are not images are left out (1 .md, 1 .txt)." in sentence(
        scan_folder, tmp_path
    )


@pytest.mark.parametrize("name", ["nowhere", "x" * 5000, "new\nline", "nul\0byte", "cat/0.png/deeper"])
def test_no_such_folder_is_said_in_a_sentence(tmp_path, name):
    make(tmp_path, "cat/0.png")
    assert "There is no folder or file" in sentence(read_images, str(tmp_path / name), error=NoSuchImages)


def test_a_single_image_is_one_sample(tmp_path):
    make(tmp_path, "cat.JPEG")
    manifest = read_images(str(tmp_path / "cat.JPEG"))
    assert manifest == Manifest(tmp_path, (Sample(str(tmp_path / "cat.JPEG"), "cat.JPEG"),))


def test_what_is_neither_folder_image_nor_manifest_is_refused(tmp_path):
    make(tmp_path, "notes.md")
    assert "neither a folder, an image nor a manifest" in sentence(read_images, tmp_path / "notes.md")


@pytest.mark.parametrize("name", ["X.npy", "X.PT"])
@pytest.mark.parametrize("options", [None, ReadOptions(as_="vectors")])
def test_an_array_of_another_format_is_refused_with_how_to_save_it(tmp_path, name, options):
    make(tmp_path, name)
    found = sentence(read_images, tmp_path / name, options)
    assert "vectors are read from .npz, .h5, .parquet or .csv. Save them with np.savez('X.npz', features=X" in found


def test_folder_and_manifest_are_told_apart(tmp_path):
    make(tmp_path, "images.csv/cat/0.png", "cat/0.png")
    (tmp_path / "m.CSV").write_text("path\ncat/0.png\n")
    assert facts(read_images(tmp_path / "images.csv")) == [("cat/0.png", "cat", None)]
    assert facts(read_images(tmp_path / "m.CSV")) == [("cat/0.png", None, None)]


def test_several_data_sets_keep_their_order_and_notes():
    text = (NO_IMAGE.code, ".txt")
    first = Manifest("a", (Sample("a/1.png", "1.png"),), LeftOut({text: 1}), ("one",))
    second = Manifest("b", (Sample("b/0.png", "0.png"),), LeftOut({text: 2}), ("two",))
    together = first.samples + second.samples
    assert merge([first, second]) == Manifest("a", together, LeftOut({text: 3}), ("one", "two"))


ROWS = [
    {"path": "cat/0.png", "label": "cat", "split": "train", "group": "g1"},
    {"path": "dog/1.png", "label": "dog", "split": "VALID", "group": "g2"},
    {"path": "cat/2.png", "label": "", "split": "", "group": ""},
]
SAMPLES = [("cat/0.png", "cat", "train", "g1"), ("dog/1.png", "dog", "val", "g2"), ("cat/2.png", None, None, None)]


def write_table(path, rows):
    """The same rows in each of the formats that are read."""
    columns = list(rows[0])
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({c: [row[c] or None for row in rows] for c in columns}), path)
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        lines = [columns, *([row[c] for c in columns] for row in rows)]
        path.write_text("".join(delimiter.join(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def images(tmp_path):
    return make(tmp_path / "images", "cat/0.png", "dog/1.png", "cat/2.png")


@pytest.mark.parametrize("suffix", MANIFEST_SUFFIXES)
def test_every_kind_of_manifest_says_the_same(images, suffix):
    manifest = read_manifest(write_table(images / f"m{suffix}", ROWS))
    assert [(s.name, s.label, s.split, s.group) for s in manifest.samples] == SAMPLES
    assert [s.path for s in manifest.samples] == [str(images / row["path"]) for row in ROWS]
    assert manifest.root == images


@pytest.mark.parametrize("suffix", MANIFEST_SUFFIXES)
def test_column_names_may_be_upper_case_and_spaced_and_others_stand_beside_them(images, suffix):
    rows = [
        {" Path ": r["path"], "note": "n", "LABEL": r["label"], "Split": r["split"], "Group": r["group"]} for r in ROWS
    ]
    manifest = read_manifest(write_table(images / f"m{suffix}", rows))
    assert [(s.name, s.label, s.split, s.group) for s in manifest.samples] == SAMPLES


@pytest.mark.parametrize("suffix", MANIFEST_SUFFIXES)
def test_columns_of_any_name_can_be_named(images, suffix):
    rows = [{"File": r["path"], "class": r["label"], "Set": r["split"], "patient": r["group"]} for r in ROWS]
    options = ReadOptions(path_column="file", label_column="class", split_column="set", group_column="Patient")
    manifest = read_images(write_table(images / f"m{suffix}", rows), options)
    assert [(s.name, s.label, s.split, s.group) for s in manifest.samples] == SAMPLES
    assert manifest.options == options


@pytest.mark.parametrize("suffix", MANIFEST_SUFFIXES)
def test_the_path_column_alone_is_enough_and_the_order_of_the_rows_is_kept(images, suffix):
    rows = [{"path": "dog/1.png"}, {"path": "cat/2.png"}, {"path": "cat/0.png"}]
    assert names(read_manifest(write_table(images / f"m{suffix}", rows))) == ["dog/1.png", "cat/2.png", "cat/0.png"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_names(images):
    (images / "m.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\ncat/0.png,cat\r\n")
    assert facts(read_manifest(images / "m.csv")) == [("cat/0.png", "cat", None)]


def test_quoted_cells_may_hold_commas_and_line_breaks(images):
    make(images, "a,b\nc.png")
    (images / "m.csv").write_text('path,label\n"a,b\nc.png","x, ""y"""\n')
    assert facts(read_manifest(images / "m.csv")) == [("a,b\nc.png", 'x, "y"', None)]


def test_names_that_are_not_utf8_are_found(images):
    make(images, os.fsdecode(b"\xff.png"))
    (images / "m.csv").write_bytes(b"path\n\xff.png\n")
    (sample,) = read_manifest(images / "m.csv").samples
    assert os.path.exists(sample.path)


def test_short_and_blank_rows_and_empty_cells_behind_the_last_are_read_as_far_as_they_go(images):
    (images / "m.csv").write_text("path,label\ncat/0.png\n\n,\ncat/2.png,cat,,\n\n")
    assert facts(read_manifest(images / "m.csv")) == [("cat/0.png", None, None), ("cat/2.png", "cat", None)]


def test_numbers_in_a_parquet_file_are_labels_as_they_are_written(images):
    table = pa.table({"path": ["cat/0.png", "dog/1.png"], "label": [3, None], "bytes": [b"\xff", None]})
    pyarrow.parquet.write_table(table, images / "m.parquet")
    assert facts(read_manifest(images / "m.parquet")) == [("cat/0.png", "3", None), ("dog/1.png", None, None)]


def test_images_in_place_of_their_names_are_refused_without_showing_them(images):
    table = pa.table({"path": [(images / "cat/0.png").read_bytes(), b"\xff\0\x10"]})
    pyarrow.parquet.write_table(table, images / "m.parquet")
    said = sentence(read_manifest, images / "m.parquet")
    assert said.endswith(
        "has bytes that are no file names in its column 'path', perhaps images. Write each image to a file, and its "
        "name into the table."
    )


def test_only_the_known_columns_of_a_parquet_file_are_read(images, monkeypatch):
    table = pa.table({"path": ["cat/0.png"], "image": [{"bytes": b"x" * 1000, "path": "no"}], "when": [10**18 + 1]})
    table = table.set_column(2, "when", table["when"].cast(pa.timestamp("ns")))
    pyarrow.parquet.write_table(table, images / "m.parquet")
    read = pyarrow.parquet.ParquetFile.read
    asked = []
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile, "read", lambda file, columns: asked.append(columns) or read(file, columns)
    )
    assert names(read_manifest(images / "m.parquet")) == ["cat/0.png"]
    assert asked == [["path"]]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("m.csv", "what,label\na,b\n", "has no column 'path' (found: what, label). Its first line names the columns"),
        ("m.csv", "mean,label\n1.5,a\n", "Where its numbers are vectors, add --as vectors, or name their columns"),
        ("m.csv", "", "has no column 'path' (found: none)"),
        ("m.csv", "path,label\n", "has no rows"),
        ("m.csv", 'path\n"cat/0.png\n', "cannot be read: unexpected end of data"),
        ("m.csv", "path,label\ncat/0.png,cat\n,cat\n", "Row 2 of "),
        ("m.csv", "path,label\n   ,cat\n", "has no path"),
        ("m.csv", "path,split\ncat/0.png,second\n", "has the split 'second'. A split is train, val or test."),
        ("m.csv", "path\nno.png\nnor.png\n", "2 of the 2 files named in "),
        ("m.csv", "path\nno\x07.png\n", "are not there: 'no\\x07.png' was looked for as '/"),
        ("m.csv", "path\ncat\n", "are not there"),
        ("m.csv", "path\nnul\0byte.png\n", "are not there"),
        ("m.csv", "path\n../images.png\n", "Row 1 of "),
        ("m.csv", "path\n../outside.png\n", "lies outside the manifest's folder. Allow it with --root /"),
        ("m.csv", "path\ncat/../../outside.png\n", "lies outside the manifest's folder"),
        ("m.csv", "path\n/etc/passwd\n", "'/etc/passwd', which lies outside the manifest's folder"),
        ("m.csv", "path\n../images-too/x.png\n", "lies outside the manifest's folder"),
        ("m.parquet", "path\ncat/0.png\n", "cannot be read as Parquet"),
        ("m.parquet", "", "cannot be read as Parquet"),
    ],
)
def test_a_wrong_manifest_is_refused_in_a_sentence(images, name, text, complaint):
    make(images.parent, "outside.png", "images-too/x.png")
    (images / name).write_text(text, newline="")
    assert complaint in sentence(read_manifest, images / name)


def test_a_path_that_leaves_and_comes_back_and_an_absolute_one_inside_are_allowed(images):
    (images / "m.csv").write_text(f"path\n../images/cat/0.png\n{images}/dog/1.png\n")
    assert [s.path for s in read_manifest(images / "m.csv").samples] == [
        str(images / "cat/0.png"),
        str(images / "dog/1.png"),
    ]


def test_a_manifest_is_read_from_the_folder_that_it_stands_in(images, monkeypatch):
    write_table(images / "m.csv", ROWS)
    monkeypatch.chdir(images)
    assert [s.path for s in read_manifest("m.csv").samples] == [row["path"] for row in ROWS]
    monkeypatch.chdir(images.parent)
    assert [s.path for s in read_manifest("images/m.csv").samples] == [f"images/{row['path']}" for row in ROWS]


@pytest.mark.parametrize(
    ("root", "above"), [(".", ""), ("../images", "../images/"), ("./", ""), ("../images//", "../images/")]
)
def test_a_folder_is_read_from_where_one_stands(images, monkeypatch, root, above):
    monkeypatch.chdir(images)
    found = {sample.path: sample.name for sample in scan_folder(root).samples}
    assert found == {f"{above}{name}": name for name in ("cat/0.png", "cat/2.png", "dog/1.png")}


def test_a_parquet_file_without_a_path_column_names_what_it_has(images):
    pyarrow.parquet.write_table(pa.table({"image": ["x"], "y": [1]}), images / "m.parquet")
    assert "has no column 'path' (found: image, y)" in sentence(read_manifest, images / "m.parquet")


def test_no_damage_to_a_parquet_file_raises_anything_but_a_sentence(images):
    whole = write_table(images / "m.parquet", ROWS).read_bytes()
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        for data in (bytes(damaged), whole[:place]):
            (images / "m.parquet").write_bytes(data)
            try:
                manifest = read_manifest(images / "m.parquet")
            except ManifestError as refused:
                assert str(refused).isprintable()
            else:
                assert len(manifest) > 0


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12).filter(
    lambda text: text.strip() not in MISSING - {""} and not WHOLE.fullmatch(text.strip())
)


@given(labels=st.lists(CELLS, min_size=1, max_size=6), groups=st.lists(CELLS, min_size=6, max_size=6))
def test_any_label_and_group_survives_being_written_as_csv(tmp_path_factory, labels, groups):
    import csv

    root = make(tmp_path_factory.mktemp("any"), "a.png")
    with (root / "m.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "label", "group"), *(("a.png", *row) for row in zip(labels, groups, strict=False))])
    found = [(s.label, s.group) for s in read_manifest(root / "m.csv").samples]
    assert found == [(a.strip() or None, b.strip() or None) for a, b in zip(labels, groups, strict=False)]


@given(st.text(st.characters()))
def test_printable_text_is_safe_on_a_terminal_and_in_a_file(text):
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")


@given(st.text().filter(str.isprintable))
def test_text_that_is_printable_already_is_left_alone(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        (os.fsdecode(b"\xe9.png"), "\\udce9.png"),
        ("\u2028", "\\u2028"),
        ("é", "é"),
    ],
)
def test_printable_escapes_as_python_does(text, shown):
    assert printable(text) == shown


def test_printable_never_ends_a_line():
    every = "".join(map(chr, range(0x3000)))
    assert len(printable(every).splitlines()) == 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", printable(every))


# From a stranger


def test_a_manifest_that_is_a_pipe_is_not_waited_for(images):
    os.mkfifo(images / "m.csv")
    with pytest.raises(ManifestError, match="is not an ordinary file"):
        read_manifest(images / "m.csv")


def test_rows_that_are_packed_are_not_unpacked(images):
    """Two million equal rows in some kilobytes."""
    row = pa.table({"path": ["cat/0.png"] * 100_000})
    with pyarrow.parquet.ParquetWriter(images / "m.parquet", row.schema) as writer:
        for _ in range(20):
            writer.write_table(row)
    with pytest.raises(ManifestError, match=r"names 2,000,000 rows in [\d,]+ bytes\. Write one text a row"):
        read_manifest(images / "m.parquet")


@pytest.mark.parametrize("value", [["cat/0.png"], {"a": "cat/0.png"}])
@pytest.mark.parametrize("column", ["path", "label"])
def test_lists_in_a_cell_are_refused(images, column, value):
    pyarrow.parquet.write_table(pa.table({"path": ["cat/0.png"], column: [value]}), images / "m.parquet")
    with pytest.raises(ManifestError, match=f"has lists or objects in its column '{column}'"):
        read_manifest(images / "m.parquet")
