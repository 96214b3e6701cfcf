"""The command line as a whole: parse (`grammar.py`), do (`commands.py`), say what went wrong.

Exit codes: 0 done; 1 the run failed; 2 usage; 3 finished, but some images were refused, a head failed, or an audit
found that test numbers would not be true; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.grammar import build_parser

DONE, FAILED, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
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
    """Parse, do, and turn every expected error into one sentence on stderr and an exit code."""
    parser = build_parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    if options.version:
        from extract.request import installed_version

        print(f"featurecache {installed_version('featurecache')}")
        return DONE
    if options.command is None:
        parser.print_help()
        return USAGE
    return _guarded(options)


def _guarded(options: argparse.Namespace) -> int:
    from classify.errors import ClassifyError, UnknownHead
    from extract.errors import EngineError, EngineFailed, ExtractError, NoSuchImages, UnknownBackbone, UnknownLayer
    from pipeline import commands
    from pipeline.errors import PipelineError, UsageError

    try:
        return commands.COMMANDS[options.command](options)
    except EngineFailed as error:
        return _say_error(error, FAILED)
    except (UsageError, NoSuchImages, UnknownBackbone, UnknownLayer, UnknownHead, EngineError) as error:
        return _say_error(error, USAGE)
    except (PipelineError, ExtractError, ClassifyError) as error:
        return _say_error(error, FAILED)
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    except OSError as error:
        return _say_error(error, FAILED)
    except KeyboardInterrupt:
        print(f"\n{INTERRUPTED_SENTENCES.get(options.command, 'Stopped.')}", file=sys.stderr)
        return INTERRUPTED


def _say_error(error: Exception, code: int) -> int:
    print(f"featurecache: {error}", file=sys.stderr)
    return code
