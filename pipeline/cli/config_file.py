"""`--config FILE`: values of options from a TOML file that the user names, and the options of a command as such a file.

    [common]                       for every command that has the option
    backbone = ["resnet50", "vgg16"]

    [classify]                     for one command; comes before [common], and the command line before both
    images = "photos/"
    calibrate = true
    param.logistic.C = [0.1, 1, 10]

A key is the long name of an option, with hyphens or underscores, or the name of an argument. Paths are what they are on
the command line: relative to the working folder. Every key and value of the file is checked, whichever command runs.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from featurecache.base.plain_files import UnfitFile, check_plain_file
from featurecache.base.text import printable

COMMON = "common"
# The commands that take a file; one that is not there is left out.
COMMANDS = ("extract", "classify", "run", "predict", "finetune", "export", "select", "audit", "serve")
MOST_BYTES = 1 << 20
# Tables within tables: param.sklearn.svm.SVC.C has five levels below the table of its command.
MOST_LEVELS = 12
# What the copy in a run leaves out: where the run is, and what is only shown.
NOT_OF_A_RUN = ("out", "json", "quiet", "dry-run", "resume")
GIGA, LARGEST = 1e9, sys.float_info.max
HELP = (
    "take options from a TOML file: a table for each command, such as [classify], and [common] for all; the command "
    "line wins. Paths in it are relative to the working folder"
)


def config_option() -> click.Option:
    """Return the option of a command that may take its others from a file."""
    return click.Option(
        ["--config"], type=click.Path(), metavar="FILE", multiple=True, is_eager=True, expose_value=False,
        callback=_apply, help=HELP,
    )  # fmt: skip


def _apply(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> None:
    """Let the values of a file be the defaults of a command. Raises click.UsageError."""
    if len(value) > 1:
        raise click.UsageError("--config is given twice, and options are taken from one file.", ctx)
    if value and not ctx.resilient_parsing:
        ctx.default_map = values_for(ctx, value[0])


def values_for(ctx: click.Context, file: str) -> dict[str, Any]:
    """Return {name of a parameter: value} of a file for the command of `ctx`. Raises click.UsageError."""
    name, known = str(ctx.info_name), {str(ctx.info_name): ctx.command}
    found = dict[str, dict[str, Any]]()
    for table, values in read_tables(ctx, file).items():
        if table == COMMON:
            found[table] = _of_common(ctx, values, f"'{printable(file)}', [{table}]", known)
            continue
        command = known.get(table) or _command(ctx, table)
        if command is None:
            near = difflib.get_close_matches(table, (COMMON, *COMMANDS), n=1)
            which = f"Did you mean [{near[0]}]?" if near else f"Tables are {_list([COMMON, *COMMANDS])}."
            raise click.UsageError(
                f"'{printable(file)}': [{printable(table)}] is no command that takes options from a file. {which}", ctx
            )
        known[table] = command
        found[table] = _checked(ctx, command, values, f"'{printable(file)}', [{table}]")
    return {**found.get(COMMON, {}), **found.get(name, {})}


def _command(ctx: click.Context, name: str) -> click.Command | None:
    root = ctx.find_root().command
    return root.get_command(ctx, name) if name in COMMANDS and isinstance(root, click.Group) else None


def _of_common(
    ctx: click.Context, values: Mapping[str, Any], where: str, known: dict[str, click.Command]
) -> dict[str, Any]:
    """The values of [common] that the command has; the others are checked by a command that has them.

    A list is for the commands whose option may be repeated, such as --backbone of all but finetune.
    """
    own = options_of(ctx.command)
    mine = {key: value for key, value in values.items() if _plain(key) in own and _may_take(own[_plain(key)], value)}
    rest = {key: value for key, value in values.items() if key not in mine}
    if rest:
        known |= {name: found for name in COMMANDS if name not in known and (found := _command(ctx, name))}
    for key, value in rest.items():
        having = [command for command in known.values() if _plain(key) in options_of(command)]
        others = [each for each in having if _may_take(options_of(each)[_plain(key)], value)] or having
        if not others:
            every = {each for command in known.values() for each in options_of(command)}
            raise click.UsageError(f"{where}: {_unknown(key, every)}", ctx)
        _checked(ctx, others[0], {key: value}, where)
    return _checked(ctx, ctx.command, mine, where)


def _checked(ctx: click.Context, command: click.Command, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return {name of a parameter: value} of a table, every key and value checked. Raises click.UsageError."""
    known, found = options_of(command), dict[str, Any]()
    for key, value in values.items():
        param = known.get(_plain(key))
        if param is None:
            having = [name for name in COMMANDS if (each := _command(ctx, name)) and _plain(key) in options_of(each)]
            raise click.UsageError(f"{where}: {_unknown(key, known, having)}", ctx)
        if param.name in found:
            raise click.UsageError(f"{where}: {_plain(key)} is given twice, with hyphens and with underscores.", ctx)
        try:
            found[str(param.name)] = _fitting(param, value, ctx)
        except (ValueError, click.BadParameter) as error:  # Python's own for thousands of digits
            reason = error.message if isinstance(error, click.BadParameter) else str(error)
            raise click.UsageError(f"{where}, {printable(key)}: {reason}", ctx) from None
    return found


