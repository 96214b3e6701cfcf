"""The command line as a whole: parse (`grammar.py`), do (`commands.py`), say what went wrong.

Any exception becomes one sentence on stderr and an exit code (`exits.py`): errors that are raised on purpose say both
themselves, `unexpected.py` has a sentence for all others.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence

from pipeline.exits import DONE, FAILED, INTERRUPTED, REFUSED, USAGE

__all__ = ["DONE", "FAILED", "FEATURES_KEPT", "INTERRUPTED", "INTERRUPTED_SENTENCES", "REFUSED", "USAGE", "run"]

FEATURES_KEPT = "Stopped. Features that were extracted are kept: the same command goes on from there."
INTERRUPTED_SENTENCES = {
    "extract": FEATURES_KEPT,
    "run": FEATURES_KEPT,
    "predict": FEATURES_KEPT,
    "select": FEATURES_KEPT,
    "classify": "Stopped: no run was written. Heads that are finished are kept; the same command goes on from there.",
    "report": "Stopped: no page was written.",
    "audit": "Stopped before the audit was finished.",
    "finetune": "Stopped. Maps are kept, and of the training all but half a minute: --resume goes on from there.",
}


def run(argv: Sequence[str]) -> int:
    """Parse, do, and turn every exception into one sentence on stderr and an exit code."""
    options = argparse.Namespace(command=None)

    def act() -> int:
        from pipeline.grammar import build_parser

        build_parser().parse_args(argv, options)
        return _do(options)

    return guarded(act, argv, options)


def _do(options: argparse.Namespace) -> int:
    if options.version:
        from extract.versions import installed_version

        print(f"featurecache {installed_version('featurecache')}")
        return DONE
    if options.command is None:
        from pipeline.grammar import build_parser

        build_parser().print_help()
        return USAGE
    from pipeline import commands

    return commands.COMMANDS[options.command](options)


def guarded(act: Callable[[], int], argv: Sequence[str], options: argparse.Namespace) -> int:
    """Return the exit code of `act`, and whatever it raises as one sentence on stderr and an exit code."""
    try:
        for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is shown escaped
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        code = act()
        sys.stdout.flush()
    except SystemExit as end:
        if isinstance(end.code, str):
            _say(end.code)
        return end.code if isinstance(end.code, int) else FAILED if end.code else DONE
    except KeyboardInterrupt as stop:
        _say(f"\n{INTERRUPTED_SENTENCES.get(getattr(options, 'command', None) or '', 'Stopped.')}")
        return int(getattr(stop, "exit_code", INTERRUPTED))
    except BrokenPipeError:  # whoever was reading has seen enough
        _close(sys.stdout)
        return FAILED
    except BaseException as error:  # noqa: BLE001  (Rust's panics, in safetensors, are no Exception)
        return _end(error, argv, options)
    return code


def _end(error: BaseException, argv: Sequence[str], options: argparse.Namespace) -> int:
    from pipeline.unexpected import exit_code_of, say_unexpected

    code = exit_code_of(error)
    if code is not None:
        _say(f"featurecache: {error}")
        return code
    try:
        _say(say_unexpected(error, argv, options))
        sys.stdout.flush()
    except OSError:
        _close(sys.stdout)
    except Exception as another:  # noqa: BLE001  (with the memory gone, say, not even that can be told apart)
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
