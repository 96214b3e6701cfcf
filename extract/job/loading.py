"""The network of several requests, loaded once with all of their cuts."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from featurecache.extract.backbones.listing import check_name
from featurecache.extract.job.request import FeatureRequest

if TYPE_CHECKING:
    from featurecache.extract.backbones.cuts import Cut
    from featurecache.extract.backbones.registry import Backbone


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that is cut for several requests at once: `cuts` by requested layer and pooling.

    exported: its graphs in fp32 that were exported so far, by batch size.
    """

    backbone: Backbone
    cuts: dict[tuple[str | None, str | None], Cut]
    exported: dict[int, bytes] = field(default_factory=dict)

    def cut_for(self, request: FeatureRequest) -> Cut:
        """Return the cut of a request, with its columns."""
        return self.cuts[request.layer, request.pooling]

    def is_for(self, requests: Collection[FeatureRequest]) -> bool:
        """Whether its cuts are exactly those of these requests."""
        return set(self.cuts) == {(request.layer, request.pooling) for request in requests}


def load_together(requests: Sequence[FeatureRequest]) -> LoadedNetwork:
    """Load the network that these requests share, with all of their cuts. Raises BackboneError."""
    if "torch" not in sys.modules:
        check_name(requests[0].backbone)  # so that a wrong name does not take the time of importing torch
    from featurecache.extract.backbones import registry
    from featurecache.extract.backbones.cuts import Cut, CutRequest

    first, cuts_asked = requests[0], list(dict.fromkeys(CutRequest(r.layer, r.pooling) for r in requests))
    if len(cuts_asked) == 1:
        backbone = first.load()
        return LoadedNetwork(backbone, {cuts_asked[0]: Cut(backbone.layer, backbone.pooling, backbone.feature_dim)})
    backbone, cuts = registry.load_layers(first.backbone, cuts_asked, weights=first.weights, size=first.size)
    backbone = replace(backbone, transform=first.adapted(backbone.transform))
    return LoadedNetwork(backbone, dict(zip(cuts_asked, cuts, strict=True)))
