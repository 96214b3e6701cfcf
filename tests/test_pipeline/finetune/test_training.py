"""The loop above the split is that of the whole network, step by step, and does what else it is told."""

from __future__ import annotations

import copy
import pickle
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F  # noqa: N812

from featurecache.base.errors import Diverged, PipelineError, UsageError
from featurecache.cli.console import Console
from featurecache.evaluate.join import Labelled
from featurecache.extract.backbones.architectures import build_network
from featurecache.extract.backbones.cuts import CutRequest
from featurecache.extract.backbones.cutting import cut_network
from featurecache.extract.backbones.freezing import Split, split_network
from featurecache.extract.backbones.weights import fill_network, find_weights
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.cache.transform_spec import scaled_to
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.images.transform import apply_transform
from featurecache.extract.job.request import FeatureRequest
from featurecache.features.feature_arrays import FeatureArrays
from featurecache.finetune.assembly import _check_options, _class_weights, build_training
from featurecache.finetune.checkpoint import Checkpoint
from featurecache.finetune.head_layers import as_head, as_module, layers_of, random_layers
from featurecache.finetune.map_store import open_maps
from featurecache.finetune.maps import Batch, CachedMaps, ComputedMaps, in_order, shuffled
from featurecache.finetune.network import prepare
from featurecache.finetune.plan import FinetunePlan
from featurecache.finetune.recipe import Recipe
from featurecache.finetune.training import ImageSet, Training

