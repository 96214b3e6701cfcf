"""Tables as people have them are read as they are meant, or refused by what is wrong with them."""

from __future__ import annotations

import codecs
import math
import os
import unicodedata

import pyarrow as pa
import pyarrow.parquet
import pytest

from featurecache.base.errors import ManifestError
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.images.digests import digest_samples
from featurecache.extract.images.left_out import MISSING_FILE
from featurecache.extract.images.read import read_images
from featurecache.extract.images.read_options import ReadOptions

PLAIN = "path,label\nimg/a.png,cat\nimg/b.png,dog\n"
READ = [("img/a.png", "cat"), ("img/b.png", "dog")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three files that are never opened, and names in several Unicode forms. Tables are written beside them."""
    root = tmp_path_factory.mktemp("photos")
    names = ("a.png", "b.png", "c.png", unicodedata.normalize("NFD", "été.png"), "Big.JPG", "two.png", "TWO.png")
    for name in ("img/" + name for name in names):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def written(photos):
    """Write a table into the folder of the photos; returns its path."""
    places = []

    def write(content, name="list.csv"):
        places.append(photos / name)
        places[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
        return places[-1]

    yield write
    for place in places:
        place.unlink()


def rows(manifest):
    return [(sample.name, sample.label) for sample in manifest.samples]


def refusal(path, options=None):
    with pytest.raises(ManifestError) as raised:
        read_images(path, options)
    assert str(raised.value).isprintable()
    return str(raised.value)


FORMS = {
    "comma": PLAIN,
    "semicolon": PLAIN.replace(",", ";"),
    "semicolon with byte order mark": codecs.BOM_UTF8 + PLAIN.replace(",", ";").encode(),
    "tab": PLAIN.replace(",", "\t"),
    "bar": PLAIN.replace(",", "|"),
    "Excel's own first line": "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
    "old Mac line ends": PLAIN.replace("\n", "\r"),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
    "UTF-16 of Excel, tab": PLAIN.replace(",", "\t").encode("utf-16"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-32": PLAIN.encode("utf-32"),
    "single quotes": "'path','label'\n'img/a.png','cat'\n'img/b.png','dog'\n",
    "single quotes below a plain header": "path;label\n'img/a.png';'cat'\n'img/b.png';'dog'\n",
    "index in front": ",path,label\n0,img/a.png,cat\n1,img/b.png,dog\n",
    "rows of nothing at the end": PLAIN + ",\n,\n",
    "spaces before quotes": 'path, label\nimg/a.png, "cat"\nimg/b.png, "dog"\n',
    "a comma at the end of each line": "path,label,\nimg/a.png,cat,\nimg/b.png,dog,\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_a_text_table_is_read_in_every_form_that_its_header_shows(written, form, suffix):
    manifest = read_images(written(FORMS[form], f"list{suffix}"))
    assert rows(manifest) == READ
    assert manifest.notes == ()


WRONG = {
    "path,label\nimg/a.png,cat\nimg/b.png,Lynx, Eurasian\n": "Row 2 of '{}' (line 3) has 3 cells and the header 2: put "
    "labels and paths with a comma into quotes.",
    "path,label\nimg/a.png,K\xe4se\n".encode("latin-1"): "is not UTF-8: the label in row 1, 'K\\udce4se', has bytes of "
    "another encoding. Save it as 'CSV UTF-8' in Excel, or convert it: iconv",
    "path,label\nimg/a.png,\uace0\uc591\uc774\n".encode("cp949"): "is not UTF-8: the label in row 1",
    "path,sp\xe9cies\nimg/a.png,cat\n".encode("latin-1"): "is not UTF-8: its header has bytes of another encoding",
    "path,group\nimg/a.png,M\xfcller\n".encode("cp1252"): "is not UTF-8: the group in row 1",
    codecs.BOM_UTF16_LE + PLAIN.encode("utf-16-le")[:-1]: "cannot be read: ",
    "img/a.png,cat\nimg/b.png,dog\n": "has no header: its first line is a row already ('img/a.png'). Write a line",
    "img/a.png cat\n": "has no header: its first line is a row already ('img/a.png cat')",
    "filename,class\nimg/a.png,cat\n": "has no column 'path' (found: filename, class). 'filename' looks like the path: "
    "name it with --path-column filename; 'class' looks like the label: name it with --label-column class.",
    "Datei;Klasse;Wert\nimg/a.png;cat;1\n": "has no column 'path' (found: Datei, Klasse, Wert). 'Datei' looks like "
    "the path: name it with --path-column Datei; 'Klasse' looks like the label: name it with --label-column Klasse.",
    "Nr|Was|Wo\n1|cat|x.png\n2|cat|img/b.png\n": "(found: Nr, Was, Wo). 'Wo' looks like the path: name it with "
    "--path-column Wo.",
    "Nom de fichier;\xc9tiquette\nno.png;chat\n": "'Nom de fichier' looks like the path: name it with --path-column "
    "'Nom de fichier'; '\xc9tiquette' looks like the label",
    "imagen\tclase\nno.png\tgato\n": "'imagen' looks like the path: name it with --path-column imagen; 'clase' looks",
    '{"path": "img/a.png", "label": "cat"}\n': "is JSON, which is not read. Write it as a table with a header, such as",
    '[{"path": "img/a.png"}]\n': "is JSON, which is not read.",
    "path   label\nimg/a.png   cat\n": "has no column 'path' (found: path   label). Put a comma, semicolon, tab or |",
    "id,label\na,cat\n": "Where another column has the files, name it with --path-column.",
    "path,label\nno\0dir/a.png,cat\n": "1 of the 1 files named in '{}' are not there",
    "Image Path,y\nimg/a.png,cat\n": "name it with --path-column 'Image Path'.",
    "path,label,Label\nimg/a.png,cat,dog\n": "has 2 columns 'label'. Give each its own name.",
    'path,label\nimg/a.png,"cat" x\n': "cannot be read: ",
    "path,digest\nimg/a.png,d41d8cd98f00b204e9800998ecf8427e\n": "Row 1 of '{}' has the digest 'd41d8cd98f00b204e980099"
    "8ecf8427e'. A digest is the SHA-256 of the image file in 64 hexadecimal digits;",
    b"PK\x03\x04\x14\0": "is no text: it is an Excel or zip file. Save it as CSV UTF-8",
    b"\x1f\x8b\x08\0": "is no text: it is compressed.",
    b"PAR1\x15\0": "is no text: it is a Parquet file: give it the suffix .parquet.",
    "path,label\nx/a.png,cat\nx/b.png,dog\n": "2 of the 2 files named in '{}' are not there: the first, 'x/a.png', was "
    "looked for as '",
    "path,label\nC:\\me\\a.png,cat\n": "These are paths of a Windows machine. Correct the paths, or name the folder",
}


@pytest.mark.parametrize("content", WRONG)
def test_a_table_that_is_wrong_is_refused_by_what_is_wrong(written, content):
    path = written(content)
    assert WRONG[content].format(path) in refusal(path)


@pytest.mark.parametrize("name", ["list.xlsx", "list.XLS", "list.ods"])
def test_a_spreadsheet_is_refused_with_how_to_save_it(written, name):
    assert "is a spreadsheet, which is not read. Save its sheet as 'CSV UTF-8 (.csv)'" in refusal(written(b"PK", name))


@pytest.mark.parametrize(
    ("words", "roles", "notes"),
    [
        (("training", "Validation", "TEST"), ("train", "val", "test"), 0),
        (("train", "dev", "test"), ("train", "val", "test"), 1),
        (("train", "eval", "test"), ("train", "val", "test"), 1),
        (("train", "valid", "holdout"), ("train", "val", "test"), 1),
    ],
)
def test_words_for_splits_are_those_of_folders(written, words, roles, notes):
    lines = [f"img/{name}.png,cat,{word}" for name, word in zip("abc", words, strict=True)]
    manifest = read_images(written("\n".join(["path,label,split", *lines])))
    assert tuple(sample.split for sample in manifest.samples) == roles
    assert len(manifest.notes) == notes
    assert all(f"are read so: '{words[1 + (words[1] == 'valid')]}' as " in note for note in manifest.notes)


def test_labels_that_differ_in_case_only_are_noted(written):
    (note,) = read_images(written("path,label\nimg/a.png,cat\nimg/b.png,Cat \n")).notes
    assert "'Cat' and 'cat'" in note


def test_a_comma_in_quotes_is_part_of_the_label(written):
    assert rows(read_images(written('path,label\nimg/a.png,"Lynx, Eurasian"\n'))) == [("img/a.png", "Lynx, Eurasian")]


def test_texts_that_pandas_reads_as_missing_are_no_label_group_or_split(written):
    path = written("path,label,group,split\nimg/a.png,nan,nan,\nimg/b.png,cat,7,NA\nimg/c.png,None,,train\n")
    manifest = read_images(path)
    assert [(s.label, s.group, s.split) for s in manifest.samples] == [
        (None, None, None), ("cat", "7", None), (None, None, "train")
    ]  # fmt: skip
    assert manifest.notes == (
        "2 rows with 'None', 'nan' as label: read as a missing value, as pandas reads it. Where that is a class, spell "
        "it otherwise.",
        "1 row with 'NA' as split: read as a missing value, as pandas reads it.",
        "1 row with 'nan' as group: read as a missing value, as pandas reads it.",
    )


@pytest.mark.parametrize(
    ("labels", "read"),
    [
        (["1.0", "2.0", ""], ["1", "2", None]),
        (["1.0", "1", "02"], ["1", "1", "02"]),
        (["1.0", "2.5", ""], ["1.0", "2.5", None]),
        (["1.0", "cat", "2.0"], ["1.0", "cat", "2.0"]),
        (["-0.0", "nan", "3.00"], ["0", None, "3"]),
    ],
)
def test_whole_numbers_that_became_floats_are_whole_numbers_again(written, labels, read):
    lines = [f"img/{name}.png,{label}" for name, label in zip("abc", labels, strict=True)]
    manifest = read_images(written("\n".join(["path,label", *lines])))
    assert [sample.label for sample in manifest.samples] == read
    assert any("All labels are whole numbers: " in note for note in manifest.notes) == ("1" in read or "0" in read)


@pytest.mark.parametrize(
    ("labels", "read"),
    [
        ([1.0, math.nan, 2.0], ["1", None, "2"]),
        ([1.5, math.nan, 2.0], ["1.5", None, "2.0"]),
        ([1, None, 2], ["1", None, "2"]),
        (["cat", "nan", None], ["cat", None, None]),
        ([True, False, None], ["True", "False", None]),
    ],
)
def test_nan_in_a_parquet_file_is_no_label(written, labels, read):
    path = written(b"", "list.parquet")
    pyarrow.parquet.write_table(pa.table({"path": [f"img/{n}.png" for n in "abc"], "label": labels}), path)
    assert [sample.label for sample in read_images(path).samples] == read


def test_several_labels_in_a_cell_are_noted(written):
    (note,) = read_images(written("path,label\nimg/a.png,cat\nimg/b.png,dog\nimg/c.png,cat|dog\n")).notes
    assert note.startswith("1 label with 1 image is made of other labels ('cat|dog')")


@pytest.mark.parametrize(
    ("header", "note"),
    [
        ("path,label,set,patient_id", "2 columns are not used: set, patient_id. 'patient_id' looks like the group: "
         "name it with --group-column patient_id; 'set' looks like the split: name it with --split-column set."),
        ("path,label,split,note", "One column is not used: note."),
        ("path,class,PatientID,Fold", "3 columns are not used: class, PatientID, Fold. 'class' looks like the label: "
         "name it with --label-column class; 'PatientID' looks like the group: name it with --group-column PatientID; "
         "'Fold' looks like the split: name it with --split-column Fold."),
        ("path,target,subset,site", "name it with --split-column subset"),
        ("path,label,settings,offset", "2 columns are not used: settings, offset."),
        ("path,label,Unnamed: 3,index", ""),
        ("path,label,group,split", ""),
        ("path,label,subject,phase", "--group-column subject; 'phase' looks like the split: name it with --split-"),
        ("path,label,partition,category", "2 columns are not used: partition, category. 'partition' looks like the "),
    ],
)  # fmt: skip
def test_columns_that_are_not_used_are_named_with_a_hint(written, header, note):
    notes = read_images(written(f"{header}\nimg/a.png,cat,,\n")).notes
    assert (note in notes[0] and len(notes) == 1) if note else notes == ()


def test_a_column_that_is_named_and_not_there_is_refused(written):
    path = written("path,class\nimg/a.png,cat\n")
    said = refusal(path, ReadOptions(label_column="klass"))
    assert f"The manifest '{path}' has no column 'klass' (found: path, class). Name one of these with --label" in said
    assert rows(read_images(path, ReadOptions(label_column="klass", is_usual=True))) == [("img/a.png", None)]
    assert "is a table, and --layout is about folders: leave it out." in refusal(path, ReadOptions(layout="class"))
    assert "is no table, and --label-column is about tables" in refusal(path.parent, ReadOptions(label_column="class"))


def test_columns_of_a_run_count_for_another_table_where_it_has_them(written):
    of_run = ReadOptions(path_column="file", label_column="class", root="elsewhere")
    path = written("path,class\nimg/a.png,cat\n")
    assert rows(read_images(path, ReadOptions().over(of_run))) == [("img/a.png", "cat")]
    own = ReadOptions(split_column="set")
    assert own.over(of_run) is own
    assert ReadOptions.from_dict(of_run.given()) == of_run


def test_paths_that_are_written_otherwise_than_the_files_are_found_and_noted(written):
    path = written("path\nimg\\a.png\nimg/b.png\nimg/été.png\nimg/big.jpg\nimg/c.png \n")
    manifest = read_images(path)
    real = ["a.png", "b.png", unicodedata.normalize("NFD", "été.png"), "Big.JPG", "c.png"]
    assert [sample.path for sample in manifest.samples] == [str(path.parent / "img" / name) for name in real]
    assert [sample.name for sample in manifest.samples][:2] == ["img\\a.png", "img/b.png"]
    slashes, unicode, case = manifest.notes
    assert slashes == f"1 path of '{path}' read with / for \\: 'img\\a.png' is '{path.parent}/img/a.png'."
    assert f"1 path of '{path}' read in another Unicode form: 'img/été.png' is " in unicode
    assert f"2 paths of '{path}' read in another case, or without spaces around it: 'img/big.jpg' is " in case


def test_names_without_a_suffix_are_those_of_the_one_image_that_is_called_so(tmp_path):
    for name in ("a.png", "b.JPG", "b.txt", "c.png", "c.jpg", "d.txt", "1.5.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "train.csv").write_text("id,label\na,cat\nb,dog\nc,cat\nd,dog\n1.5,cat\n")
    manifest = read_images(tmp_path / "train.csv", ReadOptions(path_column="id"))
    assert [os.path.basename(sample.path) for sample in manifest.samples] == ["a.png", "b.JPG", "1.5.png"]
    assert manifest.left_out.names(MISSING_FILE) == ("c", "d")
    note = f"3 paths of '{tmp_path / 'train.csv'}' read with the suffix of the one image of that name: 'a' is "
    assert any(each.startswith(note) for each in manifest.notes)


def test_percent_signs_are_decoded_where_that_leads_to_a_file(written):
    path = written("path,label\nimg/%61.png,cat\nimg/b.png,dog\nimg/%6.png,dog\nimg/%00.png,dog\n")
    manifest = read_images(path)
    assert [os.path.basename(sample.path) for sample in manifest.samples] == ["a.png", "b.png"]
    assert f"1 path of '{path}' read with % and two digits decoded: 'img/%61.png' is " in manifest.notes[0]


def test_a_tilde_is_the_folder_of_the_user(written, photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos))
    assert rows(read_images(written("path\n~/img/a.png\n"))) == [("~/img/a.png", None)]
    monkeypatch.setenv("HOME", "/elsewhere")
    assert "Row 1" in (said := refusal(written("path\n~/img/a.png\n", "again.csv")))
    assert "'/elsewhere/img/a.png', which lies outside the manifest's folder" in said


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (".", "Correct the paths"),
        ("a.png", "There is one in '{root}/img': name that folder with --root {root}/img."),
        ("a", "There is one in '{root}/img': name that folder with --root {root}/img."),
        ("https://example.com/a.png", "These are addresses, from which nothing is fetched: download the files."),
        ("s3://bucket/a.png", "These are addresses, from which nothing is fetched: download the files."),
        ("elsewhere/a.png", "Correct the paths, or name the folder that they are relative to with --root."),
    ],
)
def test_where_no_file_is_there_the_next_step_is_named(written, photos, name, advice):
    assert advice.format(root=photos) in refusal(written(f"path,label\n{name},cat\n"))


def test_a_path_that_may_be_one_of_two_files_is_neither(written):
    manifest = read_images(written("path\nimg/a.png\nimg/Two.png\n"))
    assert manifest.left_out.names(MISSING_FILE) == ("img/Two.png",)
    assert rows(manifest) == [("img/a.png", None)]


def test_paths_relative_to_a_folder_above_the_table_are_found_for_the_whole_table(written, photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    path = written(f"path,label\n{photos.name}/img/a.png,cat\n{photos.name}\\img\\b.png,dog\n")
    manifest = read_images(path)
    assert [
        os.path.samefile(s.path, photos / "img" / n) for s, n in zip(manifest.samples, ("a.png", "b.png"), strict=True)
    ]
    assert manifest.notes[0].startswith(f"Paths in '{path}' are relative to '{photos.parent}': relative to the ")
    monkeypatch.chdir("/")
    assert read_images(path).samples[0].path == str(photos / "img" / "a.png")
    mixed = read_images(written(f"path\nimg/a.png\n{photos.name}/img/b.png\n", "mixed.csv"))
    assert mixed.notes[0].startswith("1 of the 2 files named in ")


@pytest.mark.parametrize("name", ["{}/img/a.png", "../{}/img/a.png", "img/a.png", "a.png"])
def test_files_elsewhere_are_read_below_the_root_that_is_named(photos, tmp_path, name, monkeypatch):
    (tmp_path / "lists").mkdir()
    name = name.format(photos if name[0] == "{" else photos.name)
    path = tmp_path / "lists" / "list.csv"
    path.write_text(f"path,label\n{name},cat\n")
    root = photos / "img" if name == "a.png" else photos
    if name.startswith("/"):
        assert f"which lies outside the manifest's folder. Allow it with --root {photos}/img, or put" in refusal(path)
    elif name.startswith(".."):
        path = photos.parent / f"list-{tmp_path.name}.csv"
        path.write_text(f"path,label\n{photos.name}/../{photos.name}/img/a.png,cat\n")
    manifest = read_images(path, ReadOptions(root=str(root)))
    assert [os.path.samefile(sample.path, photos / "img" / "a.png") for sample in manifest.samples] == [True]
    assert manifest.notes == ()
    monkeypatch.chdir(photos.parent)
    assert ReadOptions(root=photos.name).from_anywhere() == ReadOptions(root=str(photos))


def test_a_root_is_a_folder_and_no_way_out_of_it(written, photos):
    path = written("path\nimg/a.png\n/etc/passwd\n")
    assert "There is no folder 'nowhere'. Name the one that holds the files with --root." in refusal(
        path, ReadOptions(root="nowhere")
    )
    said = refusal(path, ReadOptions(root=str(photos / "img")))
    assert f"names '/etc/passwd', which lies outside '{photos / 'img'}' and the manifest's folder. Name a" in said
    said = refusal(written("path\n/home/alice/img/a.png\n", "alice.csv"), ReadOptions(root=str(photos / "img")))
    assert "and the manifest's folder and is not there. Write paths relative to one of them." in said


@pytest.mark.parametrize("start", ["file://", "file://localhost", "file:"])
def test_the_address_of_a_file_is_its_path(written, photos, start):
    name = f"{start}{photos}/img/%61.png"
    assert rows(read_images(written(f"path\n{name}\n"))) == [(name, None)]


def test_absolute_paths_of_another_machine_are_refused_without_a_way_out(written):
    said = refusal(written("path\n/home/alice/img/a.png\n"))
    assert "lies outside the manifest's folder and is not there. Write paths relative to the manifest" in said


def test_files_that_are_missing_cost_themselves_alone_and_are_all_listed(written):
    path = written("path,label\nimg/a.png,cat\nimg/x.png,cat\nimg/y.png,dog\n")
    manifest = read_images(path)
    assert rows(manifest) == [("img/a.png", "cat")]
    assert manifest.notes == (
        f"2 of the 3 files named in '{path}' are not there: the first, 'img/x.png', was looked for as "
        f"'{path.parent}/img/x.png'.",
        "2 files that a table names and that are not there are left out (2 .png). Put them in place, or correct the "
        "paths.",
    )
    assert manifest.left_out.missed == tuple(
        (
            name,
            "missing_file",
            f"file that a table names and that is not there ({path.parent}/{name}). Put them in place, or correct the "
            "paths",
        )
        for name in ("img/x.png", "img/y.png")
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_digest_stands_for_a_file_that_is_not_there_and_must_be_that_of_one_that_is(written, tmp_path, suffix):
    names = ["img/a.png", "img/b.png", "away.png", "lost.png"]
    digests = [image_digest(b"img/a.png"), image_digest(b"another"), image_digest(b"away"), None]
    path = written(b"", f"list{suffix}")
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({"path": names, "digest": pa.array(digests, pa.binary(32))}), path)
    else:
        lines = [f"{name},{'' if d is None else d.hex().upper()}" for name, d in zip(names, digests, strict=True)]
        path.write_text("\n".join(["path,digest", *lines]))
    manifest = read_images(path)
    assert manifest.left_out.names(MISSING_FILE) == ("lost.png",)
    assert "1 of the 4 files named in" in manifest.notes[0]
    assert manifest.notes[1].endswith(
        "are not there and are known by their digest: features of them can be found in a cache, not extracted."
    )
    with Memo(tmp_path) as memo:
        digested = digest_samples(manifest.samples, memo)
    assert [sample.name for sample in digested.samples] == ["img/a.png", "away.png"]
    assert bytes(digested.digests[1]) == digests[2]
    assert [(refused.name, refused.reason) for refused in digested.refusals] == [
        ("img/b.png", "the file has another digest than the table says"),
    ]


def test_a_row_in_another_case_takes_no_file_that_another_row_names(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    path = tmp_path / "list.csv"
    path.write_text("path,label\nA.png,cat\na.png,dog\n")
    manifest = read_images(path)
    assert [(sample.name, sample.label) for sample in manifest.samples] == [("a.png", "dog")]
    assert manifest.left_out.names(MISSING_FILE) == ("A.png",)
    assert not any("another case" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("rows_of", "remark"),
    [
        ("img/a.png,cat,train\nimg/b.png,dog,train\nimg/./a.png,dog,\n", "'img/a.png', as cat and dog"),
        ("img/a.png,cat,train\nimg/b.png,dog,train\nimg/b.png,dog,test\n", "'img/b.png', as test and train"),
        ("img/a.png,cat,train\n{root}/img/a.png,dog,\n", "'img/a.png', as cat and dog"),
        ("img/a.png,cat,train\nimg/a.png,cat,train\nimg/a.png,,\nimg/b.png,dog,test\n", ""),
    ],
)
def test_a_file_with_different_labels_or_splits_is_named(written, photos, monkeypatch, rows_of, remark):
    monkeypatch.chdir(photos)
    written("path,label,split\n" + rows_of.format(root=photos))
    notes = read_images("list.csv").notes
    start = "1 file is in several rows with different labels or splits, the first, "
    assert notes == ((f"{start}{remark}. Keep one row for each file.",) if remark else ())
