"""Networks of timm: their vectors are timm's own, their keys hold what determines them, their files are safe."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models

from featurecache.base.errors import BackboneError, UnknownBackbone, UnknownLayer, WeightsMismatch, WeightsMissing
from featurecache.extract.backbones.names import name_in_spec
from featurecache.extract.backbones.registry import Backbone, load_backbone
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.protocol import source_of
from featurecache.extract.job.request import FeatureRequest, resolve

SMALL = ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"]
WITH_REGISTERS = ("vit_tiny_patch16_224", {"img_size": 48, "reg_tokens": 3, "depth": 4, "embed_dim": 24})


def images(side: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalised(backbone: Backbone, pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.transform.mean, backbone.transform.std))
    return (pixels / 255 - mean) / std


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def key_of(name: str, backbone: Backbone) -> str:
    return resolve(FeatureRequest(name), backbone).spec.key


@pytest.mark.parametrize("name", SMALL)
def test_a_vector_is_what_timm_gives_to_its_last_layer(folders, name):
    folder, network = folders(name)
    backbone = load_backbone(f"local-dir:{folder}")
    pixels = images(backbone.transform.crop)
    with torch.inference_mode():
        x = normalised(backbone, pixels)
        theirs = network.forward_head(network.forward_features(x), pre_logits=True)
        assert relative_error(backbone.module(pixels), theirs) < 1e-5
    assert (theirs[0] - theirs[1]).norm() > 1e-3 * theirs.norm()
    assert backbone.feature_dim == theirs.shape[1]
    vectors = build_engine(source_of(backbone), engine="torch", batch_size=2).run(pixels)
    assert relative_error(torch.from_numpy(vectors), theirs) < 1e-5


def test_onnx_runtime_gives_the_same(folders):
    backbone = load_backbone(f"local-dir:{folders('test_vit')[0]}")
    pixels = images(backbone.transform.crop)
    vectors = build_engine(source_of(backbone), engine="onnxruntime", batch_size=2).run(pixels)
    assert relative_error(torch.from_numpy(vectors), backbone.module(pixels)) < 1e-4


@pytest.mark.parametrize("pooling", ["cls", "avg", "cls+avg", "max"])
def test_tokens_are_pooled_without_those_that_belong_to_no_patch(folders, pooling):
    name, arguments = WITH_REGISTERS
    folder, network = folders(name, **arguments)
    backbone = load_backbone(f"local-dir:{folder}", pooling=pooling, size=48)
    pixels = images(48)
    with torch.inference_mode():
        tokens = network.forward_features(normalised(backbone, pixels))
    first, patches = tokens[:, 0], tokens[:, 4:]
    assert tokens.shape[1] == 1 + 3 + 9
    expected = {
        "cls": first,
        "avg": patches.mean(1),
        "cls+avg": torch.cat([first, patches.mean(1)], 1),
        "max": patches.amax(1),
    }
    assert relative_error(backbone.module(pixels), expected[pooling]) < 1e-5
    assert (backbone.layer, backbone.pooling) == ("forward_features", pooling)


def test_stages_of_a_transformer_are_its_quarters(folders):
    name, arguments = WITH_REGISTERS
    folder, network = folders(name, **arguments)
    backbone = load_backbone(f"local-dir:{folder}", layer="stages", pooling="avg", size=48)
    assert backbone.layer == "stages:blocks.0+blocks.1+blocks.2+forward_features"
    pixels = images(48)
    with torch.inference_mode():
        final, inner = network.forward_intermediates(normalised(backbone, pixels), norm=False, output_fmt="NLC")
    theirs = torch.cat([*(each.mean(1) for each in inner[:3]), final[:, 4:].mean(1)], 1)
    assert relative_error(backbone.module(pixels), theirs) < 1e-5


def test_stages_of_a_convolutional_network_are_those_that_timm_names(folders):
    backbone = load_backbone(f"local-dir:{folders('test_resnet')[0]}", layer="stages")
    assert backbone.layer.startswith("stages:")
    assert backbone.layer.endswith("+pre_logits")
    assert "layer4" not in backbone.layer
    pixels = images(backbone.transform.crop)
    folded = build_engine(source_of(backbone), engine="torch", batch_size=2).run(pixels)
    assert relative_error(torch.from_numpy(folded), backbone.module(pixels)) < 1e-5


def test_a_layer_by_name_and_one_that_there_is_not(folders):
    name = f"local-dir:{folders('test_resnet')[0]}"
    assert load_backbone(name, layer="layer2").pooling == "avg"
    with pytest.raises(UnknownLayer, match="has no layer 'layer9'; nearest: layer"):
        load_backbone(name, layer="layer9")
    with pytest.raises(BackboneError, match="Pooling 'cls' takes the first token of a transformer"):
        load_backbone(name, pooling="cls")


def test_another_side_interpolates_the_position_embeddings(folders):
    folder, network = folders("test_vit")
    name = f"local-dir:{folder}"
    side = 2 * network.patch_embed.patch_size[0]
    backbone = load_backbone(name, size=side)
    network_of = backbone.module.network.network
    assert backbone.transform.crop == side
    assert network_of.pos_embed.shape[1] < network.pos_embed.shape[1]
    assert backbone.weights_digest == load_backbone(name).weights_digest
    with pytest.raises(BackboneError, match="does not take images of 37 x 37 pixels"):
        load_backbone(name, size=37)


def test_a_folder_that_moves_keeps_its_key_and_another_configuration_has_another(folders, tmp_path):
    folder, _ = folders("test_vit")
    before = load_backbone(f"local-dir:{folder}")
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / folder.name))
    name = f"local-dir:{moved}"
    assert key_of(name, load_backbone(name)) == key_of(f"local-dir:{folder}", before)
    config = json.loads((moved / "config.json").read_text())
    config["pretrained_cfg"]["crop_mode"] = "border"
    config["model_args"] = {"global_pool": "avg", "fc_norm": False}
    (moved / "config.json").write_text(json.dumps(config))
    after = resolve(FeatureRequest(name), load_backbone(name)).spec
    differing = resolve(FeatureRequest(f"local-dir:{folder}"), before).spec.differences(after)
    assert {"transform.fit", "network"} <= set(differing)
    assert "weights_digest" not in differing


def test_resnet50_by_three_ways_is_one_set_of_vectors_and_three_keys(timm, tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = models.resnet50(weights=None)
    file = tmp_path / "resnet50.safetensors"
    save_file(network.state_dict(), file)
    commit = "a" * 40
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    there = tmp_path / "hf" / "hub" / "models--org--net"
    (there / "snapshots" / commit).mkdir(parents=True)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text(commit)
    shutil.copy(file, there / "snapshots" / commit / "model.safetensors")
    cfg = timm.get_pretrained_cfg("resnet50.tv_in1k").to_dict()
    (there / "snapshots" / commit / "config.json").write_text(
        json.dumps({"architecture": "resnet50", "pretrained_cfg": cfg})
    )
    ways = {"resnet50": str(file), "timm/resnet50.tv_in1k": str(file), "hf-hub:org/net": None}
    loaded = {name: load_backbone(name, weights=weights, size=64) for name, weights in ways.items()}
    pixels = images(64)
    first, *others = (backbone.module(pixels) for backbone in loaded.values())
    assert all(relative_error(other, first) < 1e-5 for other in others)
    assert len({backbone.weights_digest for backbone in loaded.values()}) == 1
    specs = {name: resolve(FeatureRequest(name), backbone).spec for name, backbone in loaded.items()}
    assert len({spec.key for spec in specs.values()}) == 3
    assert {"backbone", "source"} <= set(specs["resnet50"].differences(specs["hf-hub:org/net"]))
    assert specs["hf-hub:org/net"].about["license"] == "bsd-3-clause"
    assert specs["hf-hub:org/net"].about["commit"] == commit


def test_names_in_specs_have_no_place_and_no_revision(tmp_path):
    assert name_in_spec(f"local-dir:{tmp_path}/a b") == "local-dir:a_b"
    assert name_in_spec("hf-hub:org/net@v1.0") == "hf-hub:org/net"
    assert name_in_spec("timm/resnet50.a1_in1k") == "timm/resnet50.a1_in1k"
    with pytest.raises(UnknownBackbone, match="names no folder of the hub"):
        name_in_spec("hf-hub:../net")


def test_unknown_names_and_tags_list_what_there_is(timm):
    with pytest.raises(UnknownBackbone, match=r"Did you mean timm/resnet50"):
        load_backbone("timm/resnet5O")
    with pytest.raises(WeightsMissing, match=r"no weights 'nonsense' of timm/resnet50: it has .*a1_in1k"):
        load_backbone("timm/resnet50.nonsense")


def test_without_timm_one_sentence_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)
    (tmp_path / "config.json").write_text("{}")
    for name in ("timm/resnet50", f"local-dir:{tmp_path}"):
        with pytest.raises(BackboneError) as refused:
            load_backbone(name)
        assert str(refused.value).endswith("which is not installed: `pip install 'featurecache[timm]'`.")


def test_a_pickle_in_a_folder_is_not_read(folders, tmp_path):
    folder = Path(shutil.copytree(folders("test_resnet")[0], tmp_path / "unsafe"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsMissing, match=r"has no model\.safetensors\. It has pytorch_model\.bin\."):
        load_backbone(f"local-dir:{folder}")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"architecture": "no_such_network"}', '{"architectures": ["A"]}'])
def test_a_folder_of_something_else_is_refused(folders, tmp_path, text):
    folder = Path(shutil.copytree(folders("test_resnet")[0], tmp_path / "other"))
    (folder / "config.json").write_text(text)
    with pytest.raises(BackboneError):
        load_backbone(f"local-dir:{folder}")


def test_tensors_of_another_network_are_refused(folders, tmp_path):
    folder = Path(shutil.copytree(folders("test_resnet")[0], tmp_path / "mixed"))
    shutil.copy(folders("test_vit")[0] / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(WeightsMismatch, match=r"are not those of its network: the file has no 'conv1\.0\.weight'\.$"):
        load_backbone(f"local-dir:{folder}")


def test_another_number_of_classes_is_named(folders, tmp_path):
    folder = Path(shutil.copytree(folders("test_resnet")[0], tmp_path / "classes"))
    tensors = load_file(folder / "model.safetensors")
    n = 7
    save_file({**tensors, "fc.weight": tensors["fc.weight"][:n].clone(), "fc.bias": tensors["fc.bias"][:n].clone()},
              folder / "model.safetensors")  # fmt: skip
    with pytest.raises(WeightsMismatch) as refused:
        load_backbone(f"local-dir:{folder}")
    assert str(refused.value).endswith(
        "'fc.weight' has the shape (7, 96) in the file and (1000, 96) in the network; for 7 classes set num_classes "
        "in its config.json."
    )


def test_a_tensor_of_another_shape_and_one_too_many_are_named(folders, tmp_path):
    folder = Path(shutil.copytree(folders("test_resnet")[0], tmp_path / "shapes"))
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "extra.weight": tensors["fc.bias"].clone()}, folder / "model.safetensors")
    with pytest.raises(WeightsMismatch, match=r"the network has no 'extra\.weight', which is in the file\.$"):
        load_backbone(f"local-dir:{folder}")
    save_file({**tensors, "bn1.weight": tensors["fc.bias"].clone()}, folder / "model.safetensors")
    with pytest.raises(
        WeightsMismatch, match=r"'bn1\.weight' has the shape \(1000\) in the file and \(\d+\) in the net"
    ):
        load_backbone(f"local-dir:{folder}")


def test_a_view_of_a_request_keeps_its_folder(tmp_path):
    request = replace(FeatureRequest(f"local-dir:{tmp_path}"), dtype="float16")
    assert request.backbone == f"local-dir:{tmp_path}"
