"""Whatever a training script wraps weights into: the tensors of the network are found, or the refusal says why not."""

import argparse
import collections
import datetime
import itertools
import pathlib
import types

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from featurecache.base.errors import WeightsMismatch
from featurecache.extract.backbones import registry
from featurecache.extract.backbones.architectures import build_network
from featurecache.extract.backbones.fitting import fit_tensors
from featurecache.extract.backbones.registry import load_backbone
from featurecache.extract.backbones.tensor_files import read_tensors
from featurecache.extract.backbones.weights import fill_network, find_weights, save_weights, weights_digest
from featurecache.extract.cache.memo import FileState

NAME = "shufflenet_v2_x0_5"
FILE = "some.pth"


@pytest.fixture(scope="module")
def network():
    return build_network(NAME)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return dict(models.get_model(NAME, weights=None, num_classes=7).state_dict())


@pytest.fixture(scope="module")
def other(state):
    """The same network with other values, as the running mean of the weights has them."""
    return {name: tensor + 0.5 for name, tensor in state.items()}


ONES = torch.ones(3)


@pytest.fixture(autouse=True)
def no_edits_to_wait_for(monkeypatch):
    """Files of these tests are not edited, so the clock need not move on before they are read."""
    monkeypatch.setattr(registry, "settled_state", lambda path: FileState.of(path.stat()))


