"""Networks of the user: MODULE:FUNCTION, a function without arguments that returns an nn.Module and its transform.

The module is imported only if whoever runs the program names it, on the command line or by `own_network`: a run of
somebody else that names a function does not have it called. Nothing of it is remembered, since a function may load its
weights from anywhere: it is called once in every process that needs the network.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from featurecache.base.errors import BackboneError, UnknownBackbone
from featurecache.base.text import printable
from featurecache.extract.backbones.libraries.own_source import source_digest
from featurecache.extract.backbones.names import MODULE, library_of
from featurecache.extract.cache.transform_spec import TransformSpec

# The functions that were named, by their names; None where it is still to be imported.
NAMED: dict[str, Callable[[], Any] | None] = {}


@dataclass(frozen=True)
class OwnNetwork:
    """A network of the user, the transform of its images, and the file that its function is in."""

    module: Any
    transform: TransformSpec
    path: Path
    source_digest: str


def permit(names: Iterable[str]) -> None:
    """Allow that these functions are imported and called; names of other backbones are passed over."""
    for name in names:
        if library_of(name) == MODULE:
            NAMED.setdefault(name, None)


def own_network(build: Callable[[], Any]) -> str:
    """Return the name of a backbone for a function that returns an nn.Module and its transform.

    build: a function of a module, called without arguments. It returns (module, transform): images (B, 3, S, S) -> a
    vector (B, D), a map (B, D, h, w) or tokens (B, T, D), and a TransformSpec or its values.
    """
    name = f"{build.__module__}:{build.__qualname__}"
    if library_of(name) != MODULE:
        raise BackboneError(f"'{printable(name)}' cannot be named: give a function that a module defines by a name.")
    NAMED[name] = build
    return name


@cache
def build_own(name: str) -> OwnNetwork:
    """Return the network of MODULE:FUNCTION. Raises UnknownBackbone, or BackboneError if it may not be imported."""
    if name not in NAMED:
        raise BackboneError(
            f"'{printable(name)}' is a function, and it is called only if you name it: add --backbone {name}, if it is "
            "yours."
        )
    function = NAMED[name] or _imported(name)
    try:
        found = function()
    except Exception as error:
        raise BackboneError(f"'{printable(name)}' failed: {type(error).__name__}: {printable(str(error))}.") from error
    from torch import nn

    module, transform = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(module, nn.Module):
        raise BackboneError(f"'{printable(name)}' returns no (nn.Module, transform) but {type(found).__name__}.")
    path = Path(getattr(sys.modules.get(function.__module__), "__file__", None) or __file__)
    return OwnNetwork(module.eval().requires_grad_(False), _transform_of(name, transform), path, source_digest(path))


def _imported(name: str) -> Callable[[], Any]:
    """Return the function; its module may be in the working folder."""
    module_name, _, function_name = name.partition(":")
    here = os.fspath(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in function_name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UnknownBackbone(f"There is no function '{printable(name)}': {printable(str(error))}.") from error
    except Exception as error:
        raise BackboneError(
            f"The module of '{printable(name)}' cannot be imported: {type(error).__name__}: {printable(str(error))}."
        ) from error
    if not callable(found):
        raise UnknownBackbone(f"'{printable(name)}' is no function.")
    return found  # type: ignore[no-any-return]


def _transform_of(name: str, transform: object) -> TransformSpec:
    if isinstance(transform, TransformSpec):
        return transform
    try:
        return TransformSpec.from_dict(dict(transform) if isinstance(transform, Mapping) else transform)
    except (ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            f"'{printable(name)}' returns no transform next to its module ({printable(str(error))}): return (module, "
            "TransformSpec(resize=256, crop=224, interpolation='bilinear', antialias=True, mean=..., std=...))."
        ) from error
