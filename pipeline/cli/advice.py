"""Advice of the command line: the command to run next, where the library names a function to call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from featurecache.base.errors import BackboneNotInRun, FeaturesMissing, PipelineError, UsageError
from featurecache.base.quoting import as_command
from featurecache.base.text import printable
from featurecache.runs.command_lines import audit_command, extract_commands, image_words

if TYPE_CHECKING:
    from featurecache.evaluate.leak_effect import AuditAdvice, AuditCall
    from featurecache.extract.images.manifest import Manifest
    from featurecache.extract.images.read_options import ReadOptions


@contextlib.contextmanager
def naming_commands(images: str, options: ReadOptions | None = None) -> Iterator[None]:
    """Let errors of the block end in the command to run first; images, options: as the user gave them."""
    try:
        yield
    except FeaturesMissing as error:
        commands = extract_commands(images, list(error.n_missing), error.cache_root, options=options)
        raise PipelineError("\n".join([f"{error.finding} Run first:", *commands])) from error
    except BackboneNotInRun as error:
        command = as_command(
            ["featurecache", "run", *image_words(printable(images), options), "--backbone", error.backbone]
        )
        raise UsageError(f"{error.finding} Run first: {command}") from error


def audit_advice(manifest: Manifest) -> AuditAdvice:
    """Return the advice that names the `featurecache audit` command for these images."""

    def advise(call: AuditCall) -> str:
        command = audit_command(
            manifest.source,
            call.request,
            call.cache_root,
            call.seed,
            min_per_class=call.min_per_class,
            options=manifest.options,
        )
        return f"To list them: {command}"

    return advise
