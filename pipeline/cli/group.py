"""Commands by name, listed without importing their modules: `featurecache --help` starts at once."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

# The first paragraph of the docstring of a module's `command`.
SHORT_TEXT = re.compile(r'^def command\(.*?:\n    """(.+?)(?:"""|\n\n)', re.MULTILINE | re.DOTALL)


class Group(click.Group):
    """Commands by name, each imported from its module when it is run or shows its own help.

    places: {name: module}, in the order of the help; what it finds there is called `command`.
    """

    def __init__(self, *args: Any, places: Mapping[str, str], **how: Any) -> None:
        super().__init__(*args, **how)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return list(self.places)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names, each with what the command does."""
        width = formatter.width - 6 - max(map(len, self.places))
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_text(place, width)) for name, place in self.places.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so, then options."""
        found = {name: place for name, place in self.places.items() if name.startswith(incomplete)}
        items = [CompletionItem(name, help=short_text(place)) for name, place in found.items()]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the words name, and the words behind it; for an unknown one, name its neighbours."""
        if args and args[0] not in self.places and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.places, n=3, cutoff=0.5)
            others = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(self.places)}."
            raise click.UsageError(f"There is no command '{args[0]}'. {others}", ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None."""
        return _command_in(self.places[cmd_name]) if cmd_name in self.places else None


def short_text(place: str, width: int = 45) -> str:
    """Return the first sentence of the help of the command in a module, from its source text where that shows it."""
    source = ""
    spec = importlib.util.find_spec(place)
    with contextlib.suppress(OSError, UnicodeDecodeError):  # a module in an archive, say
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    found = SHORT_TEXT.search(source)
    command = click.Command(None, help=found[1]) if found else _command_in(place)
    return command.get_short_help_str(width)


def _command_in(place: str) -> click.Command:
    found: click.Command = importlib.import_module(place).command
    return found
