"""The networks of timm that have weights on the hub, and the folders of timm in the hub's cache.

timm is imported once for a version of it, which takes seconds; after that the list is in the folder of the user.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featurecache.base.known_answers import known_answer, remember_answer
from featurecache.base.plain_files import parse_json
from featurecache.base.versions import installed_version
from featurecache.extract.backbones.libraries.hub import CONFIG, FOLDER_START, WEIGHTS, hub_cache
from featurecache.extract.backbones.names import HUB_START

MOST_BYTES = 1 << 20
# Of a listed network: its name, the tags of its weights with the default first, and the licence of the default.
TimmNetwork = tuple[str, tuple[str, ...], str]


def timm_networks() -> list[TimmNetwork]:
    """Return the networks of timm that have weights on the hub, by name; none where timm is not installed."""
    version = installed_version("timm")
    if version is None or importlib.util.find_spec("timm") is None:
        return []
    question = json.dumps(["networks of timm", version])
    text = known_answer(question)
    if text is None:
        text = json.dumps(_ask_timm())
        remember_answer(question, text)
    try:
        return [(str(name), tuple(map(str, tags)), str(licence)) for name, tags, licence in parse_json(text)]
    except (ValueError, TypeError):
        return _ask_timm()


def folders_on_disk() -> dict[str, bool]:
    """Return {name of a repository: whether its weights are there} of the hub's cache, as timm/NAME.TAG or ORG/NAME."""
    found = {}
    with contextlib.suppress(OSError):
        for folder in sorted(hub_cache().iterdir()):
            if folder.name.startswith(FOLDER_START):
                name = folder.name.removeprefix(FOLDER_START).replace("--", "/", 1)
                found[name] = any(folder.glob("snapshots/*/*.safetensors"))
    return found


def other_hub_folders() -> Iterator[tuple[str, str]]:
    """Yield name and licence of the folders in the hub's cache that timm can read and that are not timm's own."""
    for name, is_here in folders_on_disk().items():
        if is_here and not name.startswith("timm/"):
            config = _config_of(name)
            if isinstance(config.get("architecture"), str):
                nested = config.get("pretrained_cfg")
                licence = nested.get("license") if isinstance(nested, dict) else config.get("license")
                yield f"{HUB_START}{name}", licence if isinstance(licence, str) else ""


def _config_of(repository: str) -> dict[str, Any]:
    folder = hub_cache() / f"{FOLDER_START}{repository.replace('/', '--')}"
    for path in sorted(folder.glob(f"snapshots/*/{CONFIG}")):
        if (path.parent / WEIGHTS).is_file():
            with contextlib.suppress(OSError, ValueError):
                return _object(path)
    return {}


def _object(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        found = parse_json(file.read(MOST_BYTES))
    return found if isinstance(found, dict) else {}


def _ask_timm() -> list[TimmNetwork]:
    import timm

    config_of: Any = timm.get_pretrained_cfg
    tags: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        if tag and config_of(name).hf_hub_id:
            tags.setdefault(architecture, []).append(tag)
    found = []
    for name, each in sorted(tags.items()):
        default = config_of(name)
        ordered = [tag for tag in each if tag == default.tag] + [tag for tag in each if tag != default.tag]
        found.append((name, tuple(ordered), str(default.license or "")))
    return found
