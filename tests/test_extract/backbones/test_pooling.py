import pytest
import torch

from featurecache.base.errors import BackboneError
from featurecache.extract.backbones.pooling import POOLINGS, Pooling

# Two images, three channels, two by two places: channel d of image b holds 0, 1, 2, 3 times (d + 1), plus 10 b.
PLACES = torch.arange(4.0).view(1, 1, 2, 2)
MAP = PLACES * torch.arange(1.0, 4.0).view(1, 3, 1, 1) + 10.0 * torch.arange(2.0).view(2, 1, 1, 1)
TOKENS = MAP.flatten(2).transpose(1, 2)


def test_avg_is_the_mean_over_places():
    assert Pooling("avg")(MAP).tolist() == [[1.5, 3.0, 4.5], [11.5, 13.0, 14.5]]


def test_max_is_the_largest_place():
    assert Pooling("max")(MAP).tolist() == [[3.0, 6.0, 9.0], [13.0, 16.0, 19.0]]


def test_gem_is_the_cubic_mean_of_what_is_positive():
    maps = torch.tensor([-5.0, 0.0, 1.0, 2.0]).view(1, 1, 2, 2)
    assert Pooling("gem")(maps).item() == pytest.approx((9 / 4) ** (1 / 3), rel=1e-6)


def test_gem_lies_between_avg_and_max_for_positive_maps():
    maps = torch.rand((5, 7, 6, 6), generator=torch.Generator().manual_seed(0))
    avg, gem, largest = (Pooling(kind)(maps) for kind in ("avg", "gem", "max"))
    assert (avg < gem).all()
    assert (gem < largest).all()


def test_flatten_keeps_every_value_channel_by_channel():
    assert Pooling("flatten")(MAP)[0].tolist() == [0, 1, 2, 3, 0, 2, 4, 6, 0, 3, 6, 9]


def test_cls_is_the_first_token():
    assert Pooling("cls")(TOKENS).tolist() == [[0.0, 0.0, 0.0], [10.0, 10.0, 10.0]]


@pytest.mark.parametrize("kind", ["avg", "max", "gem"])
def test_tokens_are_pooled_as_the_places_of_a_map(kind):
    assert torch.equal(Pooling(kind)(TOKENS), Pooling(kind)(MAP))


@pytest.mark.parametrize("kind", ["avg", "max", "gem", "flatten"])
def test_channels_last_maps_give_the_vectors_of_channels_first(kind):
    assert torch.equal(Pooling(kind, channels_last=True)(MAP.permute(0, 2, 3, 1)), Pooling(kind)(MAP))


@pytest.mark.parametrize("kind", [kind for kind in POOLINGS if "cls" not in kind])
def test_a_vector_has_nothing_left_to_pool(kind):
    vectors = torch.tensor([[-1.0, 2.0], [3.0, -4.0]])
    assert torch.equal(Pooling(kind)(vectors), vectors)


def test_half_precision_maps_are_pooled_in_float32():
    pooled = Pooling("gem")(torch.full((1, 1, 2, 2), 60.0, dtype=torch.float16))  # 60 ** 3 overflows float16
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(60.0, rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 3)])
def test_cls_without_tokens_is_refused(shape):
    with pytest.raises(BackboneError) as refused:
        Pooling("cls")(torch.zeros(shape))
    assert str(refused.value) == (
        "Pooling 'cls' takes the first token of a transformer, and this layer has none. Use avg or gem."
    )


def test_five_dimensions_are_refused():
    with pytest.raises(BackboneError, match=r"^An output of 5 dimensions cannot be pooled; "):
        Pooling("avg")(torch.zeros((1, 2, 3, 4, 5)))


def test_an_unknown_pooling_lists_the_known_ones():
    with pytest.raises(BackboneError) as refused:
        Pooling("mean")
    assert str(refused.value) == "There is no pooling 'mean'. Choose from avg, max, gem, flatten, cls, cls+avg."
