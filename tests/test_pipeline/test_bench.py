"""The benchmark runs both ways on the same images and prints their rates."""

from __future__ import annotations

import re

from extract.manifest import scan_folder
from pipeline.bench import measure, measure_together, write_photos


def test_photos_are_as_many_as_asked_for_and_all_different(tmp_path):
    from extract.digests import digest_samples
    from extract.memo import Memo

    write_photos(tmp_path / "photos", 6)
    with Memo(tmp_path, read_only=True) as memo:
        digests = digest_samples(scan_folder(tmp_path / "photos").samples, memo).digests
    assert len({bytes(row) for row in digests}) == 6


def test_the_table_names_every_way_and_compares_with_the_plain_loop(tmp_path, capsys):
    write_photos(tmp_path / "photos", 4)
    text = measure(tmp_path / "photos", "efficientnet_lite0", rounds=1)
    assert "efficientnet_lite0, 4 images" in text
    rows = {line[:12].strip(): line.split()[-1] for line in text.splitlines()[3:]}
    assert set(rows) == {"ours", "plain loop", "model only", "decode only"}
    assert rows["plain loop"] == "1.00"
    assert "round 1 of 1" in capsys.readouterr().err


def test_two_backbones_in_one_call_are_compared_with_the_sum_of_their_parts(tmp_path):
    write_photos(tmp_path / "photos", 3)
    text = measure_together(tmp_path / "photos", ("efficientnet_lite0", "efficientnet_lite1"), rounds=1)
    assert re.fullmatch(r"efficientnet_lite0 and efficientnet_lite1 in one call: [\d.]+ s; .*; ratio [\d.]+", text)
