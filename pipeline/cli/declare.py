"""Options as dataclasses: a field is an option, and a command takes instances of what it needs.

    @dataclass(frozen=True)
    class EngineOptions:
        device: str = option("--device", type=click.Choice(DEVICES), default="auto", help="where the network runs")

    @takes(EngineOptions)
    def extract(engine: EngineOptions) -> int: ...

So an option is written once: its name, what it may be, its default, its help and its group. A request of the library
whose fields are described (`base/described.py`) is taken as a whole: `every_field_of(FeatureRequest)`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import click

from featurecache.base.defaults import LARGEST_SEED
from featurecache.base.described import Description, descriptions, option_name
from featurecache.base.values import LIKE
from featurecache.cli.config_file import config_option
from featurecache.cli.console import saying_that_it_loads

OPTION, GROUP, FIELDS_OF = "option", "group", "fields of"
Kind = TypeVar("Kind")


@dataclass
class Invocation:
    """The command that is being done: the values of its options, and the message for when it is stopped."""

    values: Mapping[str, Any] = field(default_factory=dict)
    stopped: str = "Stopped."


def option(*names: str, help: str, default: Any = None, group: str = "", **how: Any) -> Any:  # noqa: A002
    """Return a dataclass field that is an option of the command line; `how` goes to click."""
    settings = {"help": help, **how}
    if not how.get("required"):  # click takes any default, None too, as a value that was given
        settings["default"] = default
    return field(default=default, metadata={OPTION: (names, settings), GROUP: group})


def argument(metavar: str, help: str, **how: Any) -> Any:  # noqa: A002
    """Return a dataclass field that is an argument of the command line."""
    return field(metadata={OPTION: ((), {"metavar": metavar, **how}), GROUP: help})


def every_field_of(kind: type, group: str = "") -> Any:
    """Return a dataclass field that is an option for each described field of `kind`; its value is {name: value}."""
    return field(metadata={FIELDS_OF: kind, GROUP: group})


def takes(*kinds: type) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator that gives a function, one after the other, an instance of each of these dataclasses."""

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def call(**values: Any) -> int:
            return function(*[picked(kind, values) for kind in kinds])

        found = [parameter for kind in kinds for each in fields(kind) for parameter in parameters(each)]
        vars(call)["__click_params__"] = found[::-1]  # as decorators leave them, the last one first
        return call

    return decorate


