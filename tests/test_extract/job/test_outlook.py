"""What this machine cannot compute is refused before any work, unless a cache may have it already."""

from __future__ import annotations

import pytest

from featurecache import FeatureRequest, Settings, extract_features, read_images
from featurecache.base.errors import EngineError
from featurecache.extract.job import extract as job


@pytest.mark.parametrize(
    ("precision", "settings", "reason"),
    [
        ("tf32", Settings(device="cpu"), "tf32 is a precision of NVIDIA GPUs"),
        ("fp16", Settings(device="cpu"), "On a CPU fp16 is slower than fp32"),
        ("bf16", Settings(engine="onnxruntime", device="cpu"), "The engine onnxruntime runs on the CPU in fp32"),
    ],
)
def test_a_precision_that_cannot_run_here_is_refused_before_a_file_is_read(
    digits_folder, tmp_path, monkeypatch, precision, settings, reason
):
    monkeypatch.setattr(job, "DigestTable", pytest.fail)
    asked = [FeatureRequest("pixels"), FeatureRequest("efficientnet_lite0", precision=precision)]
    with pytest.raises(EngineError, match=f"^{reason}"):
        extract_features(read_images(digits_folder), asked, tmp_path / "cache", settings=settings)


def test_features_that_are_there_need_no_machine_that_computes_them(digits_folder, tmp_path):
    images, asked = read_images(digits_folder), [FeatureRequest("pixels", size=4, precision="bf16")]
    first = extract_features(images, asked, tmp_path / "cache")
    again = extract_features(images, asked, tmp_path / "cache", settings=Settings(engine="onnxruntime"))
    assert (first.filled[0].n_extracted, again.filled[0].n_present) == (90, 90)
