"""What the pipeline itself refuses to do; the rooms below have trees of their own.

PipelineError          the run failed: exit code 1
├── UsageError         the command was wrong, nothing was tried: exit code 2
└── Diverged           a training whose loss is NaN or infinite: its state is of no use
"""

from typing import ClassVar

from pipeline.exits import FAILED, USAGE


class PipelineError(Exception):
    """A run that cannot go on; the message says what to do next."""

    exit_code: ClassVar[int] = FAILED


class UsageError(PipelineError):
    """A command line that asks for something that is not there."""

    exit_code = USAGE


class Diverged(PipelineError):
    """A training that diverged: its loss is NaN or infinite."""
