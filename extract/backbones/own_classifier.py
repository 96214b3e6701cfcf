"""The pretrained classifier of a backbone, applied to cached features.

    theta(x) = softmax(W f(x) + b)        f(x) (D,), W (Z, D): the Z classes of the weights' training, 1,000 of ImageNet

That holds where the default vector is the input of a linear last layer. Networks with a hidden classifier end earlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import WeightsMissing
from featurecache.extract.backbones.architectures import FAMILIES, build_network
from featurecache.extract.backbones.tensor_files import read_tensors
from featurecache.extract.backbones.weights import find_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Between the default vector of these and their last layer are layers that do not run here.
HIDDEN_CLASSIFIERS = frozenset({"AlexNet", "MaxVit", "MobileNetV3", "SqueezeNet", "VGG"})


def source_proba(backbone: str, X: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Probabilities (N, Z) of the backbone's own classes from its default features X (N, D), default weights.

    None where the backbone has no such classes, or its last layer does not take this vector.
    """
    layer = last_layer(backbone)
    if layer is None or layer[0].shape[1] != X.shape[1]:
        return None
    weight, bias = layer
    scores = X.astype(np.float64) @ weight.T + bias
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def last_layer(backbone: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Weight (Z, D) and bias (Z,) of a backbone's last layer where that is linear in the default vector, else None.

    None, too, where the weights are not on this machine. Raises WeightsMismatch where they cannot be read.
    """
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
