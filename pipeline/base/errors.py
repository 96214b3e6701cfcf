"""The exceptions of featurecache, one tree with a branch for each package.

    FeatureCacheError
    ├── ExtractError
    │   ├── ManifestError          a folder or manifest that cannot be read as samples
    │   │   ├── NoSuchImages       the path leads nowhere
    │   │   └── UnfitOption        an option that means nothing for these images, or names what they lack
    │   ├── ImageRefused           one image that cannot become pixels; never ends a run
    │   ├── BackboneError
    │   │   ├── UnknownBackbone    no backbone of that name; names its neighbours
    │   │   ├── UnknownLayer       the network has no node of that name
    │   │   ├── WeightsMissing     the file is not on this machine and could not be fetched
    │   │   │   └── UnknownWeights the backbone has no weights of that name, and there is no such file
    │   │   └── WeightsMismatch    the file holds tensors of another architecture, or no tensors
    │   ├── RequestError           features asked for with a value that there is not
    │   │   └── NoImages           what a program gives as images and is none; a ValueError too
    │   ├── EngineError            a device or precision that this machine does not offer
    │   │   └── EngineFailed       a batch that an engine did not get through
    │   ├── OutOfMemory            a batch that does not fit
    │   └── CacheError
    │       ├── CacheUnwritable    no permission, or no space left
    │       ├── ShardGone          a shard that was removed meanwhile, as compacting does
    │       └── CacheDamaged       a shard whose bytes are not what was written
    ├── ClassifyError
    │   ├── UnknownHead            no head of that name, or no such parameter
    │   ├── BadSetting             a value that a parameter of a head cannot have
    │   ├── BadSplit               split names that are unknown, or given for some samples only
    │   ├── BadLabels              labels from which no head can be trained and tested
    │   ├── HeadFailed             a head that cannot be fitted to these rows, or not predict; a ValueError too
    │   └── SavedHeadError         a folder that is not a head, is damaged, or must not be trusted
    └── PipelineError
        ├── UsageError             the command is wrong, nothing was tried
        │   └── BackboneNotInRun   the run has no heads on features of that backbone
        ├── FeaturesMissing        images without the features that were asked for
        └── Diverged               the loss of a training is NaN or infinite

A message says what was found, what is allowed, and the next step, in one or two sentences.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from featurecache.base.exits import FAILED, USAGE


class FeatureCacheError(Exception):
    """Base of every error that featurecache raises on purpose.

    exit_code: that of a command which the error ends, 1 for a run that failed, 2 for a command that names what is not
    there.
    """

    exit_code: ClassVar[int] = FAILED


class ExtractError(FeatureCacheError):
    """Images, weights or caches from which no features can be had."""


class ManifestError(ExtractError):
    """A folder or manifest that cannot be read as samples."""


class NoSuchImages(ManifestError):
    """The path leads nowhere."""

    exit_code = USAGE


class UnfitOption(ManifestError):
    """An option of reading that means nothing for these images, or names what they lack."""

    exit_code = USAGE


class ImageRefused(ExtractError):
    """One image that cannot become pixels; the message is the reason, without the path."""


class BackboneError(ExtractError):
    """A backbone that cannot be built as asked."""


class UnknownBackbone(BackboneError):
    """No backbone has that name."""

    exit_code = USAGE


class UnknownLayer(BackboneError):
    """The network has no node of that name."""

    exit_code = USAGE


class WeightsMissing(BackboneError):
    """The weights file is not on this machine and could not be fetched."""


class UnknownWeights(WeightsMissing):
    """Neither the name of weights of this backbone nor a file."""

    exit_code = USAGE


class WeightsMismatch(BackboneError):
    """The weights file does not belong to this architecture, or holds no tensors."""


class RequestError(ExtractError):
    """Features that are asked for with a value that there is not."""

    exit_code = USAGE


class NoImages(RequestError, ValueError):
    """What a program gives in place of images; a ValueError, as scikit-learn's contract asks."""


class EngineError(ExtractError):
    """A device or precision that this machine does not offer."""

    exit_code = USAGE


class EngineFailed(EngineError):
    """An engine that was there, and failed."""

    exit_code = FAILED


class OutOfMemory(ExtractError):
    """A batch that does not fit into the memory of the device."""


class CacheError(ExtractError):
    """The feature cache cannot do what was asked."""


class CacheUnwritable(CacheError):
    """The cache folder cannot be written: no permission, or no space left."""


class ShardGone(CacheError):
    """A shard that is no longer there: `compact` may have put another in its place."""


class CacheDamaged(CacheError):
    """A shard whose bytes are not what was written; `reason` is the part of the message that names the difference."""

    reason: str = ""


class ClassifyError(FeatureCacheError):
    """Labels, splits or heads that cannot be used."""


class UnknownHead(ClassifyError):
    """No head of that name, or no such parameter."""

    exit_code = USAGE


class BadSetting(ClassifyError):
    """A value that a parameter of a head cannot have."""

    exit_code = USAGE


class BadSplit(ClassifyError):
    """The splits that came with the samples cannot be used."""


class BadLabels(ClassifyError):
    """The labels cannot be learned from, or not tested."""


class HeadFailed(ClassifyError, ValueError):
    """A head gave up on the rows; a ValueError, as scikit-learn's contract asks."""


class SavedHeadError(ClassifyError):
    """A saved head is missing, damaged, foreign, or holds types that are not trusted."""


class PipelineError(FeatureCacheError):
    """A run that cannot go on."""


class UsageError(PipelineError):
    """A command line that asks for something that is not there."""

    exit_code = USAGE


class BackboneNotInRun(UsageError):
    """The run has no heads on features of `backbone`; finding: the message without what to do next."""

    def __init__(self, finding: str, backbone: str) -> None:
        super().__init__(f"{finding} Train heads on features of {backbone} first, and start from that run.")
        self.finding, self.backbone = finding, backbone


class FeaturesMissing(PipelineError):
    """Images without the features that were asked for: backbones are run by `extract_features` alone.

    finding: the message without what to do next. n_missing: {`FeatureRequest`: number of images without}. cache_root:
    the cache that lacks them.
    """

    def __init__(self, finding: str, *, n_missing: Mapping[Any, int], cache_root: Path) -> None:
        super().__init__(f"{finding} Call extract_features with these images, requests and cache first.")
        self.finding, self.n_missing, self.cache_root = finding, dict(n_missing), cache_root


class Diverged(PipelineError):
    """A training that diverged: its loss is NaN or infinite."""
