"""The plan of an extraction: the spec of every request, the rows that its cache lacks, and shared forward passes.

    requests of one network, weights, precision and decoding -> one group: one module, one engine
        each request                               -> one plan: its cache, its missing rows, its columns of the output
    a request in int8                              -> a group of its own, since its cache has its activation ranges

Two requests that resolve to the same spec are one plan, so no row is computed or written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.errors import WeightsMismatch
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.ranges import has_ranges, read_ranges
from featurecache.extract.cache.spec import DTYPES, INT8, REDUCED, FeatureSpec
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.augmentation import View
from featurecache.extract.images.digests import Digested, n_distinct
from featurecache.extract.job import request as requests
from featurecache.extract.job.activation_ranges import with_ranges
from featurecache.extract.job.loading import LoadedNetwork, load_together
from featurecache.extract.job.matching import find_unique
from featurecache.extract.job.outdated import OutdatedRows
from featurecache.extract.job.refused_before import refused_before
from featurecache.extract.job.request import FeatureRequest, Resolved
from featurecache.extract.job.settings import Settings

if TYPE_CHECKING:
    from torch import nn

    from featurecache.extract.engines.protocol import Engine

# Requests that differ in nothing else are answered by one forward pass.
SHARED: dict[str, Any] = {"layer": None, "pooling": None, "dtype": DTYPES[0]}


@dataclass(eq=False)
class Plan:
    """One set of features to extract: its cache, the missing digests, and its columns of the network's output.

    refused: images that an earlier run refused, with the reasons; they are not among the missing ones.
    damaged: those of them that have a row by older decode rules, which did not refuse them.
    refused_before: everything that earlier runs refused for this cache.
    pixels: those of the fixed pictures, for the first rows. n_outdated: images among the missing ones that have a row,
    by older decode rules that read them otherwise.
    """

    resolved: Resolved
    cache: FeatureCache
    missing: set[bytes]
    n_present: int
    refused: dict[bytes, str] = field(default_factory=dict)
    refused_before: Mapping[bytes, str] = field(default_factory=dict)
    n_outdated: int = 0
    damaged: Mapping[bytes, str] = field(default_factory=dict)
    columns: slice = field(default_factory=lambda: slice(None))
    pixels: Mapping[str, Any] | None = None

    @property
    def spec(self) -> FeatureSpec:
        """The spec of the features."""
        return self.resolved.spec


@dataclass(eq=False)
class Group:
    """Requests with missing rows that share a network: one forward pass computes the vectors of all, concatenated.

    Properties that all of its plans share are cached, because they are needed for every image.
    """

    plans: dict[FeatureRequest, Plan]
    loaded: LoadedNetwork | None = None
    engine: Engine | None = None
    forward_seconds: float = 0.0

    @cached_property
    def transform(self) -> TransformSpec:
        """The transform of its images."""
        return self._spec.transform

    @cached_property
    def geometry(self) -> TransformSpec:
        """The part of the transform that determines the pixels; the engine applies mean and std."""
        return replace(self.transform, mean=(), std=())

    @cached_property
    def view(self) -> View | None:
        """The augmented view that is extracted; None for the images themselves."""
        return View.of(self._spec.view) if self._spec.view else None

    @cached_property
    def at_least(self) -> int | None:
        """The shortest side that decoding may reduce an image to, in pixels; None to decode all of it."""
        return self.transform.resize if self._spec.decode == REDUCED else None

    @cached_property
    def levels(self) -> str:
        """The `range` of the spec."""
        return self._spec.range

    @property
    def _spec(self) -> FeatureSpec:
        return self._first.spec

    @property
    def _first(self) -> Plan:
        return next(iter(self.plans.values()))

    def misses(self, digest: bytes) -> bool:
        """Whether any of its caches has no row for this image."""
        return any([digest in plan.missing for plan in self.plans.values()])  # noqa: C419 (hot loop)

    @property
    def started(self) -> Engine:
        """Its engine, after `start`."""
        assert self.engine is not None, "a group is started before it runs"
        return self.engine

    def start(self, settings: Settings, say: Callable[[str], None]) -> Engine:
        """Build the engine; the network is loaded only if there is no stored graph. say: called before slow steps.

        Raises BackboneError or EngineError.
        """
        from featurecache.extract.engines.build import build_engine
        from featurecache.extract.engines.graph_store import SharedGraphs
        from featurecache.extract.engines.protocol import NetworkIdentity, Source

        cuts = self._place_columns()
        columns = tuple(sorted({plan.columns.stop: plan.columns for plan in self.plans.values()}.values(), key=_stop))
        spec, loaded = self._spec, self.loaded
        identity: NetworkIdentity = {
            "backbone": spec.backbone,
            "weights": spec.weights_digest,
            "cuts": cuts,
            "transform": spec.transform.to_dict(),
            "network": spec.network,
        }
        exported = loaded.exported if loaded else {}
        self.engine = build_engine(
            Source(identity, spec.transform.crop, self._load, columns[-1].stop, columns, exported),
            engine=settings.engine,
            device=settings.device,
            precision=spec.precision,
            batch_size=settings.batch_size,
            graphs=SharedGraphs(self._graph_folder()),
            ranges=read_ranges(self._first.cache.folder, spec) if spec.ranges else None,
            say=say,
        )
        self.loaded = None  # the engine does not need it any more
        return self.engine

    def _graph_folder(self) -> Path:
        """Return the folder of graphs next to the vectors. All views have the same graph."""
        return self._first.cache.folder.with_name(replace(self._spec, view="").folder_name)

    def _place_columns(self) -> list[list[str]]:
        """Assign columns of the output to the plans, and return layer and pooling of the cuts, in order of columns.

        The cuts are in the order of the requests, each once.
        """
        columns: dict[tuple[str | None, str | None], slice] = {}
        cuts, width = [], 0
        for request, plan in self.plans.items():
            asked = request.layer, request.pooling
            if asked not in columns:
                columns[asked] = slice(width, width + plan.spec.feature_dim)
                width += plan.spec.feature_dim
                cuts.append([plan.spec.layer, plan.spec.pooling])
            plan.columns = columns[asked]
        return cuts

    def _load(self) -> nn.Module:
        """Return the module, from resolving the requests or loaded now. Raises BackboneError."""
        loaded = self.loaded
        if loaded is None or not loaded.is_for(self.plans):
            loaded = load_together(list(self.plans))
        if any(plan.spec.weights_digest != loaded.backbone.weights_digest for plan in self.plans.values()):
            raise WeightsMismatch(
                f"{loaded.backbone.weights_path.name} changed while it was being read; run the same command again"
            )
        assert all(loaded.cut_for(request).columns == plan.columns for request, plan in self.plans.items())
        return loaded.backbone.module


@dataclass
class Work:
    """The requests with their plans, and the groups of those with missing rows."""

    asked: list[tuple[FeatureRequest, Plan]]
    groups: list[Group]

    @property
    def plans(self) -> list[Plan]:
        """All distinct plans."""
        return list(dict.fromkeys(plan for _, plan in self.asked))

    @property
    def missing(self) -> set[bytes]:
        """The digests that any plan misses."""
        return set().union(*(plan.missing for plan in self.plans))

    @property
    def refused(self) -> set[bytes]:
        """The digests that an earlier run refused for any plan."""
        return set().union(*(plan.refused for plan in self.plans))


def plan_work(
    asked: Sequence[FeatureRequest],
    cache_root: Path,
    memo: Memo,
    digested: Digested,
    *,
    max_pixels: int | None,
    say: Callable[[str], None] | None = None,
    n_unread: int = 0,
) -> Work:
    """Resolve the requests, from the memo if possible, and find the missing rows. Raises ExtractError.

    max_pixels: images that a run with this limit refused before are not missing; with None they are tried again.
    say: called with a line on what was taken of a weights file that holds more than a state dict.
    n_unread: files whose digest is not known yet; if there are any, each cache may miss some.
    """
    plans: dict[str, Plan] = {}
    outdated = OutdatedRows(digested, say)
    plan_of: dict[FeatureRequest, Plan] = {}
    groups = []
    for together in _by_network(asked):
        resolved, loaded = _resolve(together, cache_root, memo, digested, say or _silent)
        if say is not None and loaded is not None and loaded.backbone.note:
            say(loaded.backbone.note)
        missing = {}
        for request in together:
            key = resolved[request].spec.key
            if key not in plans:
                refused = {} if max_pixels is None else refused_before(memo, key, max_pixels)
                plans[key] = _plan(resolved[request], cache_root, digested, refused, outdated)
                if plans[key].missing or n_unread:
                    missing[request] = plans[key]
            plan_of[request] = plans[key]
        if missing:
            groups.append(Group(missing, loaded))
    return Work([(request, plan_of[request]) for request in asked], groups)


def _by_network(asked: Sequence[FeatureRequest]) -> list[list[FeatureRequest]]:
    groups: dict[FeatureRequest, list[FeatureRequest]] = {}
    for request in dict.fromkeys(asked):
        shared = request if request.precision == INT8 else replace(request, **SHARED)
        groups.setdefault(shared, []).append(request)
    return list(groups.values())


def _resolve(
    together: list[FeatureRequest], cache_root: Path, memo: Memo, digested: Digested, say: Callable[[str], None]
) -> tuple[dict[FeatureRequest, Resolved], LoadedNetwork | None]:
    """Return what each request resolves to; loads the network once, if any is neither remembered nor in a cache."""
    known = {request: requests.recall(request, memo) for request in together}
    for request in (request for request, resolved in known.items() if resolved is None):
        whole = find_unique(request, digested.digests, cache_root=cache_root, memo=memo, allow_refused=False)
        is_usable = whole is not None and has_ranges(whole.cache.folder, whole.cache.spec)
        known[request] = whole.resolved if whole is not None and is_usable else None
    unknown = [request for request, resolved in known.items() if resolved is None]
    resolved = {request: answer for request, answer in known.items() if answer is not None}
    if not unknown:
        return resolved, None
    loaded = load_together(unknown)
    for request in unknown:
        found = requests.resolve(request, loaded.backbone, loaded.cut_for(request))
        resolved[request] = with_ranges(found, request, loaded, cache_root, say)
        requests.remember(request, resolved[request], loaded.backbone, memo)
    return resolved, loaded


def _plan(
    resolved: Resolved, cache_root: Path, digested: Digested, refused: Mapping[bytes, str], outdated: OutdatedRows
) -> Plan:
    cache = FeatureCache(cache_root, resolved.spec)
    absent, (changed, damaged) = cache.missing(digested.digests), outdated.of(cache)
    todo = absent | changed
    missing = {bytes(row) for row in digested.digests[todo]}
    again = {digest: refused[digest] for digest in missing & refused.keys()} | damaged
    n_present, n_outdated = n_distinct(digested.digests[~todo]), n_distinct(digested.digests[changed])
    return Plan(resolved, cache, missing - again.keys(), n_present - len(damaged), again, refused, n_outdated, damaged)


def _silent(_: str) -> None:
    pass


def _stop(columns: slice) -> int:
    return int(columns.stop)
