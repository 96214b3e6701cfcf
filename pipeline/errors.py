"""What the pipeline itself refuses to do; the rooms below have trees of their own.

PipelineError          the run failed: exit code 1
├── UsageError         the command was wrong, nothing was tried: exit code 2
└── Diverged           a training that leads nowhere: its state is of no use
"""


class PipelineError(Exception):
    """A run that cannot go on; the message says what to do next."""


class UsageError(PipelineError):
    """A command line that asks for something that is not there."""


class Diverged(PipelineError):
    """A training whose numbers are none any more."""
