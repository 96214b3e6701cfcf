"""The heads of a predictor as parts of a file, and the networks that their features need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from featurecache.base.errors import UsageError
from featurecache.base.text import printable
from featurecache.export.assembly import HeadPart
from featurecache.export.networks import network_graph
from featurecache.extract.cache.ranges import ranges_of_run
from featurecache.extract.images.vectors.origin import is_of_vectors
from featurecache.predictor.predictor import EnsemblePredictor, Predictor

if TYPE_CHECKING:
    from onnx import ModelProto

    from featurecache.extract.cache.spec import FeatureSpec
    from featurecache.features.new_images import NewImages


def members_of(predictor: Predictor) -> Sequence[Predictor]:
    """Return the predictors of an ensemble, or of a single head that itself."""
    return predictor._heads if isinstance(predictor, EnsemblePredictor) else [predictor]


def head_part(predictor: Predictor) -> HeadPart:
    """Return the head of a predictor as a part of a file. Raises PipelineError, with the reason, where it has none."""
    from featurecache.classify.evaluation.metrics import SMALLEST_PROBABILITY
    from featurecache.export.heads.graph import head_graph

    meta = predictor._meta
    model = head_graph(
        predictor._loaded.head,
        n_features=meta.spec.feature_dim,
        temperature=meta.tempering,
        floor=SMALLEST_PROBABILITY if meta.tempering_floor is None else meta.tempering_floor,
    )
    keys = tuple(part.spec.key for part in meta.parts) or (meta.spec.key,)
    return HeadPart(model, keys, tuple(part.scale for part in meta.parts))


def specs_of(predictor: Predictor) -> list[FeatureSpec]:
    """Return the specs of all features that a predictor takes, each once. Raises UsageError for vectors of a file."""
    specs = [each.spec for member in members_of(predictor) for each in images_of(member)]
    if any(is_of_vectors(member.request.backbone) for member in members_of(predictor)):
        raise UsageError(
            f"The head {printable(predictor.name)} takes vectors from a file, so there is no network to export. "
            "Export a head on features of a backbone."
        )
    return list({spec.key: spec for spec in specs}.values())


def networks_of(predictor: Predictor, say: Callable[[str], None]) -> dict[str, ModelProto]:
    """Return the networks of a predictor as models, by the key of their features. say: called before slow steps.

    Raises PipelineError where one has no graph, BackboneError where its weights are not here, CacheError where they are
    others than those that the head was trained on.
    """
    found: dict[str, ModelProto] = {}
    for member in members_of(predictor):
        for images in images_of(member):
            if images.spec.key not in found:
                found[images.spec.key] = network_graph(
                    images.spec,
                    images._cache_root / images.spec.folder_name,
                    partial(images._module, say),
                    ranges=partial(ranges_of_run, images._run, images.spec, images._cache_root),
                    say=say,
                )
    return found


def images_of(member: Predictor) -> list[NewImages]:
    """Return the kinds of features that a head takes, for new images: those of one network each."""
    return member._images.parts()