def below(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_head(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def read(content, tmp_path):
    torch.save(content, tmp_path / FILE)
    return read_tensors(tmp_path / FILE)


def fitted(network, content, tmp_path, part=""):
    return fit_tensors(network, read(content, tmp_path), backbone=NAME, file_name=FILE, part=part)


def refused(network, content, tmp_path, part=""):
    with pytest.raises(WeightsMismatch) as refusal:
        fitted(network, content, tmp_path, part)
    return str(refusal.value)


WRAPPINGS = {
    "plain": ("", lambda s: s),
    "tutorial": ("model_state_dict", lambda s: {"epoch": 3, "model_state_dict": s, "loss": 0.1}),
    "parallel": ("module", lambda s: below("module.", s)),
    "compiled and parallel": ("net._orig_mod.module", lambda s: {"net": below("_orig_mod.module.", s)}),
    "lightning": ("state_dict.model", lambda s: {"state_dict": below("model.", s) | {"criterion.weight": ONES}}),
    "lightning of a parallel model": ("state_dict.model.module", lambda s: {"state_dict": below("model.module.", s)}),
    "averaged": ("module", lambda s: {"n_averaged": torch.tensor(3), **below("module.", s)}),
    "byol": (
        "online_network.encoder",
        lambda s: {"online_network": below("encoder.", without_head(s)) | {"projector.0.weight": ONES}},
    ),
    "barlow twins": (
        "model.module.backbone",
        lambda s: {"model": below("module.backbone.", without_head(s)) | {"module.projector.0.weight": ONES}},
    ),
    "dino": ("teacher.module.backbone", lambda s: {"teacher": below("module.backbone.", without_head(s))}),
    "lightly": (
        "state_dict.backbone",
        lambda s: {"state_dict": below("backbone.", without_head(s)) | {"projection_head.layers.0.weight": ONES}},
    ),
    "simsiam": (
        "state_dict.module.encoder",
        lambda s: {"state_dict": below("module.encoder.", s) | {"module.predictor.0.weight": ONES}},
    ),
    "moco before its second encoder moves": (
        "state_dict.module.encoder_q",
        lambda s: {
            "state_dict": below("module.encoder_q.", s) | below("module.encoder_k.", s) | {"module.queue": ONES}
        },
    ),
    "a list": ("0", lambda s: [s]),
    "no classifier": ("", without_head),
    "a classifier of two layers": (
        "",
        lambda s: without_head(s) | {"fc.0.weight": torch.ones(8, 1024), "fc.3.weight": torch.ones(2, 8)},
    ),
    "a head by another name": ("", lambda s: without_head(s) | {"head.0.weight": ONES, "arcface.kernel": ONES}),
    "swav": (
        "module",
        lambda s: below("module.", without_head(s) | {"prototypes.weight": ONES, "projection_head.0.bias": ONES}),
    ),
    "deep": ("runs.0.checkpoint.agent.vision", lambda s: {"runs": [{"checkpoint": {"agent": {"vision": s}}}]}),
    "fastai": (
        "model.0",
        lambda s: {"model": below("0.", without_head(s)) | {"1.8.weight": ONES}, "opt": {"state": [{"mom": ONES}]}},
    ),
    "optimizer": (
        "model",
        lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": ONES}}, "param_groups": [{"params": [0]}]}},
    ),
    "operations counted": ("", lambda s: s | {"total_ops": ONES, "conv1.total_params": ONES}),
    "twice the same": (
        "model",
        lambda s: {"model": s, "model_ema": below("module.", {n: t.clone() for n, t in s.items()})},
    ),
    "settings": (
        "model",
        lambda s: {
            "model": s,
            "args": argparse.Namespace(lr=np.float32(0.1), out=pathlib.Path("a")),
            "accuracy": np.float64(0.5),
            "table": np.zeros((2, 3)),
            "kind": np.dtype("f8"),
            "when": datetime.datetime(2024, 5, 1),
            "more": types.SimpleNamespace(a=1),
        },
    ),
    "dictionary by another name": ("state", lambda s: collections.defaultdict(list, state=s, losses=[0.3])),
    "parameters": ("params", lambda s: {"params": {n: nn.Parameter(t, t.is_floating_point()) for n, t in s.items()}}),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_tensors_of_the_network_are_found_in_any_wrapping(wrapping, network, state, tmp_path):
    place, wrap = WRAPPINGS[wrapping]
    fit = fitted(network, wrap(state), tmp_path)
    assert fit.place == place
    assert fit.tensors.keys() == {n for n in without_head(state) if not n.endswith("num_batches_tracked")}
    assert all(torch.equal(tensor, state[name]) for name, tensor in fit.tensors.items())


def test_what_was_taken_is_one_line_and_nothing_for_a_plain_state_dict(network, state, tmp_path):
    assert fitted(network, state, tmp_path).line(NAME, FILE) == ""
    content = {
        "state_dict": below("module.encoder_q.", state) | below("module.encoder_k.", state),
        "queue": {"a": ONES},
    }
    n_taken = len([name for name in without_head(state) if not name.endswith("num_batches_tracked")])
    n_others = len([name for name in state if not name.endswith("num_batches_tracked")])
    assert n_others == n_taken + 2
    assert fitted(network, content, tmp_path).line(NAME, FILE) == (
        f"Weights of {NAME}: {n_taken} tensors below 'state_dict.module.encoder_q' of some.pth; not used: "
        f"'state_dict.module.encoder_k' ({n_others}), 'queue' (1)"
    )


def test_several_sets_of_weights_that_differ_are_refused_and_each_can_be_named(network, state, other, tmp_path):
    content = {"model": state, "model_ema": below("module.", other), "epoch": 3}
    assert refused(network, content, tmp_path) == (
        f"some.pth holds 2 different sets of weights of {NAME}, below 'model' and 'model_ema.module'. Name one of "
        "them, such as --weights 'some.pth#model_ema.module'."
    )
    assert torch.equal(fitted(network, content, tmp_path, "model").tensors["conv1.0.weight"], state["conv1.0.weight"])
    for part in ("model_ema", "model_ema.module", "module"):
        assert fitted(network, content, tmp_path, part).place == "model_ema.module"
    assert refused(network, content, tmp_path, "ema") == (
        f"some.pth has no weights of {NAME} below 'ema'; it has them below 'model' and 'model_ema.module'."
    )


def test_the_file_itself_is_named_by_a_dot(network, state, other, tmp_path):
    content = state | below("teacher.", other)
    assert "below '.' and 'teacher'" in refused(network, content, tmp_path)
    assert fitted(network, content, tmp_path, ".").place == ""
    assert fitted(network, content, tmp_path, "teacher").place == "teacher"


DIFFERENCES = {
    "a larger network of the family": (
        lambda s: s | {"stage2.4.branch1.0.weight": torch.ones(1)}, "the network has no 'stage2.4.branch1.0.weight'",
    ),
    "one more stage": (lambda s: s | {"stage5.0.branch2.0.weight": torch.ones(1)},
                       "the network has no 'stage5.0.branch2.0.weight'"),
    "a tensor fewer, wrapped": (
        lambda s: {"model": {n: t for n, t in s.items() if n != "conv5.1.bias"}},
        "below 'model', 'conv5.1.bias' (1024,) is missing from the file, where 'model.conv5.1.weight' (1024,) is most "
        "like it",
    ),
    "other names": (
        lambda s: {"stem.conv.weight": s["conv1.0.weight"], "stem.bn.weight": s["conv1.1.weight"]},
        "'conv1.0.weight' (24, 3, 3, 3) is missing from the file, where 'stem.conv.weight' (24, 3, 3, 3) is most like "
        "it",
    ),
    "another width": (
        lambda s: s | {"conv1.0.weight": torch.ones(12, 3, 3, 3)},
        "'conv1.0.weight' is (12, 3, 3, 3) in the file and (24, 3, 3, 3) in the network",
    ),
    "whole numbers": (
        lambda s: s | {"conv1.0.weight": torch.ones(24, 3, 3, 3, dtype=torch.int8)},
        "'conv1.0.weight' is torch.int8 in the file, which are no weights of a network",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_the_first_difference_is_named_with_what_is_most_like_it(kind, network, state, tmp_path):
    change, clause = DIFFERENCES[kind]
    assert refused(network, change(state), tmp_path) == (
        f"some.pth does not hold weights of {NAME}: {clause}; name the network that it is of"
    )


class Run:
    """Whatever a file names that is on no list."""


def test_no_other_class_is_read_and_nothing_stays_allowed(state, tmp_path):
    allowed = set(torch.serialization.get_safe_globals())
    with pytest.raises(WeightsMismatch, match="reading it would run code from the file"):
        read({"model": state, "args": Run()}, tmp_path)
    assert set(torch.serialization.get_safe_globals()) == allowed
    assert read({"model": {"a": torch.ones(2)}, "args": argparse.Namespace(a=1)}, tmp_path).keys() == {"model.a"}
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_a_dictionary_in_itself_ends(tmp_path):
    content = {"a": torch.ones(2)}
    content["again"] = content
    assert read(content, tmp_path).keys() == {"a"}


def test_two_tensors_of_one_full_name_are_refused(tmp_path):
    with pytest.raises(WeightsMismatch, match=r"^some\.pth holds two tensors called 'a\.b'; save"):
        read({"a": {"b": torch.ones(2)}, "a.b": torch.zeros(2)}, tmp_path)


def dense(*widths):
    return nn.Sequential(*(nn.Linear(*pair) for pair in itertools.pairwise(widths)))


CLASSIFIERS = {
    "another": lambda width: dense(width, 16, 5),
    "one layer": lambda width: nn.Linear(width, 5),
    "none": lambda width: nn.Identity(),
}


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_classifier_that_is_another_one_or_missing_leaves_the_layers_below_it(classifier, tmp_path):
    whole = models.mobilenet_v3_small(weights=None)
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    whole.classifier = CLASSIFIERS[classifier](576)
    torch.save({"state_dict": below("net.", whole.state_dict())}, tmp_path / "own.pth")
    name = "mobilenet_v3_small"
    own, complete = (load_backbone(name, weights=str(tmp_path / file)) for file in ("own.pth", "whole.pth"))
    tensors = own.module.state_dict()
    assert all(torch.equal(tensor, tensors[n]) for n, tensor in complete.module.state_dict().items())
    assert own.note == (
        f"Weights of {name}: 206 tensors below 'state_dict.net' of own.pth; the classifier of {name} is not in it"
    )
    with pytest.raises(WeightsMismatch) as refusal:
        load_backbone(name, weights=str(tmp_path / "own.pth"), layer="classifier")
    assert str(refusal.value) == (
        f"own.pth has no 'classifier.0.weight' that fits {name}, which this layer needs: its classifier is another "
        "one, or is missing. Choose a layer below it, such as the default."
    )


# Shapes of a classifier of two layers, and whether the hidden layers of the network's own are among them.
CUSTOM = {
    "alexnet": ({"classifier.1.weight": (64, 9216), "classifier.3.weight": (5, 64)}, False),
    "vgg16": ({"classifier.0.weight": (256, 25088), "classifier.3.weight": (5, 256)}, False),
    "mobilenet_v3_large": ({"classifier.1.weight": (64, 960), "classifier.4.weight": (5, 64)}, False),
    "efficientnet_b0": ({"classifier.1.weight": (64, 1280), "classifier.4.weight": (5, 64)}, True),
    "mobilenet_v2": ({"classifier.1.weight": (64, 1280), "classifier.4.weight": (5, 64)}, True),
    "densenet121": ({"classifier.1.weight": (64, 1024), "classifier.4.weight": (5, 64)}, True),
    "squeezenet1_1": ({"classifier.1.weight": (5, 512, 1, 1)}, True),
    "resnet18": ({"fc.0.weight": (32, 512), "fc.3.weight": (7, 32)}, True),
    "vit_b_16": ({"heads.weight": (5, 768)}, True),
    "swin_t": ({"head.0.weight": (64, 768), "head.2.weight": (5, 64)}, True),
    "efficientnet_lite0": ({"_fc.0.weight": (64, 1280), "_fc.2.weight": (5, 64)}, True),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_every_family_takes_another_classifier_or_none(name):
    shapes, has_classifier = CUSTOM[name]
    found = build_network(name)
    features = {n: torch.zeros(()).expand(t.shape) if t.is_floating_point() else torch.zeros(t.shape, dtype=t.dtype)
                for n, t in found.module.state_dict().items() if not n.startswith(("classifier.", "head"))}  # fmt: skip
    custom = {n: torch.zeros(()).expand(shape) for n, shape in shapes.items()}
    for tensors in (features | custom, below("model.", features)):
        fit = fit_tensors(found, tensors, backbone=name, file_name=FILE)
        assert fit.has_classifier == has_classifier
        assert not fit.unused
        assert fit.tensors.keys() <= features.keys()


def test_a_larger_network_of_a_family_is_not_taken_for_a_smaller_one():
    smaller, larger = build_network("resnet18"), build_network("resnet34")
    tensors = {n: torch.zeros(()).expand(t.shape) for n, t in larger.module.state_dict().items()}
    with pytest.raises(WeightsMismatch, match=r"the network has no 'layer1\.2\.conv1\.weight'; name the network"):
        fit_tensors(smaller, tensors, backbone="resnet18", file_name=FILE)


def test_weights_without_a_classifier_are_saved_and_are_the_same_again(tmp_path):
    name, state = "mobilenet_v3_small", models.mobilenet_v3_small(weights=None).state_dict()
    features = {n: tensor for n, tensor in state.items() if n.startswith("features.")}
    digests = []
    for tensors in (features, None):
        found = build_network(name)
        if tensors is None:
            tensors = read_tensors(tmp_path / "saved.safetensors")
        fill_network(found, tensors, backbone=name, file_name=FILE)
        save_weights(tmp_path / "saved.safetensors", found, find_weights(name).transform)
        digests.append(weights_digest(found))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("part", ["model", "ema.module"])
def test_a_part_of_a_file_is_weights_of_its_own_name(part, state, other, tmp_path):
    torch.save({"model": state, "ema": below("module.", other)}, tmp_path / "both#1.pth")
    torch.save(state if part == "model" else other, tmp_path / "alone.pth")
    found = load_backbone(NAME, weights=f"{tmp_path}/both#1.pth#{part}")
    assert (found.weights, found.weights_path) == (f"both#1.pth#{part}", tmp_path / "both#1.pth")
    assert found.weights_digest == load_backbone(NAME, weights=str(tmp_path / "alone.pth")).weights_digest
