"""FeatureExtractor: a backbone as a transformer of scikit-learn, from images to feature vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featurecache.base.defaults import DEFAULT_BACKBONE, DEFAULT_CACHE
from featurecache.base.errors import NoImages, RequestError
from featurecache.base.text import printable
from featurecache.extract.backbones.libraries.own_network import permit
from featurecache.extract.backbones.names import library_of, name_in_spec
from featurecache.extract.in_memory.items import list_items
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Between the names of several backbones whose features stand side by side, on the command line.
JOINT = "+"


class FeatureExtractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images to feature vectors, for pipelines of scikit-learn: N images -> float32 (N, D).

    X: an iterable of N images, each a path, the bytes of an image file, a PIL image, or a uint8 array (H, W, 3) or
    (H, W); or a column of paths (N, 1). Nothing is learned, so `transform` works without `fit`.

    backbone, weights, layer, pooling, precision, size: as in FeatureRequest. device: as in Settings.
    cache: the folder of an ordinary cache, where every image is kept by its content and computed once, for all clones,
    folds and later programs; None for no cache.

    Learned: n_features_out_, D.
    Raises RequestError, a ValueError, for what is no image, ImageRefused that names the image that cannot be decoded,
    BackboneError, EngineError, CacheError.
    """

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        *,
        weights: str | None = None,
        layer: str | None = None,
        pooling: str | None = None,
        precision: str = "fp32",
        size: int | None = None,
        device: str = "auto",
        cache: str | os.PathLike[str] | None = str(DEFAULT_CACHE),
    ) -> None:
        self.backbone, self.weights, self.layer, self.pooling = backbone, weights, layer, pooling
        self.precision, self.size, self.device, self.cache = precision, size, device, cache

    def fit(self, X: Iterable[Any], y: Any = None) -> FeatureExtractor:
        """Check the parameters and the types of X, and find D; no image is decoded. y is not used."""
        from featurecache.extract.in_memory.cached import cached_dim, dim_without_cache

        if not list_items(X):
            raise NoImages("There are no images: X has 0 samples, and at least 1 is needed.")
        request, settings = self._asked()
        if self.cache is None:
            self.n_features_out_ = dim_without_cache(request, settings)
        else:
            self.n_features_out_ = cached_dim(request, Path(self.cache), settings)
        return self

    def transform(self, X: Iterable[Any]) -> NDArray[np.float32]:
        """Return the features of N images: float32 (N, D), row i for image i."""
        from featurecache.extract.in_memory.cached import cached_features, features_without_cache

        items = list_items(X)
        request, settings = self._asked()
        if self.cache is None:
            return features_without_cache(request, items, settings)
        return cached_features(request, items, Path(self.cache), settings)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the columns, such as "resnet18_0": (D,). input_features is not used."""
        check_is_fitted(self, "n_features_out_")
        name = name_in_spec(self.backbone)
        return np.array([f"{name}_{i}" for i in range(self.n_features_out_)], dtype=object)

    def _asked(self) -> tuple[FeatureRequest, Settings]:
        names = ("backbone", "weights", "layer", "pooling", "precision", "size")
        values = {name: getattr(self, name) for name in names}
        if isinstance(self.size, np.integer):  # of a grid that numpy made
            values["size"] = int(self.size)
        if self.cache is not None and not os.fspath(self.cache):
            raise RequestError("The cache is an empty path: name a folder, or None for no cache.")
        request = FeatureRequest(**values)
        if JOINT in self.backbone and not library_of(self.backbone):
            parts = ", ".join(f"FeatureExtractor('{printable(each)}')" for each in self.backbone.split(JOINT))
            raise RequestError(f"FeatureExtractor has one backbone. For several side by side use make_union({parts}).")
        permit([self.backbone])  # whoever makes an estimator names its function, also for the processes of a search
        return request, Settings(device=self.device)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags
