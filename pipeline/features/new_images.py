"""The features of new images that a saved head takes: from the cache, or extracted where they are not all there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from featurecache.base.errors import BackboneError, CacheError, ImageRefused, UnknownWeights
from featurecache.base.progress import Progress
from featurecache.extract.backbones.names import in_folder_of
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.ranges import give_ranges, ranges_of_run
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.decode_rules import DECODE_VERSION
from featurecache.extract.images.digests import Refusal, digest_samples
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.job.extract import ExtractReport, Settings, extract_features
from featurecache.extract.job.loading import load_together
from featurecache.extract.job.outdated import OutdatedRows
from featurecache.extract.job.passes import refused_line
from featurecache.extract.job.request import FeatureRequest, resolve
from featurecache.features.feature_set import Part, Source
from featurecache.features.joined import Joined, side_by_side
from featurecache.runs.moved import MOVED, check_spec, check_weights, named_weights, weights_by_digest, with_run_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from featurecache.extract.backbones.registry import Backbone
    from featurecache.extract.in_memory.network import ImageNetwork, ImageNetworks


class FoundFeatures(NamedTuple):
    """The samples that have features, their digests (N, 32), the cache or file that holds them, and what was refused.

    has_outdated: whether some of these features are by an older version that read their images otherwise.
    """

    samples: tuple[Sample, ...]
    digests: NDArray[np.uint8]
    cache: Source
    refusals: tuple[Refusal, ...]
    has_outdated: bool = False


def find_kept(manifest: Manifest, cache: FeatureCache, settings: Settings, progress: Progress) -> FoundFeatures | None:
    """The images and their features, without the backbone; None where the cache lacks any.

    Images that an older version did not notice to be damaged are refused. Raises ImageRefused where one ends the run.
    """
    import numpy as np

    if not manifest.samples:
        return FoundFeatures((), np.empty((0, 32), np.uint8), cache, ())
    if not len(cache):
        return None
    with Memo(cache.folder.parent, read_only=True) as memo:
        digested = digest_samples(manifest.samples, memo, on_progress=progress.digesting)
    samples, digests = digested.samples, digested.digests
    if digested.refusals or cache.missing(digests).any():
        return None
    changed, damaged = OutdatedRows(digested, progress.say).of(cache)
    if not damaged:
        return FoundFeatures(samples, digests, cache, (), bool(changed.any()))
    names = [bytes(digest) for digest in digests]
    refusals = tuple(
        Refusal(sample.name, name.hex(), damaged[name])
        for sample, name in zip(samples, names, strict=True)
        if name in damaged
    )
    if settings.on_error == "fail":
        raise ImageRefused(refused_line(refusals[0]))
    whole = [i for i, name in enumerate(names) if name not in damaged]
    return FoundFeatures(tuple(samples[i] for i in whole), digests[whole], cache, refusals, bool(changed.any()))


class NewImages:
    """One kind of features of a head, for images that it may never have seen.

    run: the folder of the run. asked, spec: the features as the head was trained on them. weights: a file that the user
    names in place of the run's.
    """

    def __init__(
        self, run: Path, asked: FeatureRequest, spec: FeatureSpec, cache_root: Path, *, weights: str | None
    ) -> None:
        self._run, self._asked, self.spec, self._cache_root = run, asked, spec, cache_root
        self._has_own = weights is not None  # else weights that moved are sought near the run
        if weights is None:
            self.request = with_run_weights(run, asked)
        else:
            here = replace(asked, backbone=in_folder_of(asked.backbone, weights))
            self.request = named_weights(here, weights)

    def find(self, images: Manifest, settings: Settings, progress: Progress) -> FoundFeatures:
        """Return the images with features, which are extracted where the cache lacks any or has older ones."""
        kept = find_kept(images, self.kept(), settings, progress)
        return self._extracted(images, kept, settings, progress) if kept is None or kept.has_outdated else kept

    def network(self, settings: Settings, say: Callable[[str], None]) -> ImageNetwork:
        """Return the network for images in memory, which is loaded only where no graph of it is stored.

        say: called before slow steps. Raises CacheError where this version decodes images otherwise.
        """
        from featurecache.extract.in_memory.network import ImageNetwork

        check_spec(self.spec, replace(self.spec, decode_version=DECODE_VERSION))
        return ImageNetwork(
            self.spec,
            self._cache_root / self.spec.folder_name,
            partial(self._module, say),
            settings=settings,
            ranges=partial(ranges_of_run, self._run, self.spec, self._cache_root),
            say=say,
        )

    def backbone(self, say: Callable[[str], None]) -> Backbone:
        """Load the backbone. Raises BackboneError, CacheError where it is not the one that the head was trained on."""
        try:
            if not self._has_own:
                self.request = weights_by_digest(self._run, self._asked, self.spec, self._cache_root, say=say)
            loaded = load_together([self.request])
        except UnknownWeights as error:
            raise UnknownWeights(f"{error} {MOVED}") from error
        found = resolve(self.request, loaded.backbone, loaded.cut_for(self.request)).spec
        check_spec(self.spec, replace(found, ranges=self.spec.ranges))
        return loaded.backbone

    def _module(self, say: Callable[[str], None]) -> nn.Module:
        return self.backbone(say).module

    def kept(self) -> FeatureCache:
        """Return the cache of these features."""
        return FeatureCache(self._cache_root, self.spec)

    def parts(self) -> list[NewImages]:
        """Return itself, the only part of its features."""
        return [self]

    def columns(self, vectors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return its features (B, D) of the vectors of images by the key of their spec."""
        return vectors[self.spec.key]

    def _extracted(
        self, images: Manifest, kept: FoundFeatures | None, settings: Settings, progress: Progress
    ) -> FoundFeatures:
        """The images and their features after an extraction; `kept`, with a line, where these cannot be computed here.

        Raises BackboneError or CacheError where that is so and nothing was kept.
        """
        root = self._cache_root
        try:
            give_ranges(self._run, self.spec, root, progress.say)
            if not self._has_own:
                self.request = weights_by_digest(self._run, self._asked, self.spec, root, say=progress.say)
            check_weights(self.request, self.spec, root)
            try:
                report = extract_features(images, [self.request], root, settings=settings, progress=progress)
            except UnknownWeights as error:
                raise UnknownWeights(f"{error} {MOVED}") from error
            return from_report(report, self.spec)
        except (BackboneError, CacheError) as error:
            if kept is None:
                raise
            assert isinstance(kept.cache, FeatureCache)
            progress.say(OutdatedRows.among(kept.samples, kept.digests).note(kept.cache))
            progress.say(f"These features are used as they are, since they cannot be computed again here: {error}")
            return kept


class JoinedImages:
    """Joined features of a head, for images that it may never have seen.

    request: that of the head. parts: the features that are joined.
    """

    def __init__(self, run: Path, request: FeatureRequest, parts: Sequence[Part], cache_root: Path) -> None:
        self.request, self._parts = request, parts
        self._images = [NewImages(run, part.request, part.spec, cache_root, weights=None) for part in parts]

    def find(self, images: Manifest, settings: Settings, progress: Progress) -> FoundFeatures:
        """Return the images with features of every part; those that one lacks are refused, with its reason."""
        found = in_all([each.find(images, settings, progress) for each in self._images])
        return found[0]._replace(cache=Joined.of(self._parts, [part.cache for part in found]))

    def parts(self) -> list[NewImages]:
        """Return the parts of its features."""
        return self._images

    def columns(self, vectors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return its features (B, D) of the vectors of images by the key of their spec: scaled, side by side."""
        return side_by_side([vectors[part.spec.key] for part in self._parts], [part.scale for part in self._parts])


def image_networks(
    wanted: Sequence[NewImages | JoinedImages], settings: Settings, say: Callable[[str], None]
) -> ImageNetworks:
    """Return the networks of several heads for images in memory, each once. Raises CacheError."""
    from featurecache.extract.in_memory.network import ImageNetworks

    parts = {part.spec.key: part for each in wanted for part in each.parts()}
    networks = {key: part.network(settings, say) for key, part in parts.items()}
    return ImageNetworks(networks, max_pixels=settings.max_pixels)


def in_all(found: Sequence[FoundFeatures]) -> list[FoundFeatures]:
    """Return several kinds of features of the same data set, each of the samples that all have, in their order.

    Refused are those that any refuses.
    """
    known = [{id(sample) for sample in each.samples} for each in found]
    refusals = tuple({refusal.name: refusal for each in found for refusal in each.refusals}.values())
    common = []
    for each in found:
        whole = [i for i, sample in enumerate(each.samples) if all(id(sample) in own for own in known)]
        samples = tuple(each.samples[i] for i in whole)
        common.append(each._replace(samples=samples, digests=each.digests[whole], refusals=refusals))
    return common


def from_report(report: ExtractReport, spec: FeatureSpec) -> FoundFeatures:
    """The images and their features after an extraction. Raises CacheError where the backbone is another."""
    filled = report.filled[0]
    check_spec(spec, filled.resolved.spec)
    return FoundFeatures(report.samples, report.digests, filled.cache, report.refusals)
