"""Sixty families of timm, with random weights from a local folder: vectors are timm's own. Slow: `make survey`.

The table of engine, rate and errors is written to timm.csv in the folder of the test's temporary files, and printed.
"""

from __future__ import annotations

import copy
import csv
import gc
import os
import shutil
from pathlib import Path

import pytest
import torch
from random_timm import random_network, write_folder

from featurecache.extract.backbones.registry import load_backbone
from featurecache.extract.engines.choice import TOLERANCE, compare_engines
from featurecache.extract.engines.protocol import source_of

pytestmark = pytest.mark.slow
TORCH_TOLERANCE = 1e-5
# Named in what the project promises; then one of each other family, the smallest.
PROMISED = [
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_clip_224",
    "eva02_tiny_patch14_224",
    "convnext_tiny",
    "convnextv2_atto",
    "swin_tiny_patch4_window7_224",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "resnet50",
    "regnety_002",
    "maxvit_rmlp_pico_rw_256",
    "mobileone_s0",
    "mobilenetv3_small_100",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "beit_base_patch16_224",
    "cait_xxs24_224",
    "xcit_nano_12_p8_224",
    "densenet121",
    "hrnet_w18_small",
    "efficientformer_l1",
    "fastvit_t8",
    "repvgg_a0",
]
OTHERS = [
    "coat_tiny",
    "coatnet_pico_rw_224",
    "convit_tiny",
    "convmixer_768_32",
    "crossvit_tiny_240",
    "cspresnet50",
    "darknet17",
    "davit_tiny",
    "dla34",
    "dm_nfnet_f0",
    "dpn48b",
    "edgenext_xx_small",
    "efficientvit_b0",
    "efficientvit_m0",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "gernet_s",
    "ghostnet_050",
    "hgnet_tiny",
    "hiera_tiny_224",
    "inception_next_atto",
    "levit_128s",
    "mambaout_femto",
    "mixer_s16_224",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "mvitv2_tiny",
    "nest_tiny",
    "pit_ti_224",
    "poolformer_s12",
    "pvt_v2_b0",
    "res2net50_26w_4s",
    "resnest14d",
    "rexnet_100",
    "sequencer2d_s",
    "shvit_s1",
    "starnet_s1",
    "tiny_vit_5m_224",
    "tnt_s_patch16_224",
    "twins_svt_small",
    "vgg11",
    "visformer_tiny",
    "volo_d1_224",
    "xception41",
]
NAMES = os.environ.get("TIMM_SURVEY", "").split() or [*PROMISED, *OTHERS]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Takes the rows; the file is complete up to the last network that was tried."""
    path = tmp_path_factory.mktemp("survey") / "timm.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["network", "D", "error", "error of tokens", "engine", "images/s", "error on ONNX", "reason"])
        yield lambda *row: (rows.writerow(row), file.flush(), print("\n", *row))
    print(f"\n{path}\n{Path(path).read_text()}")


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_its_vectors_are_those_of_timm(timm, name, table, tmp_path):
    if not timm.is_model(name):
        pytest.skip(f"this version of timm has no {name}")
    network = random_network(timm, name)
    exact = copy.deepcopy(network).double()
    folder = write_folder(tmp_path / name, network)
    backbone = load_backbone(f"local-dir:{folder}")
    side = backbone.transform.crop
    pixels = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.transform.mean, backbone.transform.std))
    with torch.inference_mode():
        maps = network.forward_features((pixels / 255 - mean) / std)
        theirs = network.forward_head(maps, pre_logits=True).flatten(1)
        error = relative_error(backbone.module(pixels), theirs)
        in_float64 = exact.forward_head(exact.forward_features((pixels.double() / 255 - mean) / std), pre_logits=True)
        # With random weights the rounding of some networks, such as LeViT, grows to percents, in timm itself too.
        tolerance = max(TORCH_TOLERANCE, 3 * relative_error(theirs.double(), in_float64.flatten(1)))
        of_tokens: float | str = ""
        n_prefix = int(getattr(network, "num_prefix_tokens", 0))
        has_tokens = isinstance(maps, torch.Tensor) and maps.ndim == 3 and maps.shape[1] > max(1, n_prefix)
        if has_tokens and getattr(network, "cls_token", None) is not None:
            both = load_backbone(f"local-dir:{folder}", pooling="cls+avg").module(pixels)
            expected = torch.cat([maps[:, 0], maps[:, max(1, n_prefix) :].mean(1)], 1)
            of_tokens = relative_error(both, expected)
    verdict, _ = compare_engines(source_of(backbone), 2)
    table(
        name, backbone.feature_dim, f"{error:.1e}", of_tokens and f"{of_tokens:.1e}", verdict.engine,
        verdict.rates.get(verdict.engine, ""), verdict.error, verdict.reason,
    )  # fmt: skip
    shutil.rmtree(folder)
    gc.collect()
    assert (theirs[0] - theirs[1]).norm() > 1e-4 * theirs.norm()
    assert error < tolerance
    assert not of_tokens or of_tokens < TORCH_TOLERANCE
    assert verdict.engine == "torch" or (verdict.error is not None and verdict.error <= TOLERANCE)
    assert verdict.reason
