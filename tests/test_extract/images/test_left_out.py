"""Every file of a folder is counted: as a sample, or by the reason and suffix with which it is left out."""

from __future__ import annotations

import pytest

from featurecache.base.errors import ManifestError
from featurecache.extract.cache.memo import FILE_NAME
from featurecache.extract.images import formats
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.images.folders.skipped import OWN_FILES, is_own
from featurecache.extract.images.formats import FORMATS, format_of
from featurecache.extract.images.left_out import (
    CLOSED_FOLDER,
    HIDDEN,
    MAX_SUFFIXES,
    NO_IMAGE,
    OTHER_SUFFIX,
    OWN,
    RAW,
    REASONS,
    LeftOut,
    Tally,
    suffix_of,
)
from featurecache.extract.images.read import read_images


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.JPG", ".jpg"),
        ("a.tar.gz", ".gz"),
        ("noext", ""),
        (".DS_Store", ""),
        ("..png", ""),
        ("a.", ""),
        ("cat/.png", ""),
        ("a.b/c", ""),
        ("a.this is a sentence", ""),
        ("a.x\n", ""),
        ("a.1", ".1"),
    ],
)
def test_suffixes_are_those_that_people_see(name, suffix):
    assert suffix_of(name) == suffix


def test_files_of_forty_suffixes_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_is_installed", lambda _: False)
    suffixes = [f".s{i}" for i in range(20)]
    suffixes += [".jpg", ".PNG", ".tif", ".heic", ".dcm", ".NEF", ".svg", ".txt", ".json", ".mp4", ".zip", ".db", ".py"]
    suffixes += [".md", ".csv", ".xml", ".npy", ".h5", ".log", ".pdf"]
    for i, suffix in enumerate(suffixes * 5):
        make(tmp_path, f"class{i % 4}/sub{i % 3}/{i}{suffix}")
    make(tmp_path, "loose.jpg", ".hidden/deep/a.jpg", "class0/@eaDir/a.jpg/b.jpg", "class1/Thumbs.db", "$RECYCLE.BIN/x")
    manifest = scan_folder(tmp_path)
    n_all = sum(path.is_file() for path in tmp_path.rglob("*"))
    assert n_all == 205
    assert len(manifest) == 15
    assert len(manifest) + manifest.left_out.n_files == n_all
    document = manifest.left_out.to_dict()
    assert sum(row["n"] for row in document["by_reason"]) == document["n_files"] == 190
    assert document["n_missed"] == len(manifest.left_out.missed)


@pytest.mark.parametrize("name", ["x.CR2", "x.nef", "x.jxl", "x.SVG"])
def test_an_image_that_nothing_decodes_is_listed_with_the_next_step(tmp_path, name):
    make(tmp_path, "cat/0.png", f"cat/{name}")
    (missed,) = scan_folder(tmp_path).left_out.missed
    assert missed.name == f"cat/{name}"
    assert missed.reason.endswith("as JPEG, PNG or TIFF")
    with pytest.raises(ManifestError, match=r"cannot be read: .* as JPEG, PNG or TIFF\.$"):
        read_images(tmp_path / "cat" / name)


def test_a_class_that_vanished_is_named(tmp_path):
    make(tmp_path, "cat/0.png", "dog/0.nef", "dog/1.nef", "later/Thumbs.db", "none/.keep")
    manifest = scan_folder(tmp_path)
    assert manifest.classes == ["cat"]
    assert manifest.left_out.to_dict()["empty_classes"] == ["dog"]
    assert [each.name for each in manifest.left_out.missed] == ["dog", "dog/0.nef", "dog/1.nef"]
    assert manifest.notes[-1] == "1 class folder with files and no image that can be read is left out: 'dog'."


def test_a_class_with_images_in_one_split_has_not_vanished(tmp_path):
    make(tmp_path, "train/cat/0.png", "train/dog/1.png", "test/cat/2.png", "test/dog/3.nef")
    assert scan_folder(tmp_path).left_out.to_dict()["empty_classes"] == []


@pytest.mark.parametrize("files", OWN_FILES)
def test_a_cache_or_run_is_never_images(tmp_path, files):
    make(tmp_path, "cat/0.png", *(f"data/own/{name}" for name in files), "data/own/deep/report.png", "dog/1.png")
    manifest = scan_folder(tmp_path)
    assert manifest.classes == ["cat", "dog"]
    assert set(manifest.left_out.counts) >= {("own", ".png")}
    assert not manifest.left_out.missed


def test_a_cache_root_may_be_the_folder_of_the_images(tmp_path):
    make(
        tmp_path,
        "set/cat/0.png",
        "set/dog/0.png",
        f"set/{FILE_NAME}",
        "set/pixels-1/spec.json",
        "set/pixels-1/shards/x",
    )
    manifest = scan_folder(tmp_path)
    assert manifest.classes == ["cat", "dog"]
    assert manifest.left_out.n(OWN) == 3
    assert not is_own({"spec.json", "results.json"})


def test_a_closed_hidden_folder_is_missed_by_nobody(open_folder, closed_to_us):
    make(open_folder, "cat/0.png", "lost+found/1.png")
    (open_folder / "lost+found").chmod(0)
    with closed_to_us():
        manifest = scan_folder(open_folder)
    assert manifest.left_out == LeftOut({("closed_system", ""): 1})
    assert manifest.left_out.n_files == 0


def test_links_below_skipped_folders_are_not_followed(tmp_path):
    make(tmp_path, "cat/0.png", ".hidden/1.png")
    (tmp_path / ".hidden" / "up").symlink_to("..", target_is_directory=True)
    assert scan_folder(tmp_path).left_out.n(HIDDEN) == 2


def test_rows_stay_few_however_many_suffixes_there_are():
    tally = Tally()
    for i in range(3 * MAX_SUFFIXES):
        tally.add(NO_IMAGE, f"photo.{i}")
    found = tally.left_out()
    assert found.n_files == 3 * MAX_SUFFIXES
    assert found.counts[NO_IMAGE.code, OTHER_SUFFIX] == 2 * MAX_SUFFIXES
    assert len(found.counts) == MAX_SUFFIXES + 1


def test_what_several_data_sets_leave_out_is_added():
    tally = Tally()
    tally.add(RAW, "a/x.nef")
    tally.add(CLOSED_FOLDER, "a/dog", "Permission denied")
    part = tally.left_out()
    both = LeftOut.merge([part, part.renamed(lambda name: f"b/{name}")])
    assert both.n_files == both.n(RAW) == 2
    assert [each.name for each in both.missed] == ["a/dog", "a/x.nef", "b/a/dog", "b/a/x.nef"]
    assert both.names(CLOSED_FOLDER) == ("a/dog", "b/a/dog")


def test_reasons_are_sentences():
    for reason in REASONS.values():
        tally = Tally()
        tally.add(reason, "a.x")
        tally.add(reason, "b.x")
        (text,) = tally.left_out().sentences()
        assert text.startswith("2 ")
        assert text.endswith((".", "'"))
        assert " are left out" in text


def test_every_suffix_belongs_to_one_format():
    for kind in FORMATS:
        for suffix in kind.suffixes:
            assert suffix == suffix.lower()
            assert format_of(suffix) is kind
