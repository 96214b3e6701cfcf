"""Checkpoints: the state of a training, written whole or not at all, and found again by what it is a state of.

The file lies next to the run that it will become, under a name that is the hash of everything that decides the result,
and holds that hash too: no training continues from a state of other settings. It may still be a stranger's file, so it
is read as tensors and plain values, and each is compared with what the training has in its place (`state_checks.py`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from featurecache.base.errors import PipelineError
from featurecache.base.files import TEMPORARY_PREFIX, replacing_file
from featurecache.base.plain_files import UnfitFile, check_is_stored, check_plain_file
from featurecache.base.text import printable
from featurecache.finetune.state_checks import check_state

if TYPE_CHECKING:
    from featurecache.finetune.training import Training


class Checkpoint:
    """The place where the state of one training is kept; `identity`: the hash of everything that decides the result."""

    def __init__(self, folder: Path, decisive: dict[str, Any]) -> None:
        text = json.dumps(decisive, sort_keys=True)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = folder / f".finetune-{self.identity}.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Replace what is kept. Raises PipelineError when the place cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing_file(self.path) as temporary:
                torch.save({**state, "identity": self.identity}, temporary)
        except (OSError, RuntimeError) as error:
            raise PipelineError(
                f"The state of the training cannot be written to '{printable(self.path.parent)}': {error}. "
                "Make room there, or choose another place with --out."
            ) from error

    def restore(self, training: Training) -> None:
        """Put what was kept last into a training. Raises PipelineError where it is damaged, another's, or gone."""
        training.restore(check_state(self._read(), training, self.identity, self._damaged))

    def _read(self) -> Any:
        """Read the state as tensors and plain values: no object in it is built. Raises PipelineError."""
        try:
            check_plain_file(self.path, self.path.parent)
            check_is_stored(self.path)
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except UnfitFile as error:
            raise self._damaged(str(error)) from error
        except Exception as error:
            # A file that is no pickle of tensors can make its reader stumble over anything.
            raise self._damaged(type(error).__name__) from error

    def _damaged(self, reason: str) -> PipelineError:
        return PipelineError(
            f"'{printable(self.path)}' is damaged ({printable(reason)}). Delete it and start without --resume."
        )

    def forget(self) -> None:
        """Remove what was kept, and what a kill has left half written: it is finished, or leads nowhere."""
        name = self.path.name
        for pattern in (f"{name}*", f"{TEMPORARY_PREFIX}*{name}"):
            for path in self.path.parent.glob(pattern):
                path.unlink(missing_ok=True)