def _may_take(param: click.Parameter, value: Any) -> bool:
    """Whether a value is not a list, or the option may have several."""
    return not isinstance(value, list) or param.multiple or param.nargs == -1 or param.type.name == "counts"


def _unknown(key: str, known: Mapping[str, Any] | set[str], having: Sequence[str] = ()) -> str:
    near = difflib.get_close_matches(_plain(key), sorted(known), n=2, cutoff=0.65)
    others = f"It is one of {_list(having)}." if having else f"Options are {', '.join(sorted(known))}."
    meant = f"Did you mean {' or '.join(near)}?" if near else others
    return f"there is no option '{printable(key)}'. {meant}"


def options_of(command: click.Command) -> dict[str, click.Parameter]:
    """Return {key: parameter} of what a file may set: the long names of options, and the names of arguments."""
    found = dict[str, click.Parameter]()
    for param in command.params:
        if isinstance(param, click.Argument):
            found[str(param.name)] = param
        elif param.expose_value:
            found[max(param.opts, key=len).lstrip("-")] = param
    return found


def _plain(key: str) -> str:
    return key.replace("_", "-")


class _Unfit(ValueError):
    """A value of the wrong type; the message says what the option takes."""


def _fitting(param: click.Parameter, value: Any, ctx: click.Context) -> Any:
    """Return the value as click takes it from the command line. Raises _Unfit, click.BadParameter."""
    if isinstance(param, click.Option) and param.is_flag:
        if not isinstance(value, bool):
            raise _Unfit(f"{_shown(value)} is neither true nor false.")
        return value
    if value == []:
        raise _Unfit("the list is empty. Leave the key out for the default.")
    if isinstance(value, dict) and param.name == "param":
        value = _settings(value)
    if isinstance(value, list) and param.type.name == "counts":
        value = ",".join(_text(param, each) for each in value)
    if param.multiple or param.nargs == -1:
        return [_one(param, each, ctx) for each in (value if isinstance(value, list) else [value])]
    if isinstance(value, list):
        raise _Unfit(f"{_shown(value)} is a list, and the option takes one value.")
    return _one(param, value, ctx)


def _one(param: click.Parameter, value: Any, ctx: click.Context) -> Any:
    kind = param.type
    if isinstance(kind, click.types.IntParamType) and type(value) is not int:
        raise _Unfit(f"{_shown(value)} is not a whole number.")
    if isinstance(kind, click.types.FloatParamType):
        if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:  # nor NaN
            raise _Unfit(f"{_shown(value)} is not a number.")
    elif not isinstance(kind, click.types.IntParamType):
        value = _text(param, value)
    kind.convert(value, param, ctx)
    return value


