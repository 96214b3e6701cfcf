"""Activation ranges of a cache are found by their network, and not used if they are damaged or of other features."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from featurecache.base.errors import CacheDamaged, CacheUnwritable
from featurecache.extract.cache.inventory import describe_caches
from featurecache.extract.cache.ranges import (
    MOST_BYTES,
    MOST_TENSORS,
    RANGES_FILE,
    Ranges,
    TensorRange,
    damaged_ranges,
    find_ranges,
    has_ranges,
    read_ranges,
    write_ranges,
)
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.cache.verify import repair_cache, verify_cache

RANGES = Ranges((TensorRange("Add", 0.0, -1.0, 1.0), TensorRange("Conv", 0.25, 0.0, 6.0)))
OTHER = Ranges((TensorRange("Add", 0.0, -2.0, 1.0), TensorRange("Conv", 0.25, 0.0, 6.0)))


@pytest.fixture
def int8_spec(spec) -> FeatureSpec:
    return replace(spec, precision="int8", ranges=RANGES.digest)


@pytest.fixture
def folder(tmp_path, int8_spec):
    """A cache folder with ranges."""
    place = tmp_path / int8_spec.folder_name
    write_ranges(place, int8_spec, RANGES)
    return place


def test_keys_of_other_precisions_are_those_without_the_field(spec):
    assert "ranges" not in spec.to_dict()
    assert replace(spec, precision="int8", ranges=RANGES.digest).key != replace(spec, precision="int8").key


@pytest.mark.parametrize(("precision", "ranges"), [("int8", ""), ("fp32", RANGES.digest), ("int8", "abc"), ("int8", 3)])
def test_a_spec_in_int8_has_ranges_and_no_other_spec_has(spec, precision, ranges):
    with pytest.raises(ValueError, match="ranges"):
        FeatureSpec.from_dict({**spec.to_dict(), "precision": precision, "ranges": ranges})


def test_the_digest_is_of_the_numbers_and_always_the_same():
    assert RANGES.digest.startswith("926bb41f019c")
    assert OTHER.digest != RANGES.digest


def test_ranges_are_read_as_they_were_written(folder, int8_spec):
    assert read_ranges(folder, int8_spec) == RANGES
    assert has_ranges(folder, int8_spec)
    assert damaged_ranges(folder, int8_spec) == []


HOSTILE = {
    "no JSON": "{",
    "a list": "[]",
    "NaN": '{"format": 1, "network": {}, "tensors": [["Conv", 0, NaN, 1]]}',
    "too large": '{"format": 1, "network": {}, "tensors": [["Conv", 0, -1e300, 1]]}',
    "an endless number": f'{{"format": 1, "network": {{}}, "tensors": [["Conv", 0, -1, 1{"0" * 400}]]}}',
    "a range without 0": '{"format": 1, "network": {}, "tensors": [["Conv", 0, 1, 2]]}',
    "text for a number": '{"format": 1, "network": {}, "tensors": [["Conv", 0, "-1", 2]]}',
    "true for a number": '{"format": 1, "network": {}, "tensors": [["Conv", true, -1, 2]]}',
    "a number too many": '{"format": 1, "network": {}, "tensors": [["Conv", 0, -1, 2, 3]]}',
    "an endless operator": json.dumps({"format": 1, "network": {}, "tensors": [["C" * 10_000, 0, -1, 2]]}),
    "too many tensors": json.dumps({"format": 1, "network": {}, "tensors": [["C", 0, -1, 2]] * (MOST_TENSORS + 1)}),
    "no tensors": '{"format": 1, "network": {}, "tensors": []}',
    "another format": '{"format": 2, "network": {}, "tensors": [["Conv", 0, -1, 2]]}',
    "too large a file": " " * (MOST_BYTES + 1),
    "a link": "",
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_a_hostile_file_is_refused_in_a_sentence_and_never_found(kind, folder, int8_spec, tmp_path):
    path = folder / RANGES_FILE
    if kind == "a link":
        path.rename(tmp_path / "elsewhere.json")
        path.symlink_to(tmp_path / "elsewhere.json")
    else:
        path.write_text(HOSTILE[kind])
    with pytest.raises(CacheDamaged, match=r"^The activation ranges '.*' are not used: they are damaged \(.+\)\. Move"):
        read_ranges(folder, int8_spec)
    assert not has_ranges(folder, int8_spec)
    assert find_ranges(tmp_path, replace(int8_spec, ranges="")) is None


def test_ranges_of_other_features_are_not_used(folder, int8_spec):
    for spec, ranges in ((int8_spec, OTHER), (replace(int8_spec, layer="another"), RANGES)):
        write_ranges(folder, spec, ranges)
        with pytest.raises(CacheDamaged, match="are not used: they are those of other features"):
            read_ranges(folder, int8_spec)


def test_ranges_that_are_gone_are_named(folder, int8_spec):
    (folder / RANGES_FILE).unlink()
    with pytest.raises(CacheDamaged, match="are not used: the file is gone"):
        read_ranges(folder, int8_spec)


def test_a_new_cache_of_the_same_network_finds_them_whatever_its_data_type_or_view(folder, int8_spec, tmp_path):
    wanted = replace(int8_spec, ranges="")
    for each in (wanted, replace(wanted, dtype="float16"), replace(wanted, view="light-v1:0:1")):
        assert find_ranges(tmp_path, each) == RANGES
    for each in (replace(wanted, layer="another"), replace(wanted, weights_digest="cd" * 32)):
        assert find_ranges(tmp_path, each) is None


def test_of_several_the_same_features_come_first_then_those_with_vectors(folder, int8_spec, tmp_path, make_rows):
    half = replace(int8_spec, dtype="float16", ranges=OTHER.digest)
    write_ranges(tmp_path / half.folder_name, half, OTHER)
    FeatureCache(tmp_path, half).add(make_rows(2, spec=half), {})
    assert find_ranges(tmp_path, replace(int8_spec, ranges="")) == RANGES
    assert find_ranges(tmp_path, replace(half, ranges="")) == OTHER
    assert find_ranges(tmp_path, replace(half, ranges="", view="light-v1:0:1")) == OTHER


def test_ranges_in_a_cache_of_other_ranges_are_not_found(folder, int8_spec, tmp_path, make_rows):
    FeatureCache(tmp_path, int8_spec).add(make_rows(2, spec=int8_spec), {})
    write_ranges(folder, int8_spec, OTHER)
    assert find_ranges(tmp_path, replace(int8_spec, ranges="")) is None


def test_verify_finds_damaged_ranges_and_sets_them_aside(folder, int8_spec, tmp_path, make_rows):
    cache = FeatureCache(tmp_path, int8_spec)
    cache.add(make_rows(2, spec=int8_spec), {})
    cache.refresh()
    cache.write_index()
    assert verify_cache(folder).damaged == ()
    write_ranges(folder, int8_spec, OTHER)
    verdict = verify_cache(folder)
    assert [each.reason for each in verdict.damaged] == ["they are those of other features"]
    (info,) = describe_caches(tmp_path)
    assert info.damaged == (f"{folder / RANGES_FILE}: they are those of other features",)
    assert [path.name for path in repair_cache(verdict)] == [RANGES_FILE]
    without = verify_cache(folder)
    assert (without.damaged, without.n_rows) == ((), 2)
    assert without.notes == ("ranges.json is gone; the next extract takes those of a run, or measures them again",)


def test_a_folder_that_cannot_be_written_is_an_error_with_the_next_step(int8_spec, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheUnwritable, match=r"cannot be written: .* Choose another cache with --cache"):
        write_ranges(tmp_path / "file" / "cache", int8_spec, RANGES)
