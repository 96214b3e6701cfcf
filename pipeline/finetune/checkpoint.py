"""What survives a kill: the state of a training, written whole or not at all, and found again by what it is a state of.

The file lies beside the run that it will become, under a name that is the hash of everything that decides the result.
So there is nothing to check when it is found, and a state is never gone on with under other settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from extract.manifest import printable
from extract.shards import publish
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.finetune.training import Training


class Checkpoint:
    """The place where the state of one training is kept; `identity`: the hash of everything that decides the result."""

    def __init__(self, folder: Path, decisive: dict[str, Any]) -> None:
        text = json.dumps(decisive, sort_keys=True)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = folder / f".finetune-{self.identity}.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Replace what is kept. Raises PipelineError when the place cannot be written."""
        temporary = self.path.with_name(f"{self.path.name}-{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, temporary)
            publish(temporary, self.path)
        except (OSError, RuntimeError) as error:
            raise PipelineError(
                f"The state of the training cannot be written to '{printable(self.path.parent)}': {error}. "
                "Make room there, or choose another place with --out."
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def restore(self, training: Training) -> None:
        """Put what was kept last into a training. Raises PipelineError where it is damaged or gone."""
        try:
            training.restore(torch.load(self.path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise PipelineError(
                f"'{printable(self.path)}' is damaged ({type(error).__name__}). Delete it and start without --resume."
            ) from error

    def forget(self) -> None:
        """Remove what was kept, and what a kill has left half written: it is finished, or leads nowhere."""
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink(missing_ok=True)
