"""Fields of a dataclass that people may set, described where they are declared.

The command line makes an option of every such field, command lines to reproduce a result are written from them, and
values are checked against their choices. So a new setting is one field and whatever it does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

DESCRIPTION = "description"


@dataclass(frozen=True)
class Description:
    """What a field is for.

    choices: the values that it may have; empty for any. least: the smallest whole number. metavar: how its value is
    called in help texts. repeatable: whether several values may be asked for, each making a request of its own.
    """

    help: str
    choices: tuple[str, ...] = ()
    least: int | None = None
    metavar: str = ""
    repeatable: bool = False


def described(default: Any, help: str, **how: Any) -> Any:  # noqa: A002
    """Return a dataclass field with this default and a `Description`."""
    return field(default=default, metadata={DESCRIPTION: Description(help, **how)})


def option_name(name: str) -> str:
    """Return the option of the command line for a field: `--label-column`; `as_` is `--as`."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def descriptions(kind: Any) -> dict[str, Description]:
    """Return {name: description} of the described fields of a dataclass, in their order."""
    return {each.name: each.metadata[DESCRIPTION] for each in fields(kind) if DESCRIPTION in each.metadata}