def _text(param: click.Parameter, value: Any) -> str:
    """Return a value as a text; a number is one where the option takes any text, such as unfreeze = 3."""
    takes_numbers = not isinstance(param.type, click.Choice | click.Path)
    if isinstance(value, str) and "\0" not in value:
        return value
    if takes_numbers and type(value) in (int, float):
        return str(value)
    raise _Unfit(f"{_shown(value)} is not a text in quotes.")


def _shown(value: Any) -> str:
    text = printable(json.dumps(value, default=str, ensure_ascii=False))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _settings(tables: Mapping[str, Any]) -> list[str]:
    """Return values of parameters from tables, such as logistic.C = [0.1, 1], as texts logistic.C=0.1,1."""
    from featurecache.classify.selection.settings import format_settings, listed_settings

    given = dict[str, dict[str, Any]]()
    for path, value in _leaves(tables):
        head, _, name = path.rpartition(".")
        if not head:
            raise _Unfit(f"'{printable(path)}' is not HEAD.NAME: give one such as param.logistic.C = [0.1, 1, 10].")
        given.setdefault(head, {})[name] = value
    return format_settings(listed_settings(given))


def _leaves(tables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def read_tables(ctx: click.Context, file: str) -> dict[str, dict[str, Any]]:
    """Return {table: {key: value}} of a TOML file. Raises click.UsageError for any other file."""
    import tomllib

    path, shown = Path(file), printable(file)
    try:
        check_plain_file(path, path.resolve().parent)
        with path.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UnfitFile(f"it is larger than {MOST_BYTES >> 20} MiB")
        values = tomllib.loads(data.decode("utf-8-sig"))
        if _is_deep(values):
            raise UnfitFile(f"it is nested deeper than {MOST_LEVELS} levels")
    except FileNotFoundError:
        raise click.UsageError(f"There is no file '{shown}' for --config.", ctx) from None
    except OSError as error:
        raise click.UsageError(f"'{shown}' cannot be read: {error.strerror or error}.", ctx) from None
    except UnicodeDecodeError:
        raise click.UsageError(f"'{shown}' is no TOML file: it is not in UTF-8.", ctx) from None
    except RecursionError:
        raise click.UsageError(f"'{shown}' is no file for --config: it is nested too deeply.", ctx) from None
    except UnfitFile as error:
        raise click.UsageError(f"'{shown}' is no file for --config: {error}.", ctx) from None
    except ValueError as error:  # tomllib's, and that for a number of thousands of digits
        raise click.UsageError(f"'{shown}' is no TOML file: {printable(str(error))[:200]}.", ctx) from None
    for key, value in values.items():
        if not isinstance(value, dict):
            raise click.UsageError(
                f"'{shown}': '{printable(key)}' is in no table. Put it below [{COMMON}], or below the name of a "
                "command, such as [classify].", ctx,
            )  # fmt: skip
    return values


def _is_deep(values: Any) -> bool:
    level = [values]
    for _ in range(MOST_LEVELS):
        level = [
            each
            for value in level
            for each in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
    return bool(level)


def resolved_options(ctx: click.Context) -> str:
    """Return the options of the command that is being done as a file for --config, with which it is done again."""
    from featurecache.runs.models.places import find_run

    lines = [f"# featurecache {ctx.info_name} --config THIS_FILE does the same again.", f"[{ctx.info_name}]"]
    for key, param in options_of(ctx.command).items():
        value = ctx.params.get(str(param.name))
        if key == "from" and value is not None:
            value = find_run(value)  # a model may have another version tomorrow
        if key not in NOT_OF_A_RUN and value is not None and value != ():
            lines.append(f"{key} = {_as_toml(value / GIGA if param.type.name == 'gigabytes' else value)}")
    return "\n".join(lines) + "\n"


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_as_toml, value))}]"
    if isinstance(value, Path) and value.is_symlink():  # `latest` leads to another run tomorrow
        value = value.parent / os.readlink(value)  # noqa: PTH115 (a text)
    text = os.fspath(value).encode("utf-8", "backslashreplace").decode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"[{name}]" for name in names)
