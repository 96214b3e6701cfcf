"""The pretrained classifier of a backbone, applied to cached features.

    theta(x) = softmax(W f(x) + b)        f(x) (D,), W (Z, D): the Z classes of the weights' training, 1,000 of ImageNet

This holds if the default vector is the input of a linear last layer, which networks with a hidden classifier lack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import WeightsMissing
from featurecache.extract.backbones.architectures import FAMILIES, build_network
from featurecache.extract.backbones.names import library_of
from featurecache.extract.backbones.tensor_files import read_tensors
from featurecache.extract.backbones.weights import find_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Families with hidden layers between the default vector and the last layer.
HIDDEN_CLASSIFIERS = frozenset({"AlexNet", "MaxVit", "MobileNetV3", "SqueezeNet", "VGG"})


def source_proba(backbone: str, X: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Return the probabilities (N, Z) of the pretraining classes, from default features X (N, D) and default weights.

    None if the backbone has no such classes, or the default vector is not the input of its last layer.
    """
    layer = last_layer(backbone)
    if layer is None or layer[0].shape[1] != X.shape[1]:
        return None
    weight, bias = layer
    scores = X.astype(np.float64) @ weight.T + bias
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def last_layer(backbone: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return weight (Z, D) and bias (Z,) of a backbone's last layer, or None if it is not linear in the default vector.

    None also if the weights are not on this machine. Raises WeightsMismatch if they cannot be read.
    """
    if library_of(backbone):  # whose last layers are dropped, and stand for other classes than its digest knows
        return None
    try:
        found = find_weights(backbone)
    except WeightsMissing:
        return None
    family = build_network(backbone, found.meta).family
    hidden = any(family is FAMILIES[name] for name in HIDDEN_CLASSIFIERS)
    if hidden or found.path is None or not found.is_local:
        return None
    tensors = read_tensors(found.path)
    weight = tensors.get(f"{family.last}.weight")
    if weight is None or weight.ndim != 2:
        return None
    bias = tensors.get(f"{family.last}.bias")
    W = weight.double().numpy()
    return W, np.zeros(len(W)) if bias is None else bias.double().numpy()