NAME, SIDE, N, C = "shufflenet_v2_x0_5", 64, 20, 3
RECIPE = Recipe(epochs=1, batch_size=8, learning_rate=0.01)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """So little work is not worth a second thread, and where cores are busy it is waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    """shufflenet_v2_x0_5 with random weights that leave its activations in range."""
    drawn, built = torch.Generator().manual_seed(0), build_network(NAME)
    tensors = {}
    for name, tensor in built.module.state_dict().items():
        value = torch.randn(tensor.shape, generator=drawn)
        is_scale = name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight"))
        tensors[name] = 1 + 0.2 * value.tanh() if is_scale else value / max(1, value.shape[1:].numel()) ** 0.5
    fill_network(built, tensors, backbone=NAME, file_name="random")
    return built


@pytest.fixture(scope="module")
def data():
    drawn = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (N, 3, SIDE, SIDE), dtype=torch.uint8, generator=drawn)
    return images, np.arange(N) % C


TRANSFORM = scaled_to(find_weights(NAME).transform, SIDE)


_kept: dict[tuple[str, bytes], np.ndarray] = {}
_splits: dict[str, Split] = {}


def split_of(network, unfreeze: str) -> Split:
    """The network split there, its parameters a copy; to split it takes longer than to train it."""
    if unfreeze not in _splits:
        _splits[unfreeze] = split_network(NAME, copy.deepcopy(network), TRANSFORM, CutRequest(), unfreeze=unfreeze)
    return copy.deepcopy(_splits[unfreeze])


def maps_below(network, layer: str, images: torch.Tensor) -> np.ndarray:
    """The maps of a layer as rows; they are the same in every training, and cutting takes longer than training."""
    key = layer, image_digest(images.numpy().tobytes())
    if key not in _kept:
        below = cut_network(NAME, copy.deepcopy(network), TRANSFORM, [CutRequest(layer, "flatten")])
        _kept[key] = below.module(images).numpy()
    return _kept[key].copy()


def training(network, data, recipe: Recipe = RECIPE, *, unfreeze: str = "2", weights=None, y_val=None) -> Training:
    """From maps kept in float32, with a random last layer; train and val are the same images."""
    images, y = data
    split = split_of(network, unfreeze)
    rows = images.flatten(1).numpy() if split.layer is None else maps_below(network, split.layer, images)
    kept = CachedMaps([rows])
    train, val = ImageSet(kept, y), ImageSet(kept, y if y_val is None else y_val)
    last_layers = as_module(random_layers(split.feature_dim, C, seed=0))
    trained = prepare(split, last_layers, batch_norm=recipe.batch_norm, device="cpu")
    return Training(trained, split, recipe, train, val, torch.ones(C) if weights is None else weights)


def run(each: Training) -> Training:
    each.run(lambda *_: None, lambda _: None)
    return each


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.detach(), other.detach()
    return float((one - other).norm() / other.norm())


class Whole(nn.Module):
    """The plain way: everything from the pixels on, every time, the lower part merely without gradients."""

    def __init__(self, network, rate: float = RECIPE.learning_rate) -> None:
        super().__init__()
        self.body = cut_network(NAME, copy.deepcopy(network), TRANSFORM).module.eval()
        self.last = as_module(random_layers(1024, C, seed=0))
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_("stage4" in name or "conv5" in name)
        groups = []
        for part, times in [(self.last, 1), (self.body.network.conv5, 0.8), (self.body.network.stage4, 0.64)]:
            for is_matrix, decay in ((True, 0.05), (False, 0.0)):
                some = [parameter for parameter in part.parameters() if (parameter.ndim > 1) == is_matrix]
                groups.append({"params": some, "lr": rate * times, "weight_decay": decay})
        self.optimiser = torch.optim.AdamW(groups)
        self.peaks = [group["lr"] for group in groups]

    def step(self, number: int, images: torch.Tensor, codes: torch.Tensor) -> float:
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * RECIPE.rate(number, 3)
        self.optimiser.zero_grad()
        loss = F.cross_entropy(self.last(self.body(images)), codes, label_smoothing=0.1)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())


def test_an_epoch_from_cached_maps_is_an_epoch_of_the_whole_network(network, data):
    images, y = data
    whole, ours = Whole(network), training(network, data)
    for step, batch in enumerate(shuffled(np.arange(N), 1, 8, seed=0, epoch=0)):
        codes = torch.from_numpy(y[batch.rows])
        loss = whole.step(step, images[batch.rows], codes)
        (maps,) = ours.train.maps.batches([batch])
        assert float(ours.loss(maps, codes).detach()) / len(codes) == pytest.approx(loss, rel=1e-5)
        before = ours.loss_sum
        ours._step(maps, codes)
        assert (ours.loss_sum - before) / len(codes) == pytest.approx(loss, rel=1e-5)
        gradients = {name: parameter.grad for name, parameter in whole.body.network.named_parameters()}
        for name, parameter in ours.network.upper.named_parameters():
            assert relative(parameter.grad, gradients[name]) < 1e-5
    assert distance(ours, whole) < 1e-5


def distance(ours: Training, whole: Whole) -> float:
    """The largest relative difference of any tensor that is trained."""
    expected = dict(whole.body.network.named_parameters())
    pairs = [(parameter, expected[name]) for name, parameter in ours.network.upper.named_parameters()]
    return max(relative(*pair) for pair in [*pairs, (ours.network.last_layers[0].weight, whole.last[0].weight)])


def files_of(data, folder: Path) -> Labelled:
    """The images as files, all of them of train and of val."""
    samples = []
    for i, image in enumerate(data[0]):
        path = folder / f"{i}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        samples.append(Sample(str(path), path.name))
    digests = np.stack([np.frombuffer(image_digest(Path(s.path).read_bytes()), dtype=np.uint8) for s in samples])
    splits = np.repeat(["train", "val"], N)
    return Labelled((*samples, *samples), np.tile(digests, (2, 1)), np.tile(data[1], 2), list("abc"), splits, (), ())


def test_an_epoch_through_the_cache_on_disk_is_an_epoch_of_the_whole_network(network, data, tmp_path):
    """All the way: files, decoding, the engine, float32 in HDF5 and back, the loop; on the other side pixels only.

    At the usual rate: where a gradient is all but zero, AdamW makes a whole step of what the engine rounds otherwise.
    """
    torch.save(network.module.state_dict(), tmp_path / "weights.pth")
    request = FeatureRequest(NAME, weights=str(tmp_path / "weights.pth"), size=SIDE)
    labelled, own, layers = files_of(data, tmp_path), copy.deepcopy(network), as_module(random_layers(1024, C, seed=0))
    recipe = replace(RECIPE, learning_rate=Recipe.learning_rate)
    plan = FinetunePlan(tmp_path, tmp_path, tmp_path, recipe, dtype="float32", engine="torch")
    split = split_network(NAME, own, TRANSFORM, CutRequest(), unfreeze="2")
    maps = open_maps(
        Manifest(tmp_path, ()),
        labelled,
        plan,
        request,
        split,
        TRANSFORM,
        FeatureArrays(1e9, tmp_path),
        Console(quiet=True),
    )
    assert list(tmp_path.glob("*/shards/*.h5"))
    ours, whole = build_training(labelled, plan, split, layers, *maps, "cpu"), Whole(network, recipe.learning_rate)
    before = copy.deepcopy(whole)
    list(ours._epoch())
    pixels, y = torch.stack([apply_transform(image, TRANSFORM) for image in data[0]]), torch.from_numpy(data[1])
    for step, batch in enumerate(shuffled(np.arange(N), 1, 8, seed=0, epoch=0)):
        whole.step(step, pixels[batch.rows], y[batch.rows])
    assert ours.step == 3
    assert distance(ours, before) > 1e-3
    assert distance(ours, whole) < 1e-5


def test_the_running_mean_of_three_steps_is_the_one_worked_out_by_hand(network, data):
    """Of the mean a tenth, then 2 of 11, then 3 of 12 stay, so after three steps a 220th is left of the beginning."""
    ours = training(network, data)
    name = "last_layers.0.weight"
    seen = [dict(ours.network.named_parameters())[name].detach().clone()]
    for _ in ours._epoch():
        seen.append(dict(ours.network.named_parameters())[name].detach().clone())
    by_hand = seen[0] / 220 + seen[1] * 9 / 220 + seen[2] * 9 / 44 + seen[3] * 3 / 4
    assert ours.mean[name].numpy() == pytest.approx(by_hand.numpy(), rel=1e-5, abs=1e-7)
    assert relative(ours.mean[name], seen[3]) > 1e-3


def test_the_running_mean_comes_to_reach_back_over_a_twentieth_of_all_steps():
    assert Recipe().averaging_decay(900, 1000) == pytest.approx(1 - 1 / 50)


@pytest.mark.parametrize(
    ("counts", "how", "weights"),
    [
        ((6, 3, 1), "balanced", (10 / 18, 10 / 9, 10 / 3)),
        ((6, 0, 2), "balanced", (8 / 12, 4.0, 2.0)),
        ((6, 3, 1), "none", (1.0, 1.0, 1.0)),
    ],
)
def test_balanced_classes_weigh_the_same_and_rows_one_on_average(counts, how, weights):
    y = np.repeat(np.arange(3), counts)
    found = _class_weights(y, 3, how).numpy()
    assert found == pytest.approx(weights)
    assert found[y].mean() == pytest.approx(1.0)


def test_a_step_in_half_precision_has_nearly_the_loss_of_one_in_full(network, data):
    full, half = (training(network, data, replace(RECIPE, precision=precision)) for precision in ("fp32", "bf16"))
    for each in (full, half):
        next(each._epoch())
    assert half.loss_sum == pytest.approx(full.loss_sum, rel=0.02)
    assert half.loss_sum != full.loss_sum
    assert all(tensor.dtype == torch.float32 for tensor in half.mean.values())


def test_training_lowers_the_loss(network, data):
    done = run(training(network, data, replace(RECIPE, epochs=12, patience=12)))
    assert done.epochs[-1].train_loss < 0.6 * done.epochs[0].train_loss


def test_a_state_goes_on_to_the_same_bits(network, data):
    recipe = replace(RECIPE, epochs=3)
    straight = run(training(network, data, recipe))
    states = []
    stopped = training(network, data, recipe)
    for _ in range(2):
        for _ in stopped._epoch():
            states.append(copy.deepcopy(stopped.state()))
    assert [state["step"] for state in states] == [1, 2, 3, 4, 5, 6]
    for state in (states[0], states[4]):
        resumed = training(network, data, recipe)
        resumed.restore(state)
        run(resumed)
        for name, tensor in resumed.network.state_dict().items():
            assert tensor.equal(straight.network.state_dict()[name])
        assert [e.val_log_loss for e in resumed.epochs] == [e.val_log_loss for e in straight.epochs]


def test_a_step_in_parts_is_the_same_step(network, data):
    whole, parts = (run(training(network, data, replace(RECIPE, parts=n))) for n in (1, 3))
    for name, tensor in whole.mean.items():
        assert relative(parts.mean[name], tensor) < 1e-4


def test_class_weights_scale_the_loss_of_each_class(network, data):
    y = data[1]
    plain, weighted = training(network, data), training(network, data, weights=torch.tensor([0.5, 1.0, 2.0]))
    (maps,) = plain.train.maps.batches(in_order(np.arange(N), N))
    for label, weight in enumerate((0.5, 1.0, 2.0)):
        rows = torch.from_numpy(np.flatnonzero(y == label))
        codes = torch.full((len(rows),), label)
        assert weighted.loss(maps[rows], codes).item() == pytest.approx(weight * plain.loss(maps[rows], codes).item())


def test_batch_norms_keep_their_statistics_unless_they_are_trained(network, data):
    frozen, trained = (run(training(network, data, replace(RECIPE, batch_norm=how))) for how in ("frozen", "trained"))
    before, name = network.module.conv5[1].running_mean, "conv5.1"
    assert frozen.network.upper.get_submodule(name).running_mean.equal(before)
    assert not trained.network.upper.get_submodule(name).running_mean.equal(before)
    assert all(epoch.val_log_loss > 0 for epoch in trained.epochs)


def test_a_network_without_batch_norms_says_so_where_they_were_to_be_trained():
    name = "squeezenet1_1"
    split = split_network(name, build_network(name), find_weights(name).transform, CutRequest(), unfreeze="1")
    plan = FinetunePlan(Path(), Path(), Path(), replace(RECIPE, batch_norm="trained"))
    with pytest.raises(UsageError, match="nothing to train: squeezenet1_1 has no batch norm above the split"):
        _check_options(plan, split, name)


def test_all_of_the_network_is_trained_from_the_images(network, data):
    done = run(training(network, data, unfreeze="all"))
    first = "conv1.0"
    assert not done.network.upper.network.get_submodule(first).weight.equal(network.module.conv1[0].weight)


def test_it_ends_early_when_val_gets_no_better_and_keeps_the_best(network, data):
    other = (data[1] + 1) % C
    each = run(training(network, data, replace(RECIPE, epochs=20, patience=2), y_val=other))
    assert len(each.epochs) < 20
    assert len(each.epochs) == each.best_epoch.number + 2
    for name, parameter in each.network.named_parameters():
        if parameter.requires_grad:
            assert parameter.equal(each.best[name])


def test_a_loss_that_is_no_number_stops_and_says_what_to_lower(network, data):
    with pytest.raises(PipelineError) as refused:
        run(training(network, data, replace(RECIPE, learning_rate=1e30, epochs=2)))
    assert str(refused.value) == (
        "The loss is NaN or infinite at step 2 of 6 (epoch 1): the learning rate is too high. Lower --lr, which was "
        "1e+30, to 1e+29 and start again."
    )


def test_scores_that_are_no_numbers_name_the_last_step_that_was_done(network, data):
    """The loss before the only step of the epoch is a number; what that step leaves behind gives none."""
    with pytest.raises(Diverged, match=r"^The loss is NaN or infinite at step 1 of 2 \(epoch 1\): "):
        run(training(network, data, replace(RECIPE, learning_rate=1e30, batch_size=N, epochs=2)))


def test_the_rate_warms_up_and_falls_to_a_hundredth():
    rates = [RECIPE.rate(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(rates) == 1.0
    assert rates[99] == pytest.approx(0.01, abs=1e-3)
    assert all(a > b for a, b in pairwise(rates[5:]))


def test_every_epoch_has_every_row_once_and_over_all_epochs_every_view():
    rows, seen = np.arange(10), []
    for epoch in range(3):
        batches = shuffled(rows, 3, 4, seed=1, epoch=epoch)
        assert [len(batch.rows) for batch in batches] == [4, 4, 2]
        assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(10))
        seen += [pair for batch in batches for pair in zip(batch.rows.tolist(), batch.views.tolist(), strict=True)]
    assert len(set(seen)) == 30


@pytest.mark.parametrize(("n", "size", "lengths"), [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 1, 1])])
def test_one_image_that_is_left_joins_the_batch_before(n, size, lengths):
    assert [len(batch.rows) for batch in in_order(np.arange(n), size)] == lengths


def test_a_batch_takes_each_row_from_its_own_view():
    maps = CachedMaps([np.full((4, 2), view, dtype=np.float16) for view in range(3)])
    (batch,) = maps.batches([Batch(np.array([3, 0, 1]), np.array([2, 0, 1]))])
    assert batch[:, 0].tolist() == [2, 0, 1]


@pytest.mark.parametrize("name", ["logistic", "linear_svm", "ridge", "lda", "mlp"])
def test_a_head_as_layers_says_what_the_head_says(name):
    from featurecache.classify.heads.table import build_head

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32) + 5
    y = (X[:, 0] > 5).astype(int) + (X[:, 7] > 8)
    head = build_head(name, seed=0)
    if "temperature" in head.get_params():
        head.set_params(temperature=0.5)
    head.fit(X, y)
    layers = as_module(layers_of(head))
    proba = torch.softmax(layers(torch.from_numpy(X)), 1).detach().numpy()
    assert proba == pytest.approx(head.predict_proba(X), abs=1e-5)
    assert as_head(layers, 1.0).predict_proba(X) == pytest.approx(proba, abs=1e-5)
    assert (as_head(layers, 3.0).predict(X) == head.predict(X)).all()


class Hostile:
    """What runs a command when it is unpickled by somebody who trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_damaged_or_hostile_state_is_one_sentence_and_runs_nothing(network, data, tmp_path):
    checkpoint, taker = Checkpoint(tmp_path, {"seed": 0}), training(network, data)
    checkpoint.save(after_two_steps(network, data))
    whole = checkpoint.path.read_bytes()
    checkpoint.restore(taker)
    assert taker.step == 2
    before = copy.deepcopy(taker.state())
    hostile = pickle.dumps(Hostile(tmp_path / "ran"), protocol=2)
    for content in (b"", b"no state at all", whole[:40], whole[: len(whole) // 2], hostile):
        checkpoint.path.write_bytes(content)
        with pytest.raises(PipelineError, match="Delete it and start without --resume"):
            checkpoint.restore(taker)
    torch.save(Hostile(tmp_path / "ran"), checkpoint.path)
    with pytest.raises(PipelineError, match="is damaged"):
        checkpoint.restore(taker)
    assert_same(before, taker.state())
    assert not (tmp_path / "ran").exists()
    checkpoint.path.with_name(f"{checkpoint.path.name}-123").touch()  # of a process that was killed while it wrote
    checkpoint.forget()
    assert not list(tmp_path.iterdir())


def after_two_steps(network, data) -> dict:
    """The state of a training in the middle of its first epoch of three steps."""
    each = training(network, data)
    steps = each._epoch()
    next(steps), next(steps)
    return copy.deepcopy(each.state())


def assert_same(one, other) -> None:
    """That two states are one, but for the time."""
    for name in ("weights", "mean", "best"):
        assert all(torch.equal(one[name][key], other[name][key]) for key in one[name])
    assert all(one[name] == other[name] for name in ("step", "loss_sum", "epochs"))


def an_expanded_tensor(state):
    name, tensor = next(iter(state["weights"].items()))
    state["weights"][name] = torch.zeros(1).expand(tensor.shape)


def a_vast_tensor(state):
    state["mean"][next(iter(state["mean"]))] = torch.zeros(1).expand(10**9, 10**9)


def a_tensor_that_is_not_finite(state):
    next(iter(state["best"].values())).fill_(float("nan"))


def a_sparse_tensor(state):
    name, tensor = next(iter(state["weights"].items()))
    state["weights"][name] = torch.zeros(tensor.shape).to_sparse()


def another_type(state):
    name, tensor = next(iter(state["weights"].items()))
    state["weights"][name] = tensor.double()


def a_name_more(state):
    state["weights"]["more"] = torch.zeros(3)


def averages_of_another_shape(state):
    state["optimiser"]["state"][0]["exp_avg"] = torch.zeros(1)


def another_optimiser(state):
    del state["optimiser"]["state"][0]["exp_avg_sq"]


def deep_epochs(state):
    state["epochs"] = "[" * 100_000


HARMS = [
    an_expanded_tensor, a_vast_tensor, a_tensor_that_is_not_finite, a_sparse_tensor, another_type, a_name_more,
    averages_of_another_shape, another_optimiser, deep_epochs,
    lambda state: state.update(step=-1), lambda state: state.update(step=10**9), lambda state: state.update(step=2.0),
    lambda state: state.update(step=True), lambda state: state.update(loss_sum=float("nan")),
    lambda state: state.update(elapsed="1"), lambda state: state.update(seconds=-1.0),
    lambda state: state.update(epochs=[]), lambda state: state.update(epochs='[{"number": 1}]'),
    lambda state: state.update(identity="another"), lambda state: state.update(optimiser=[]),
    lambda state: state.update(weights=None), lambda state: state.pop("best"),
]  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_a_state_that_does_not_fit_is_refused_before_anything_is_taken_over(network, data, tmp_path, harm):
    checkpoint, taker = Checkpoint(tmp_path, {"seed": 0}), training(network, data)
    state, before = after_two_steps(network, data), copy.deepcopy(taker.state())
    harm(state)
    torch.save({"identity": checkpoint.identity, **state}, checkpoint.path)
    with pytest.raises(PipelineError, match=r"is damaged \(.*\)\. Delete it and start without --resume\."):
        checkpoint.restore(taker)
    assert_same(before, taker.state())
    assert not taker.optimiser.state


def test_how_the_optimiser_steps_is_never_taken_from_a_file(network, data, tmp_path):
    checkpoint, taker = Checkpoint(tmp_path, {"seed": 0}), training(network, data)
    state = after_two_steps(network, data)
    for group in state["optimiser"]["param_groups"]:
        group.update(weight_decay=1e9, peak=1e9, betas=(0.0, 0.0), maximize=True)
    torch.save(state, checkpoint.path)
    checkpoint.restore(taker)
    own = training(network, data).optimiser.param_groups
    for group, ours in zip(taker.optimiser.param_groups, own, strict=True):
        assert {k: v for k, v in group.items() if k not in ("params", "lr")} == {
            k: v for k, v in ours.items() if k not in ("params", "lr")
        }


def test_a_state_that_is_packed_or_a_link_out_is_not_read(network, data, tmp_path):
    (tmp_path / "runs").mkdir()
    checkpoint, taker = Checkpoint(tmp_path / "runs", {"seed": 0}), training(network, data)
    checkpoint.save(after_two_steps(network, data))
    with zipfile.ZipFile(checkpoint.path) as whole, zipfile.ZipFile(tmp_path / "packed", "w") as packed:
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    outside = checkpoint.path.rename(tmp_path / "outside")
    (tmp_path / "packed").rename(checkpoint.path)
    with pytest.raises(PipelineError, match="it is packed"):
        checkpoint.restore(taker)
    checkpoint.path.unlink()
    checkpoint.path.symlink_to(outside)
    with pytest.raises(PipelineError, match="a link that leads out"):
        checkpoint.restore(taker)


def test_a_state_of_another_layout_is_damaged_as_well(network, data, tmp_path):
    checkpoint = Checkpoint(tmp_path, {"seed": 0})
    checkpoint.save({"steps": 3})
    with pytest.raises(PipelineError, match="is damaged"):
        checkpoint.restore(training(network, data))


def made_maps(tmp_path, dtype="float32", engine=None):
    path = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    digests = np.frombuffer(image_digest(path.read_bytes()), dtype=np.uint8).reshape(1, 32)
    return ComputedMaps([Sample(str(path), "one.png")], digests, [None], TRANSFORM, "full", engine, dtype)


def test_an_image_that_changed_or_went_is_named_and_not_trained_on(tmp_path):
    maps, path = made_maps(tmp_path), tmp_path / "one.png"
    (pixels,) = maps.batches(in_order(np.arange(1), 1))
    assert pixels.shape == (1, 3, SIDE, SIDE)
    path.write_bytes(path.read_bytes() + b"more")
    for _ in range(2):
        with pytest.raises(PipelineError, match="cannot be trained on any more: "):
            list(maps.batches(in_order(np.arange(1), 1)))
        path.unlink(missing_ok=True)


def test_maps_that_half_precision_cannot_hold_are_named_as_that(tmp_path):
    engine = Mock()
    engine.run.return_value = np.full((1, 4), 1e5, dtype=np.float32)
    with pytest.raises(PipelineError, match="overflow float16: use --dtype float32"):
        list(made_maps(tmp_path, "float16", engine).batches(in_order(np.arange(1), 1)))
    (maps,) = made_maps(tmp_path, "float32", engine).batches(in_order(np.arange(1), 1))
    assert maps.max() == 1e5


NO_MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("where", ["loss", "scores", "step"])
def test_memory_that_is_not_there_is_a_sentence_with_a_way_out(network, data, monkeypatch, where):
    ours = training(network, data)
    owner = ours.optimiser if where == "step" else ours
    monkeypatch.setattr(owner, where, Mock(side_effect=NO_MEMORY))
    says = "A pass of 8 images needs more memory than there is: cut each step into more passes with --accumulate 2"
    with pytest.raises(PipelineError, match=f"^{says}, and start again.$"):
        run(ours)


def test_where_steps_must_be_whole_the_way_out_is_a_smaller_step(network, data):
    ours = training(network, data, replace(RECIPE, batch_norm="trained"))
    ours.loss = Mock(side_effect=NO_MEMORY)
    with pytest.raises(PipelineError, match="than there is: lower --batch-size, which was 8, and start again"):
        run(ours)


def test_another_failure_is_not_taken_for_want_of_memory(network, data):
    ours = training(network, data)
    ours.loss = Mock(side_effect=RuntimeError("another matter"))
    with pytest.raises(RuntimeError, match="another matter"):
        run(ours)


def test_val_runs_in_passes_of_the_same_size(network, data):
    ours, seen = training(network, data, replace(RECIPE, parts=3)), []
    ours.network.register_forward_hook(lambda _, arguments, __: seen.append(len(arguments[0])))
    run(ours)
    assert max(seen) == 3
    assert sum(seen) == 2 * N


def test_only_weights_of_layers_are_decayed(network, data):
    ours = training(network, data)
    names = {id(parameter): name for name, parameter in ours.network.named_parameters()}
    for group in ours.optimiser.param_groups:
        for parameter in group["params"]:
            is_layer = names[id(parameter)].endswith("weight") and parameter.ndim > 1
            assert group["weight_decay"] == (ours.recipe.weight_decay if is_layer else 0.0)
