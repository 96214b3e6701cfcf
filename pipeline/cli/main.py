"""The command line as a whole: parse, do (`commands/`), say what went wrong.

Any exception becomes one sentence on stderr and an exit code (`exits.py`): errors that are raised on purpose say both
themselves, `unexpected.py` has a sentence for all others.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence

import click

from featurecache.base.exits import DONE, FAILED, INTERRUPTED, REFUSED, USAGE
from featurecache.cli.declare import Invocation
from featurecache.cli.group import Group

__all__ = ["DONE", "FAILED", "INTERRUPTED", "REFUSED", "USAGE", "guarded", "invoke", "program", "run"]

COMMANDS = ("extract", "classify", "run", "predict", "serve", "verify", "export", "finetune", "report", "audit",
            "select", "compare", "backbones", "heads", "doctor")  # fmt: skip
PLACE = "featurecache.cli.commands"
PLACES = {name: f"{PLACE}.{name}" for name in COMMANDS}
PLACES |= {name: f"{PLACE}.models.{name}" for name in ("promote", "models")}
PLACES |= {"cache": f"{PLACE}.cache.group", "bench": f"{PLACE}.bench"}
PROGRAM, COMPLETING = "featurecache", "_FEATURECACHE_COMPLETE"
EXAMPLES = """
\b
Two commands to a table of heads, on any folder with one folder per class:
  featurecache extract photos/
  featurecache classify photos/

\b
And labels of other images, by the best of them:
  featurecache predict data/runs/latest new/

Exit codes of every command: 0 done; 1 the run failed; 2 usage; 3 finished, but something that a person would count is
not in the result (a refused image, a failed head; all are listed), or a check found something; 130 stopped by Ctrl-C,
143 by SIGTERM.
"""


@click.group(
    PROGRAM,
    cls=Group,
    places=PLACES,
    epilog=EXAMPLES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, help="Print the version and end.")
@click.pass_context
def program(ctx: click.Context, version: bool) -> int:
    """Two-stage transfer learning for images.

    A frozen network turns every image into a vector once; heads on these vectors are trained and compared in seconds.
    """
    if version:
        from featurecache.base.versions import installed_version

        click.echo(f"featurecache {installed_version('featurecache')}")
        ctx.exit(DONE)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        return USAGE
    return DONE


def run(argv: Sequence[str]) -> int:
    """Parse, do, and turn every exception into one sentence on stderr and an exit code."""
    invocation = Invocation()

    def act() -> int:
        if COMPLETING in os.environ:  # the shell asks for words, or for the script that asks
            program.main(prog_name=PROGRAM)
        return invoke(program, PROGRAM, argv, invocation)

    return guarded(act, argv, invocation)


def invoke(command: click.Command, name: str, argv: Sequence[str], invocation: Invocation) -> int:
    """Parse the words and do the command. Raises click.UsageError for words that are wrong, and whatever it raises."""
    try:
        with command.make_context(name, list(argv), obj=invocation) as context:
            return int(command.invoke(context) or DONE)
    except click.exceptions.Exit as end:  # --help
        return end.exit_code


def guarded(act: Callable[[], int], argv: Sequence[str], invocation: Invocation) -> int:
    """Return the exit code of `act`, and whatever it raises as one sentence on stderr and an exit code."""
    try:
        for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is shown escaped
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        code = act()
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        _say(error.format_message())
        return USAGE
    except click.ClickException as error:
        _say(_usage(error))
        return USAGE
    except KeyboardInterrupt as stop:
        _say(f"\n{invocation.stopped}")
        return int(getattr(stop, "exit_code", INTERRUPTED))
    except BrokenPipeError:  # whoever was reading has seen enough
        _close(sys.stdout)
        return FAILED
    except BaseException as error:  # noqa: BLE001  (Rust's panics, in safetensors, are no Exception)
        return _end(error, argv, invocation)
    return code


def _usage(error: click.ClickException) -> str:
    """Return what is wrong with a command line, and where its options are listed."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "featurecache"
    return f"featurecache: {error.format_message()} See '{path} --help'."


def _end(error: BaseException, argv: Sequence[str], invocation: Invocation) -> int:
    from featurecache.cli.unexpected import exit_code_of, say_unexpected

    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            _say(error.code)
        return error.code if isinstance(error.code, int) else DONE if error.code is None else FAILED
    code = exit_code_of(error)
    if code is not None:
        _say(f"featurecache: {error}")
        return code
    try:
        _say(say_unexpected(error, argv, invocation.values))
        sys.stdout.flush()
    except OSError:
        _close(sys.stdout)
    except Exception as another:  # noqa: BLE001  (with the memory gone, say, not even the sentence can be made)
        _say(f"featurecache: {type(error).__name__}: {error} (then {type(another).__name__}). Run it again.")
    return FAILED


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
        print(text, file=sys.stderr, flush=True)


def _close(stream: object) -> None:
    """Let what is still in a stream that cannot be written go nowhere: at its end, Python would say so at length."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]
        os.close(nowhere)
