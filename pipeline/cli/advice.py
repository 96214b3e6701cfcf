"""Advice of the command line: the command to run next, where the library names a function to call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from featurecache.base.errors import BackboneNotInRun, FeaturesMissing, PipelineError, UsageError
from featurecache.base.quoting import as_command
from featurecache.base.text import printable
from featurecache.runs.command_lines import audit_command, extract_commands

if TYPE_CHECKING:
    from featurecache.evaluate.leakage import AuditAdvice, AuditCall


@contextlib.contextmanager
def naming_commands(images: str) -> Iterator[None]:
    """Let errors of the block end in the command to run first; images: as the user named them."""
    try:
        yield
    except FeaturesMissing as error:
        commands = extract_commands(images, list(error.n_missing), error.cache_root)
        raise PipelineError("\n".join([f"{error.finding} Run first:", *commands])) from error
    except BackboneNotInRun as error:
        command = as_command(["featurecache", "run", printable(images), "--backbone", error.backbone])
        raise UsageError(f"{error.finding} Run first: {command}") from error


def audit_advice(images: str) -> AuditAdvice:
    """Return the advice that names the `featurecache audit` command; images: as the user named them."""

    def advise(call: AuditCall) -> str:
        command = audit_command(images, call.request, call.cache_root, call.seed, min_per_class=call.min_per_class)
        return f"To list them: {command}"

    return advise
