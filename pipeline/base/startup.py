"""Whether this process runs a command and nothing else, so that no library is imported for what callers might do."""

from __future__ import annotations

_only_commands = False


def begin_command_process() -> None:
    """Note that the process is one of the command `featurecache`."""
    global _only_commands
    _only_commands = True


def is_command_process() -> bool:
    """Return whether it is."""
    return _only_commands
