"""The upkeep of a cache from the command line: what it says, what it leaves, how it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import weakref
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from featurecache.base.errors import CacheError
from featurecache.cli.main import DONE, FAILED, REFUSED, USAGE, run
from featurecache.evaluate.cache_export import FeatureTable
from featurecache.extract.cache import listing, verify
from featurecache.extract.cache.inventory import find_caches
from featurecache.extract.cache.listing import shard_paths
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.cache.store import INDEX_FILE, FeatureCache, read_spec
from featurecache.extract.images.read import read_images
from featurecache.extract.images.read_options import ReadOptions

BACKBONE = "efficientnet_lite0"
HAS_TOOLS = shutil.which("h5dump") is not None and shutil.which("h5stat") is not None


def folder_of(cache: Path) -> Path:
    (folder,) = cache.glob(f"{BACKBONE}-*")
    return folder


def opened(cache: Path) -> FeatureCache:
    spec = read_spec(folder_of(cache))
    assert spec is not None
    return FeatureCache(cache, spec)


def digests_of(images: Path) -> np.ndarray:
    """Read here from the files, in manifest order: (N, 32)."""
    raw = b"".join(image_digest(Path(sample.path).read_bytes()) for sample in read_images(images).samples)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 32)


def split_in_two(cache: Path) -> None:
    """The one shard of the cache becomes two."""
    whole = opened(cache)
    (path,) = shard_paths(whole.folder)
    (part,) = whole.served()
    vectors = whole.lookup(part.digests)
    for rows in (slice(0, 40), slice(40, None)):
        names = ["x"] * len(part.digests[rows])
        whole.add(
            ShardRows(vectors[rows], part.digests[rows], names), {"seconds": 1.0, "created": "2026-01-01T00:00:00Z"}
        )
    path.unlink()
    whole.refresh()
    whole.write_index()


def command(capsys, *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    code = run([str(word) for word in words])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def answer(capsys, *words: object) -> object:
    """What the command says to a program; it ends well."""
    code, out, _ = command(capsys, *words, "--json")
    assert code == DONE
    return json.loads(out)


@pytest.mark.parametrize("name", ["info", "verify", "compact"])
def test_a_cache_folder_that_is_not_there_is_a_usage_error(tmp_path, capsys, name):
    code, out, err = command(capsys, "cache", name, "--cache", tmp_path / "nowhere")
    assert (code, out) == (USAGE, "")
    assert err.startswith(f"featurecache: There is no cache folder '{tmp_path / 'nowhere'}'.")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["info", "verify", "compact"])
def test_an_empty_cache_folder_is_said_to_be_empty(tmp_path, capsys, name):
    code, out, _ = command(capsys, "cache", name, "--cache", tmp_path)
    assert code == DONE
    assert f"'{tmp_path}' holds no features yet" in out


def test_cache_without_a_command_is_a_usage_error(capsys):
    assert command(capsys, "cache")[0] == USAGE


# info


def test_info_tells_of_every_cache_what_it_is(cache, digits_folder, capsys):
    (found,) = answer(capsys, "cache", "info", "--cache", cache)["caches"]
    folder = folder_of(cache)
    assert {
        name: found[name] for name in ("backbone", "weights", "rows", "shards", "dim", "size", "dtype", "damaged")
    } == {
        "backbone": BACKBONE,
        "weights": "IMAGENET1K",
        "rows": 90,
        "shards": 1,
        "dim": 1280,
        "size": 224,
        "dtype": "float32",
        "damaged": [],
    }
    assert found["key"][:12] == folder.name[-12:]
    assert found["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert str(digits_folder) in found["images"]
    assert found["written"] <= found["used"]
    _, out, _ = command(capsys, "cache", "info", "--cache", cache)
    for text in (
        f"{BACKBONE} (IMAGENET1K), _swish_1, avg, 224 px",
        "90 rows of 1280 numbers, float32",
        "1 shard",
        str(digits_folder),
        "1 cache, 90 rows",
    ):
        assert text in out


def test_info_lists_the_image_sets_of_extract_and_classify_escaped(images, cache, tmp_path, capsys):
    odd = images.rename(tmp_path / "a\nb\x1b[31m")
    assert run(["extract", str(odd), "--cache", str(cache), "--quiet"]) == DONE
    shutil.copytree(odd, tmp_path / "copy")
    out = tmp_path / "run"
    words = ["classify", tmp_path / "copy", "--cache", cache, "--heads", "centroid", "--out", out, "--quiet"]
    assert command(capsys, *words)[0] == DONE
    _, out, _ = command(capsys, "cache", "info", "--cache", cache)
    assert f"images    {tmp_path}/a\\nb\\x1b[31m\n" in out
    assert f"images    {tmp_path / 'copy'}\n" in out


def test_of_many_image_sets_the_latest_are_shown_and_all_are_in_the_json(cache, capsys):
    with Memo(cache) as memo:
        for number in range(8):
            memo.remember_use([folder_of(cache).name], f"/new/{number}.jpg".encode(), 4_000_000_000 + number)
    n_all = len(answer(capsys, "cache", "info", "--cache", cache)["caches"][0]["images"])
    _, out, _ = command(capsys, "cache", "info", "--cache", cache)
    assert [number for number in range(8) if f"/new/{number}.jpg\n" in out] == [3, 4, 5, 6, 7]
    assert f"and {n_all - 5} others (--json lists them)" in out


def test_a_memo_that_remembers_no_uses_is_no_error(cache, capsys):
    (cache / "digests.sqlite").unlink()
    (found,) = answer(capsys, "cache", "info", "--cache", cache)["caches"]
    assert (found["images"], found["used"]) == ([], None)
    with Memo(cache) as memo:
        memo.remember_use(["x"], b"/y", 1)
        memo.remember_use(["x"], b"/y", 2)
        assert memo.uses() == [("x", b"/y", 2)]


def test_info_goes_on_where_a_shard_or_spec_is_damaged(cache, capsys):
    folder = folder_of(cache)
    (path,) = shard_paths(folder)
    path.write_bytes(b"")
    code, out, _ = command(capsys, "cache", "info", "--json", "--cache", cache)
    assert code == REFUSED
    (found,) = json.loads(out)["caches"]
    assert found["rows"] == 0
    assert path.name in found["damaged"][0]
    (folder / "spec.json").write_text("{")
    code, out, _ = command(capsys, "cache", "info", "--cache", cache)
    assert code == REFUSED
    assert "DAMAGED" in out
    assert "spec.json" in out


def test_info_counts_files_that_were_left_over(cache, capsys):
    (folder_of(cache) / "shards" / ".writing-x.h5").write_bytes(b"half")
    assert len(answer(capsys, "cache", "info", "--cache", cache)["left_over_files"]) == 1
    assert "1 temporary files are left over" in command(capsys, "cache", "info", "--cache", cache)[1]


def test_files_that_go_while_they_are_counted_are_no_error(cache, monkeypatch, capsys):
    gone = folder_of(cache) / "shards" / ".writing-x.h5"
    monkeypatch.setattr(listing, "find_leftovers", lambda root: [gone])
    assert answer(capsys, "cache", "info", "--cache", cache)["left_over_files"] == [str(gone)]
    gone.symlink_to("nowhere")
    assert command(capsys, "cache", "compact", "--cache", cache)[0] == DONE


# verify


def test_verify_of_a_whole_cache_ends_well(cache, capsys):
    code, out, err = command(capsys, "cache", "verify", "--cache", cache)
    assert code == DONE
    assert "whole; 90 rows in 1 shard" in out
    assert "checking" in err
    assert command(capsys, "cache", "verify", "--cache", cache, "--quiet")[2] == ""


def test_damage_is_named_repaired_and_refilled_row_by_row(images, cache, tmp_path, capsys):
    split_in_two(cache)
    reference = opened(cache).lookup(digests_of(images))
    path = shard_paths(folder_of(cache))[1]
    with h5py.File(path) as file:
        place = file["features"].id.get_chunk_info(0).byte_offset + 1000
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)

    code, out, _ = command(capsys, "cache", "verify", "--cache", cache)
    assert code == REFUSED
    assert f"{path}: a checksum does not match" in out
    classify = ["classify", images, "--cache", cache, "--heads", "centroid", "--out", tmp_path / "run", "--quiet"]
    code, _, err = command(capsys, *classify)
    assert code == FAILED
    assert f"The shard '{path}' is damaged" in err
    assert f"featurecache cache verify --repair --cache {cache}" in err

    (verdict,) = answer(capsys, "cache", "verify", "--repair", "--cache", cache)
    assert verdict["damaged"] == [{"path": str(path), "reason": "a checksum does not match", "rows_to_redo": 50}]
    assert [Path(moved).read_bytes() for moved in verdict["set_aside"]] == [bytes(data)]
    assert command(capsys, "cache", "verify", "--cache", cache)[0] == DONE
    assert "featurecache extract" in command(capsys, *classify)[2]
    code, out, _ = command(capsys, "extract", images, "--cache", cache, "--quiet")
    assert code == DONE
    assert "40 already there, 50 extracted" in out
    np.testing.assert_allclose(opened(cache).lookup(digests_of(images)), reference, rtol=1e-3, atol=1e-5)


def test_extract_names_a_shard_that_cannot_be_opened_and_the_way_out(images, cache, capsys):
    (path,) = shard_paths(folder_of(cache))
    path.write_bytes(path.read_bytes()[:5000])
    code, _, err = command(capsys, "extract", images, "--cache", cache, "--quiet")
    assert code == FAILED
    assert f"The shard '{path}' is damaged" in err
    assert f"featurecache cache verify --repair --cache {cache}" in err


def test_what_cannot_be_repaired_is_said_and_fails(cache, capsys):
    folder = folder_of(cache)
    folder.rename(folder.with_name(f"{BACKBONE}-0123456789ab"))
    code, _, err = command(capsys, "cache", "verify", "--repair", "--cache", cache, "--quiet")
    assert code == FAILED
    assert "Give the folder its old name back" in err


def test_verify_goes_on_to_the_next_cache_where_one_cannot_be_read(cache, monkeypatch, capsys):
    closed = cache / "another-0123456789ab"
    (closed / "shards").mkdir(parents=True)
    shard_paths = verify.shard_paths

    def refused(folder):
        if folder == closed:
            raise CacheError(f"The cache '{folder}' cannot be read: Permission denied.")
        return shard_paths(folder)

    monkeypatch.setattr(verify, "shard_paths", refused)
    for words in (), ("--repair",):
        code, out, err = command(capsys, "cache", "verify", *words, "--cache", cache)
        assert code == (FAILED if words else REFUSED)
        assert f"{closed}: The cache '{closed}' cannot be read: Permission denied." in out
        assert "whole; 90 rows in 1 shard" in out
        assert ("Correct the permissions first" in err) == bool(words)


def test_a_cache_folder_that_is_closed_to_us_is_listed(cache, monkeypatch):
    exists = Path.exists

    def refused(path, **options):
        if path.parent == folder_of(cache):
            raise PermissionError(13, "Permission denied")
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", refused)
    assert find_caches(cache) == [folder_of(cache)]


# compact


def test_compact_merges_and_classify_reads_the_same_vectors(images, cache, capsys):
    split_in_two(cache)
    before = opened(cache).lookup(digests_of(images))
    (found,) = answer(capsys, "cache", "compact", "--cache", cache)["caches"]
    assert (found["rows"], found["shards_before"], found["shards"], found["duplicates"]) == (90, 2, 1, 0)
    np.testing.assert_array_equal(opened(cache).lookup(digests_of(images)), before)
    assert "90 rows, 1 shards -> 1" in command(capsys, "cache", "compact", "--cache", cache)[1]


def test_compact_goes_on_to_the_next_cache_where_one_is_damaged(cache, capsys):
    split_in_two(cache)
    (cache / "another-0123456789ab" / "shards").mkdir(parents=True)
    code, out, err = command(capsys, "cache", "compact", "--cache", cache)
    assert code == REFUSED
    assert "2 shards -> 1" in out
    assert "'another-0123456789ab' has no spec.json" in err.replace(f"{cache}/", "")


@pytest.mark.parametrize("name", ["extract", "compact"])
def test_extract_and_compact_sweep_what_an_old_run_left_over(images, cache, capsys, name):
    old, new = (folder_of(cache) / "shards" / f".writing-{age}.h5" for age in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    words = ["extract", images, "--quiet"] if name == "extract" else ["cache", "compact"]
    assert command(capsys, *words, "--cache", cache)[0] == DONE
    assert not old.exists()
    assert new.exists()


# export


@pytest.fixture
def exported(images, cache, tmp_path, capsys):
    """A function: a suffix -> the exported file, and the manifest that it is of."""
    (images / "list.csv").write_text(
        "path,label,split\n2/"
        + f"{sorted(os.listdir(images / '2'))[0]},two,test\n"
        + "".join(f"0/{name},ünï,train\n" for name in sorted(os.listdir(images / "0"))[:4])
        + "".join(f"1/{name},one,{'val' if i else 'train'}\n" for i, name in enumerate(os.listdir(images / "1")[:3]))
        + f"2/{sorted(os.listdir(images / '2'))[1]},two,train\n"
    )

    def export(suffix: str) -> tuple[Path, Path]:
        out = tmp_path / f"out{suffix}"
        assert command(capsys, "cache", "export", images / "list.csv", out, "--cache", cache, "--quiet")[0] == DONE
        return out, images / "list.csv"

    return export


def expected(manifest: Path, cache: Path):
    samples = read_images(manifest).samples
    classes = sorted({sample.label for sample in samples})
    labels = [classes.index(sample.label) for sample in samples]
    return (
        opened(cache).lookup(digests_of(manifest)),
        labels,
        classes,
        [s.name for s in samples],
        [s.split for s in samples],
    )


def test_three_lines_of_h5py_read_an_exported_h5(exported, cache):
    out, manifest = exported(".h5")
    X, labels, classes, paths, splits = expected(manifest, cache)
    with h5py.File(out) as file:
        features, y, names = file["features"][:], file["labels"][:], file.attrs["classes"]
        np.testing.assert_array_equal(features, X)
        assert features.dtype == np.float32
        assert y.tolist() == labels
        assert names.tolist() == classes
        assert file["paths"].asstr()[:].tolist() == paths
        assert file["splits"].asstr()[:].tolist() == splits
        assert json.loads(file.attrs["spec"])["backbone"] == file.attrs["backbone"] == BACKBONE
        assert not file["features"].is_virtual


def test_an_exported_npz_never_holds_all_features_at_once(exported, cache, monkeypatch):
    monkeypatch.setattr("featurecache.evaluate.cache_export.BLOCK_BYTES", 3 * 4 * 1280)
    seen: list[weakref.ref] = []
    blocks = FeatureTable.blocks

    def watched(table):
        for block in blocks(table):
            assert sum(reference() is not None for reference in seen) <= 1
            seen.append(weakref.ref(block))
            yield block

    monkeypatch.setattr(FeatureTable, "blocks", watched)
    out, _ = exported(".npz")
    assert len(seen) == 3
    with np.load(out, allow_pickle=False) as file:
        assert file["features"].shape == (9, 1280)


def test_numpy_alone_reads_an_exported_npz(exported, cache):
    out, manifest = exported(".npz")
    X, labels, classes, paths, splits = expected(manifest, cache)
    with np.load(out, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["features"], X)
        assert file["labels"].tolist() == labels
        assert file["classes"].tolist() == classes
        assert file["paths"].tolist() == paths
        assert file["splits"].tolist() == splits


def test_an_exported_parquet_is_a_table_with_names_of_classes(exported, cache):
    out, manifest = exported(".parquet")
    X, labels, classes, paths, splits = expected(manifest, cache)
    table = pyarrow.parquet.read_table(out)
    np.testing.assert_array_equal(np.array(table["features"].to_pylist(), dtype=np.float32), X)
    assert table["label"].to_pylist() == [classes[code] for code in labels]
    assert table["path"].to_pylist() == paths
    assert table["split"].to_pylist() == splits
    read = read_images(out)
    assert [sample.name for sample in read.samples] == paths
    assert [sample.label for sample in read.samples] == table["label"].to_pylist()
    assert json.loads(table.schema.metadata[b"classes"]) == classes


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".parquet"])
def test_an_exported_file_has_the_groups_and_the_digests_of_its_images(exported, tmp_path, suffix):
    out, manifest = exported(suffix)
    assert {sample.group for sample in read_images(out, ReadOptions(as_="vectors")).samples} == {None}
    header, *rows = manifest.read_text().splitlines()
    grouped = [f"{row},{'' if i == 3 else f'p{i // 2}'}" for i, row in enumerate(rows)]
    manifest.write_text("\n".join([f"{header},group", *grouped, ""]))
    out, _ = exported(suffix)
    found, images = read_images(out, ReadOptions(as_="vectors")), read_images(manifest)
    assert [sample.group for sample in found.samples] == [sample.group for sample in images.samples]
    assert [sample.digest for sample in found.samples] == [bytes(digest) for digest in digests_of(manifest)]


@pytest.mark.needs_package
@pytest.mark.skipif(not HAS_TOOLS, reason="h5dump and h5stat come with Debian's hdf5-tools")
def test_h5dump_and_h5stat_read_an_exported_h5(exported):
    out, manifest = exported(".h5")
    shown = subprocess.run(["h5dump", out], capture_output=True, text=True, check=True).stdout
    for name in ("features", "labels", "paths", "splits"):
        assert f'DATASET "{name}"' in shown
    assert 'ATTRIBUTE "classes"' in shown
    assert read_images(manifest).samples[0].name in shown
    assert '"one"' in shown
    stat = subprocess.run(["h5stat", out], capture_output=True, text=True, check=True).stdout
    assert "# of unique datasets: 5" in stat


def test_splits_are_those_of_classify(images, cache, tmp_path, capsys):
    out, run_folder = tmp_path / "out.h5", tmp_path / "run"
    for seed in (0, 3):
        assert command(capsys, "cache", "export", images, out, "--cache", cache, "--seed", seed)[0] == DONE
        words = ["classify", images, "--cache", cache, "--heads", "centroid", "--out", run_folder, "--seed", seed]
        assert command(capsys, *words, "--quiet")[0] == DONE
        rows = [line.split(",") for line in (run_folder / "splits.csv").read_text().splitlines()[1:]]
        made = {path: split for path, _, split, *_ in rows}
        with h5py.File(out) as file:
            assert dict(zip(file["paths"].asstr()[:], file["splits"].asstr()[:], strict=True)) == made
            assert set(made.values()) == {"train", "val", "test"}


def test_images_without_labels_are_exported_without(images, cache, tmp_path, capsys):
    flat = tmp_path / "flat"
    shutil.copytree(images / "1", flat)
    found = answer(capsys, "cache", "export", flat, tmp_path / "out.h5", "--cache", cache)
    assert (found["rows"], found["classes"]) == (30, [])
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file["labels"][:]) == {-1}
        assert set(file["splits"].asstr()[:]) == {""}
        np.testing.assert_array_equal(file["features"][:], opened(cache).lookup(digests_of(flat)))


def test_one_class_that_classify_could_not_split_is_exported_and_said(images, cache, tmp_path, capsys):
    shutil.rmtree(images / "1")
    shutil.rmtree(images / "2")
    code, _, err = command(capsys, "cache", "export", images, tmp_path / "out.npz", "--cache", cache)
    assert code == DONE
    assert "No splits are made up: " in err
    with np.load(tmp_path / "out.npz") as file:
        assert set(file["splits"]) == {""}
        assert set(file["labels"]) == {0}


def test_missing_rows_end_with_the_command_to_run_and_no_file(images, cache, tmp_path, capsys):
    Image.fromarray(np.full((9, 9), 77, np.uint8)).save(images / "1" / "new.png")
    code, _, err = command(capsys, "cache", "export", images, tmp_path / "out.h5", "--cache", cache, "--quiet")
    assert code == FAILED
    assert f"1 of 91 images have no features of {BACKBONE}" in err
    assert f"featurecache extract {images} --cache {cache}\n" in err
    words = ["cache", "export", images, tmp_path / "out.h5", "--cache", cache, "--pooling", "max", "--quiet"]
    code, _, err = command(capsys, *words)
    assert code == FAILED
    assert f"featurecache extract {images} --pooling max --cache {cache}\n" in err
    assert not list(tmp_path.glob("*out*"))


def test_refused_images_are_left_out_and_counted(images, cache, tmp_path, capsys):
    (images / "1" / "broken.png").write_bytes(b"nothing")
    assert command(capsys, "extract", images, "--cache", cache, "--quiet")[0] == REFUSED
    code, out, err = command(capsys, "cache", "export", images, tmp_path / "out.h5", "--cache", cache, "--quiet")
    assert code == REFUSED
    assert "90 rows" in out
    assert "1 image is refused" in err
    assert "1/broken.png" in err
    code, _, err = command(capsys, "cache", "export", images, tmp_path / "out.h5", "--cache", cache)
    assert code == REFUSED
    assert f"'{tmp_path / 'out.h5'}' is there already: this one replaces it when it is whole." in err.splitlines()
    with h5py.File(tmp_path / "out.h5") as file:
        assert "1/broken.png" not in file["paths"].asstr()[:]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["out.txt"], "ends in none of .h5, .npz, .parquet"),
        (["nowhere/out.h5"], "there is no folder"),
        (["out.h5", "--backbone", "a,b"], "name a single --backbone"),
    ],
)
def test_a_place_or_choice_that_makes_no_file_is_a_usage_error(
    images, cache, tmp_path, monkeypatch, capsys, words, sentence
):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, "cache", "export", images, *words, "--cache", cache)
    assert code == USAGE
    assert sentence in err


def test_an_export_that_fails_leaves_the_file_that_was_there(images, cache, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.h5"
    out.write_bytes(b"precious")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featurecache.base.files.publish", full)
    code, _, err = command(capsys, "cache", "export", images, out, "--cache", cache, "--quiet")
    assert code == FAILED
    assert "cannot be written: No space left on device" in err
    assert out.read_bytes() == b"precious"
    assert not list(tmp_path.glob(".writing-*"))


# prune


def test_prune_says_what_would_go_and_only_then_does_it(images, cache, capsys):
    keep = [images / "0", images / "2"]
    before = {path: path.stat().st_mtime_ns for path in folder_of(cache).rglob("*")}
    code, out, _ = command(capsys, "cache", "prune", *keep, "--cache", cache, "--quiet")
    assert code == DONE
    assert "30 rows would be dropped" in out
    assert "Nothing was changed." in out
    assert {path: path.stat().st_mtime_ns for path in folder_of(cache).rglob("*")} == before

    vectors = opened(cache).lookup(digests_of(images / "0"))
    found = answer(capsys, "cache", "prune", *keep, "--yes", "--cache", cache, "--quiet")
    assert found["done"] is True
    assert [(row["rows"], row["rows_unused"]) for row in found["caches"]] == [(60, 30)]
    assert opened(cache).missing(digests_of(images / "1")).all()
    np.testing.assert_array_equal(opened(cache).lookup(digests_of(images / "0")), vectors)
    with h5py.File(folder_of(cache) / INDEX_FILE) as file:
        assert file["features"].shape == (60, 1280)
        assert np.isfinite(file["features"][:]).all()
    assert "Every row is used" in command(capsys, "cache", "prune", *keep, "--cache", cache, "--quiet")[1]


def test_prune_of_a_named_backbone_leaves_the_others(images, cache, capsys):
    code, _, err = command(capsys, "cache", "prune", images / "0", "--yes", "--backbone", "resnet50", "--cache", cache)
    assert code == USAGE
    assert f"No cache holds features of resnet50; there are: {BACKBONE}." in err
    assert len(opened(cache)) == 90
    words = ["cache", "prune", images / "0", "--yes", "--backbone", BACKBONE, "--cache", cache]
    assert command(capsys, *words)[0] == DONE
    assert len(opened(cache)) == 30


def test_prune_does_nothing_while_an_image_cannot_be_read(images, cache, capsys):
    """Which row it uses is not known, so any row might be its."""
    (images / "0" / "gone.png").symlink_to("nowhere.png")
    code, _, err = command(capsys, "cache", "prune", images / "0", "--yes", "--cache", cache, "--quiet")
    assert code == FAILED
    assert "1 image cannot be read" in err
    assert "gone.png" in err
    assert len(opened(cache)) == 90


def test_prune_does_nothing_while_a_folder_cannot_be_read(images, cache, monkeypatch, capsys):
    scandir = os.scandir

    def refused(folder):
        if Path(folder) == images / "1":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    code, _, err = command(capsys, "cache", "prune", images, "--yes", "--cache", cache, "--quiet")
    assert code == FAILED
    assert "1 folder cannot be read" in err
    assert f"the first is '{images / '1'}'" in err
    assert len(opened(cache)) == 90
