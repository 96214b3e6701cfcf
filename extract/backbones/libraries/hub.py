"""Files of the Hugging Face hub, in the cache that all programs of a user share.

    HF_HUB_CACHE, or HF_HOME/hub    models--ORG--NAME/snapshots/<commit>/<file>, and refs/<revision> with a commit

A revision, such as `main`, is resolved to a commit once and kept; the hub is asked again only by `refresh`. Where a
file is on this machine, no network and no package is needed. HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are heeded; a
token is never written anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from featurecache.base.errors import BackboneError, WeightsMissing
from featurecache.base.known_answers import known_answer, remember_answer
from featurecache.base.quoting import as_command
from featurecache.base.text import printable
from featurecache.extract.backbones.names import MAIN

COMMIT = re.compile(r"[0-9a-f]{40}")
USUAL_ENDPOINT = "https://huggingface.co"
TRUE = frozenset({"1", "ON", "YES", "TRUE"})
CONFIG, WEIGHTS = "config.json", "model.safetensors"
BLOCK = 1 << 20
FOLDER_START = "models--"


def hub_cache() -> Path:
    """Return the folder of the hub's cache, by the rules of huggingface_hub."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(home) if home else Path(caches) / "huggingface").expanduser() / "hub"


def is_offline() -> bool:
    """Whether the user forbids to ask the hub."""
    return any(os.environ.get(name, "").upper() in TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def endpoint() -> str:
    """Return the address of the hub."""
    return (os.environ.get("HF_ENDPOINT") or USUAL_ENDPOINT).rstrip("/")


def shown_endpoint() -> str:
    """Return the address of the hub without a user and a password."""
    parts = urlsplit(endpoint())
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _folder(repository: str) -> Path:
    return hub_cache() / f"{FOLDER_START}{repository.replace('/', '--')}"


@dataclass(frozen=True)
class HubFolder:
    """A repository of the hub at a revision. backbone: the name that it is asked for by."""

    backbone: str
    repository: str
    revision: str

    def commit(self) -> str | None:
        """Return the commit of the revision that is kept, or that the hub's cache knows; None if there is none."""
        if COMMIT.fullmatch(self.revision):
            return self.revision
        kept = known_answer(self._question())
        if kept is not None and COMMIT.fullmatch(kept):
            return kept
        with contextlib.suppress(OSError, UnicodeDecodeError):
            known = (_folder(self.repository) / "refs" / self.revision).read_text(encoding="ascii").strip()
            return known if COMMIT.fullmatch(known) else None
        return None

    def file(self, name: str) -> Path | None:
        """Return a file of the commit on this machine; None if it is not here."""
        commit = self.commit()
        path = _folder(self.repository) / "snapshots" / (commit or "") / name
        return path if commit and path.is_file() else None

    def fetch(self, name: str) -> Path:
        """Return a file of the commit, after downloading and checking it if it is not here. Raises WeightsMissing."""
        path = self.file(name)
        if path is not None:
            return path
        if is_offline():
            raise WeightsMissing(self._sentence(name, "HF_HUB_OFFLINE forbids to fetch it"))
        hub = _hub_library(self.backbone)
        with self._as_one_sentence(name):
            commit = self.commit() or self._ask(hub, name)
            path = Path(
                hub.hf_hub_download(
                    self.repository, name, revision=commit, cache_dir=str(hub_cache()), endpoint=endpoint()
                )
            )
            if not _is_as_named(path):
                path.resolve().unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                raise WeightsMissing(self._sentence(name, "what was downloaded has another checksum, and was removed"))
        self._keep(commit)
        return path

    def refresh(self, name: str) -> tuple[str | None, str]:
        """Ask the hub for the commit of the revision and keep it; return the one before and it. Raises WeightsMissing.

        name: a file of the repository.
        """
        before = self.commit()
        if is_offline():
            raise WeightsMissing(self._sentence(name, "HF_HUB_OFFLINE forbids to ask for its newest commit"))
        hub = _hub_library(self.backbone)
        with self._as_one_sentence(name):
            commit = self._ask(hub, name)
        self._keep(commit)
        return before, commit

    def _ask(self, hub: Any, name: str) -> str:
        url = hub.hf_hub_url(self.repository, name, revision=self.revision, endpoint=endpoint())
        commit = str(hub.get_hf_file_metadata(url).commit_hash)
        if not COMMIT.fullmatch(commit):
            raise WeightsMissing(self._sentence(name, "the hub names no commit"))
        return commit

    def _keep(self, commit: str) -> None:
        """Keep the commit of the revision in the folder of the user, and where the hub's own programs keep it."""
        if COMMIT.fullmatch(self.revision):
            return
        remember_answer(self._question(), commit)
        path = _folder(self.repository) / "refs" / self.revision
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(commit, encoding="ascii")

    def _question(self) -> str:
        return json.dumps(["commit on the hub", shown_endpoint(), str(hub_cache()), self.repository, self.revision])

    @contextlib.contextmanager
    def _as_one_sentence(self, name: str) -> Iterator[None]:
        """Turn whatever the hub's library raises into WeightsMissing; its messages may name tokens and have pages."""
        try:
            yield
        except BackboneError:
            raise
        except (KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:
            raise WeightsMissing(self._sentence(name, _reason(error, self))) from error

    def _sentence(self, name: str, reason: str) -> str:
        words = ["hf", "download", self.repository, *dict.fromkeys([CONFIG, name])]
        wanted = self.commit() or self.revision
        words += [] if wanted == MAIN else ["--revision", wanted]
        return (
            f"{printable(self.backbone)} needs {name} of {self.repository}, which is not in "
            f"'{printable(hub_cache())}': {reason}. `{as_command(words)}` fetches it where there is a network."
        )


def _hub_library(backbone: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise BackboneError(
            f"{printable(backbone)} is on the hub, and huggingface_hub is not installed: "
            "`pip install 'featurecache[timm]'`."
        ) from error
    return huggingface_hub


def _reason(error: Exception, folder: HubFolder) -> str:
    """Return a clause on an error of the hub's library, by its kind and its status; its text is left out."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"{shown_endpoint()}/{folder.repository}"
    if "GatedRepoError" in kinds or status in (401, 403):
        return (
            f"the hub refuses it ({status}), so it is private, gated or misspelt; accept its conditions on {page} and "
            "set HF_TOKEN to a token that may read it"
        )
    if "RevisionNotFoundError" in kinds:
        return f"the hub has no revision '{folder.revision}' of it"
    if "RepositoryNotFoundError" in kinds:
        return "the hub has no repository of that name"
    if "EntryNotFoundError" in kinds and status == 404:
        return "the repository has no such file, and others are not read"
    if status is not None:
        return f"the hub answers with status {status}"
    if isinstance(error, OSError) and "onsistency" in str(error):
        return "its download was cut off"
    if kinds & {"ConnectError", "ConnectionError", "ConnectTimeout", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}:
        return f"{shown_endpoint()} cannot be reached"
    return f"its download failed ({type(error).__name__})"


def _is_as_named(path: Path) -> bool:
    """Whether a downloaded file has the checksum that the hub names it by: SHA-256, or git's for small files."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        digest = hashlib.sha256()
    elif COMMIT.fullmatch(blob.name):
        digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode(), usedforsecurity=False)
    else:
        return True
    with blob.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == blob.name
