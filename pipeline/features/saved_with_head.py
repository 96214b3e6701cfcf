"""The record that a saved head has of its features and classes, checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from featurecache.base.text import printable
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.job.request import FeatureRequest
from featurecache.features.feature_set import Part
from featurecache.runs.record_checks import (
    FLOOR,
    NUMBER,
    NUMBER_OR_NONE,
    OBJECT,
    REQUEST,
    TEXT,
    Shape,
    check_fields,
    damaged,
)

PART = {"request": REQUEST, "spec": OBJECT, "scale": NUMBER}
META = Shape(
    {"request": REQUEST, "spec": OBJECT, "classes": [TEXT], "tempering": NUMBER_OR_NONE, "tempering_floor": FLOOR,
     "parts": [Shape(PART, tuple(PART))]},
    ("request", "spec", "classes"),
)  # fmt: skip


@dataclass(frozen=True)
class HeadMeta:
    """The record saved with a head: the request and the spec of its features, and its classes.

    parts: the features that are joined, in their order; empty for those of one backbone.
    """

    request: FeatureRequest
    spec: FeatureSpec
    classes: list[str]
    tempering: float
    tempering_floor: float | None
    parts: tuple[Part, ...] = ()

    @property
    def floor(self) -> float:
        """The least probability before tempering; runs that do not name one used that of the metrics."""
        from featurecache.classify.evaluation.metrics import SMALLEST_PROBABILITY

        return SMALLEST_PROBABILITY if self.tempering_floor is None else self.tempering_floor


def head_meta(place: Path, meta: Any) -> HeadMeta:
    """The meta of a saved head, checked. Raises PipelineError that names the field."""
    path = place / "head.json"
    check_fields(path, meta, META, "meta")
    spec = _spec(path, meta, "meta")
    tempering = meta.get("tempering") or 1.0
    if not 0 < tempering < float("inf"):
        raise damaged(path, f"'meta.tempering' is {tempering} and has to be above 0")
    parts = tuple(_part(path, each, f"meta.parts[{i}]") for i, each in enumerate(meta.get("parts") or []))
    if parts and sum(part.spec.feature_dim for part in parts) != spec.feature_dim:
        raise damaged(path, "'meta.parts' have other lengths than 'meta.spec'")
    request = FeatureRequest.from_dict(meta["request"])
    return HeadMeta(request, spec, meta["classes"], tempering, meta.get("tempering_floor"), parts)


def _part(path: Path, values: Mapping[str, Any], where: str) -> Part:
    if not (isfinite(values["scale"]) and values["scale"] > 0):
        raise damaged(path, f"'{where}.scale' is {values['scale']} and has to be above 0")
    return Part(FeatureRequest.from_dict(values["request"]), _spec(path, values, where), float(values["scale"]))


def _spec(path: Path, values: Mapping[str, Any], where: str) -> FeatureSpec:
    try:
        return FeatureSpec.from_dict(values["spec"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"'{where}.spec' is no feature spec: {printable(str(error))}") from error
