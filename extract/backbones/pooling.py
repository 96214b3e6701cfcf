"""Pooling: feature map to feature vector.

The output of a network has one of three shapes, each read as D channels over L positions:

    feature map   (B, D, h, w), or (B, h, w, D) with `channels_last`      L = h * w
    tokens        (B, T, D), of a transformer                             L = T
    vector        (B, D)                                                  returned as it is

    avg      f_d = 1/L * sum_l x_dl
    max      f_d = max_l x_dl
    gem      f_d = (1/L * sum_l max(x_dl, 1e-6)^p)^(1/p), p = 3: generalised mean, from avg (p = 1) to max (p -> oo).
             Radenovic, Tolias and Chum, Fine-tuning CNN image retrieval with no human annotation, TPAMI 2018, eq. 3
    flatten  all L * D values, channel by channel for maps and token by token for tokens
    cls      the first token, the class token of transformers
    cls+avg  the class token, then the average of the tokens of the patches: 2 D numbers

The tokens of some networks begin with `n_prefix` that belong to no patch, such as the class token and registers. avg,
max and gem leave these out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from featurecache.base.errors import BackboneError
from featurecache.extract.cache.spec import POOLINGS

GEM_POWER = 3.0  # the paper's initial value, which most retrieval code uses
GEM_FLOOR = 1e-6  # negative values have no such power, and the root has no derivative at 0


class Pooling(nn.Module):
    """One kind of pooling as a module of plain tensor operations.

    kind: one of POOLINGS.
    channels_last: whether four-dimensional input is (B, h, w, D) and not (B, D, h, w).
    n_prefix: the number of first tokens that belong to no patch.
    Raises BackboneError if no pooling has that name.
    """

    def __init__(self, kind: str, *, channels_last: bool = False, n_prefix: int = 0) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise BackboneError(f"There is no pooling '{kind}'. Choose from {', '.join(POOLINGS)}.")
        self.kind = kind
        self.channels_last = channels_last
        self.n_prefix = n_prefix

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, D, h, w), (B, h, w, D), (B, T, D) or (B, D) to float32 (B, D'), D' = D unless the kind is flatten.

        Raises BackboneError for `cls` without tokens, and for any other number of dimensions.
        """
        if maps.ndim not in (2, 3, 4):
            raise BackboneError(
                f"An output of {maps.ndim} dimensions cannot be pooled; a feature map, tokens or a vector can. Choose "
                "another --layer."
            )
        if self.kind in ("cls", "cls+avg"):
            first = _first_token(self.kind, maps).float()
            return first if self.kind == "cls" else torch.cat([first, maps[:, self.n_prefix :].float().mean(1)], 1)
        if maps.ndim == 2:
            return maps.float()
        if maps.ndim == 4 and self.channels_last:
            maps = maps.permute(0, 3, 1, 2)
        if self.kind == "flatten":
            return maps.flatten(1).float()
        places = maps[:, self.n_prefix :] if maps.ndim == 3 and self.n_prefix else maps
        return self._pool_places(_as_map(places).float())

    def _pool_places(self, maps: Tensor) -> Tensor:
        if self.kind == "max":
            return maps.amax((2, 3))
        if self.kind == "gem":
            return maps.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean((2, 3)).pow(1.0 / GEM_POWER)
        return F.adaptive_avg_pool2d(maps, 1).flatten(1)

    def extra_repr(self) -> str:
        """Return the arguments, for printing."""
        return f"{self.kind!r}, channels_last={self.channels_last}"


def _as_map(maps: Tensor) -> Tensor:
    """Return tokens (B, T, D) as a map (B, D, T, 1); a map unchanged."""
    return maps.transpose(1, 2).unsqueeze(-1) if maps.ndim == 3 else maps


def _first_token(kind: str, tokens: Tensor) -> Tensor:
    if tokens.ndim != 3:
        raise BackboneError(
            f"Pooling '{kind}' takes the first token of a transformer, and this layer has none. Use avg or gem."
        )
    return tokens[:, 0]