def picked(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Return an instance of a dataclass of options, with its fields from the values of all options."""
    found = {
        each.name: {name: values[name] for name in descriptions(each.metadata[FIELDS_OF])}
        if FIELDS_OF in each.metadata
        else values[each.name]
        for each in fields(kind)  # type: ignore[arg-type]
    }
    return kind(**found)


def parameters(each: Any) -> list[click.Parameter]:
    """Return what click makes of a field: one parameter, or one for each field that it stands for."""
    group = each.metadata[GROUP]
    if FIELDS_OF not in each.metadata:
        return [_parameter(each)]
    kind = each.metadata[FIELDS_OF]
    defaults = {each.name: each.default for each in fields(kind)}
    return [_described(name, defaults[name], description, group) for name, description in descriptions(kind).items()]


def _described(name: str, default: Any, description: Description, group: str) -> Option:
    """Return the option for a described field: a flag where it is true or false, repeatable where it may be."""
    how: dict[str, Any] = {"help": description.help, "metavar": description.metavar or None}
    if description.repeatable:
        how |= {"multiple": True}
    elif isinstance(default, bool):
        how |= {"is_flag": True, "default": default}
    else:
        how |= {"default": default, "show_default": default is not None}
    if description.choices:
        how |= {"type": click.Choice(description.choices)}
    elif description.least is not None:
        how |= {"type": Whole(description.least)}
    return Option([name, option_name(name)], group=group, **how)


def _parameter(each: Any) -> click.Parameter:
    names, settings = each.metadata[OPTION]
    if not names:
        return Argument([each.name], group=each.metadata[GROUP], **settings)
    return Option([each.name, *names], group=each.metadata[GROUP], **settings)


class Option(click.Option):
    """An option that its command's help shows in a group."""

    def __init__(self, *args: Any, group: str = "", **how: Any) -> None:
        self.group = group
        super().__init__(*args, **how)


class Argument(click.Argument):
    """An argument with a help of its own."""

    def __init__(self, *args: Any, group: str = "", **how: Any) -> None:
        self.what = group
        super().__init__(*args, **how)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return what its line in the help shows."""
        return self.make_metavar(ctx), self.what


class Command(click.Command):
    """A command whose help has groups and examples, and which has a message of its own for when it is stopped.

    stopped: the sentence for Ctrl-C. examples: command lines. old: options by the names that they had before.
    takes_file: whether options may come from a file, by --config.
    """

    def __init__(
        self,
        *args: Any,
        stopped: str = "Stopped.",
        examples: Sequence[str] = (),
        old: Mapping[str, str] | None = None,
        takes_file: bool = False,
        **how: Any,
    ) -> None:
        super().__init__(*args, **how)
        self.stopped, self.examples, self.old = stopped, examples, old or {}
        self.params += [config_option()] if takes_file else []

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take options by their old names too, with a note; for an unknown one, name those that are like it."""
        try:
            return super().parse_args(ctx, [self._renamed(each) for each in args])
        except click.NoSuchOption as error:
            name = error.option_name.lstrip("-")
            near = [each for each in error.possibilities or () if _is_like(name, each.lstrip("-"))]
            raise click.NoSuchOption(error.option_name, possibilities=near, ctx=error.ctx) from None

    def _renamed(self, text: str) -> str:
        name, sign, value = text.partition("=")
        if name not in self.old:
            return text
        click.echo(
            f"featurecache: {name} is called {self.old[name]} now; the old name goes in the next version.", err=True
        )
        return f"{self.old[name]}{sign}{value}"

    def invoke(self, ctx: click.Context) -> Any:
        """Note what is being done, and do it."""
        invocation = ctx.ensure_object(Invocation)
        invocation.values, invocation.stopped = ctx.params, self.stopped
        with saying_that_it_loads(quiet=ctx.params.get("quiet", False)):
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments, then options group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):
            name = "Arguments" if isinstance(each, Argument) else getattr(each, "group", "") or "Options"
            if record := each.get_help_record(ctx):
                groups.setdefault(name, []).append(record)
        last = groups.pop("Options", [])
        for name, records in [*groups.items(), ("Options", last)]:
            with formatter.section(name):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.examples:
            with formatter.section("Examples"):
                for each in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{each}\n")


def _is_like(name: str, other: str) -> bool:
    return other.startswith(name) or difflib.SequenceMatcher(a=name, b=other).ratio() >= LIKE


class Numbers(click.FloatRange):
    """Numbers of a range, without NaN, which is neither below nor above any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a float."""
        found = super().convert(value, param, ctx)
        if found != found:
            self.fail(f"{str(value)!r} is not a number.", param, ctx)
        return found


class Bytes(Numbers):
    """Gigabytes, as bytes."""

    name = "gigabytes"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return bytes."""
        found = super().convert(value, param, ctx)
        if found == float("inf"):
            self.fail(f"{value} GB is no amount of memory.", param, ctx)
        return found * 1e9


class Counts(click.ParamType[tuple[int, ...]]):
    """Numbers of 1 or more, in order, from a list with commas."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of them, each once."""
        if isinstance(value, tuple):
            return value
        found = tuple(sorted({int(POSITIVE(part, param, ctx)) for part in str(value).split(",") if part}))
        if not found:
            self.fail(f"{value!r} names no number: give some, such as 1,2,4.", param, ctx)
        return found


class Whole(click.IntRange):
    """Whole numbers of a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return an int."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            allowed = f"of {self.min:,} or more" if self.max is None else f"from {self.min:,} to {self.max:,}"
            self.fail(f"{str(value)!r} is not a whole number {allowed}.", param, ctx)


class Share(Numbers):
    """Parts of a whole, below 1."""

    def __init__(self) -> None:
        super().__init__(0, 1, max_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a float."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{str(value)!r} is not a share: give a number from 0 to below 1; 0.05 is 5 %.", param, ctx)


POSITIVE, SEED, SHARE = Whole(1), Whole(0, LARGEST_SEED), Share()
RATE, PROBABILITY = Numbers(0, min_open=True), Numbers(0, 1)
