"""The command line: what can be asked for. What it then does stands in `commands.py`.

Exit codes: 0 done; 1 the run failed; 2 usage; 3 finished, but some images were refused, or an audit found that test
numbers would not be true; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

DONE, FAILED, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
DEFAULT_CACHE = Path("data/cache")
DEFAULT_LAYER = "default"
LARGEST_SEED = 2**32 - 1  # scikit-learn takes no larger one
FEATURES_KEPT = "Stopped. Features that were extracted are kept: the same command goes on from there."
INTERRUPTED_SENTENCES = {
    "extract": FEATURES_KEPT,
    "run": FEATURES_KEPT,
    "predict": FEATURES_KEPT,
    "select": FEATURES_KEPT,
    "classify": "Stopped before a head was finished: no run was written; the same command starts the heads again.",
    "report": "Stopped: no page was written.",
    "audit": "Stopped before the audit was finished.",
    "finetune": "Stopped. Maps are kept, and the training up to the last half minute: the same command with --resume.",
}

EXAMPLES = """\
two commands to a table of heads, on any folder with one folder per class:
  featurecache extract photos/
  featurecache classify photos/

and what the best of them says about other images:
  featurecache predict data/runs/latest new/

exit codes: 0 done; 1 the run failed; 2 usage; 3 finished, but some images were refused, or an audit found that
test numbers would not be true; 130 interrupted
"""
IMAGES_HELP = (
    "a folder of class folders (train/ val/ test/ above them if you like), or a .csv, .tsv or .parquet manifest"
)


def build_parser() -> argparse.ArgumentParser:
    """The whole grammar of the command."""
    parser = argparse.ArgumentParser(
        prog="featurecache",
        description="A frozen backbone runs once per image, ever; light heads run as often as you like.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    extract = commands.add_parser("extract", help="give every image its vector, once", description="Stage one.")
    extract.add_argument("images", metavar="IMAGES", help=f"{IMAGES_HELP}, or a flat folder without labels")
    _backbone_options(extract)
    _extract_options(extract)
    _common_options(extract)

    classify = commands.add_parser(
        "classify", help="train and compare heads on the kept vectors", description="Stage two."
    )
    classify.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    _backbone_options(classify)
    _classify_options(classify)
    _common_options(classify)

    both = commands.add_parser("run", help="extract, then classify", description="Both stages.")
    both.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    _backbone_options(both)
    _extract_options(both)
    _classify_options(both)
    _common_options(both)

    predict = commands.add_parser("predict", help="label images with a head of a run", description="F(x) = T(P(x)).")
    predict.add_argument("run", metavar="RUN", type=Path, help="a run folder, such as data/runs/latest")
    predict.add_argument("images", metavar="IMAGES", nargs="+", help="image files, folders or manifests")
    predict.add_argument("--head", metavar="NAME", help="a head of the run (default: the best on val)")
    predict.add_argument("--out", metavar="FILE", type=Path, help="write a .csv or .json file instead of a table")
    _extract_options(predict)
    _common_options(predict, cache_default=None)

    _finetune_command(
        commands.add_parser(
            "finetune",
            help="train the network itself on, from a run's head and cached maps",
            description="The frozen part of the network runs once per image and view; epochs run only what is above.",
        )
    )

    report = commands.add_parser("report", help="one run as a page to look at", description="report.html of a run.")
    report.add_argument("run", metavar="RUN", type=Path, help="a run folder, such as data/runs/latest")
    report.add_argument("--out", metavar="FILE", type=Path, help="where to write it (default: report.html in the run)")
    report.add_argument("--images", metavar="IMAGES", help="where the images are now (default: where the run saw them)")
    report.add_argument("--cache", metavar="DIR", type=Path, help="where features are kept (default: the run's)")
    report.add_argument("--open", action="store_true", help="show it in the browser")

    audit = commands.add_parser(
        "audit", help="what would make test numbers untrue: copies, leaks, wrong labels",
        description="Look for copies across splits, doubtful labels and outliers. Exit code 3: the test numbers would "
        "not be true.",
    )  # fmt: skip
    audit.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    _backbone_options(audit)
    audit.add_argument("--out", metavar="DIR", type=Path, help="write audit.json and tables there, for instance a run")
    audit.add_argument("--seed", metavar="N", type=_seed, default=0, help="of the split, as in classify (default: 0)")
    _common_options(audit)

    select = commands.add_parser(
        "select", help="which backbone to pay for, measured on a subsample",
        description="Extract a subsample with every backbone, measure how well each suits the labels, and rank them.",
    )  # fmt: skip
    select.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    select.add_argument(
        "--backbones", metavar="A,B,C", action="append", required=True, help="the candidates; 'pixels' is the baseline"
    )
    select.add_argument(
        "--sample", metavar="N", type=_positive, default=1000, help="images to measure on (default: 1000)"
    )
    select.add_argument("--seed", metavar="N", type=_seed, default=0, help="of the subsample (default: 0)")
    _extract_options(select)
    _common_options(select)

    compare = commands.add_parser(
        "compare", help="several runs in one table, with ranks, ties and costs",
        description="Heads that were tested on the same images are paired; on other images they are only listed.",
    )  # fmt: skip
    compare.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folders, such as data/runs/latest")
    compare.add_argument(
        "--format", choices=("text", "csv", "markdown", "json"), default="text", help="of the table (default: text)"
    )
    compare.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")

    _cache_commands(commands.add_parser("cache", help="look after the kept vectors", description="The feature cache."))

    bench = commands.add_parser(
        "bench", help="how fast extraction and heads are here, against what is usual",
        description="Options of each: featurecache bench extract --help, and so on.",
    )  # fmt: skip
    bench.add_argument(
        "what", choices=("extract", "heads", "finetune"), help="stage one, stage two, or epochs from the cache"
    )
    bench.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="its options")

    backbones = commands.add_parser("backbones", help="list the backbones that can be named")
    backbones.add_argument("--json", action="store_true", help="print JSON")
    heads = commands.add_parser("heads", help="list the heads that can be named")
    heads.add_argument("--json", action="store_true", help="print JSON")
    doctor = commands.add_parser("doctor", help="what this machine offers, and what is missing")
    doctor.add_argument("--cache", metavar="DIR", type=Path, default=DEFAULT_CACHE, help="the cache to look at")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _finetune_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    start = parser.add_argument_group("start")
    start.add_argument("--from", metavar="RUN", dest="start", type=Path, required=True, help="a run on these images")
    start.add_argument(
        "--head", metavar="NAME",
        help="a head of the run whose weights start the last layers, or 'random' (default: the best on val that can)",
    )  # fmt: skip
    start.add_argument("--backbone", metavar="NAME", help="which of the run's backbones, where it has several")
    start.add_argument("--size", metavar="S", type=_positive, help="side of the input in pixels (default: the run's)")
    start.add_argument(
        "--unfreeze", metavar="N|PART|all",
        help="what is trained: the last N stages, a stage or block and all above it, or all (default: three eighths of "
        "the stages)",
    )  # fmt: skip
    maps = parser.add_argument_group("maps")
    maps.add_argument(
        "--augment", choices=("none", "flip", "light", "strong"), default="light",
        help="views of each image: its mirror image; shifted, sized and toned; the same further, mirrored and erased "
        "(default: light)",
    )  # fmt: skip
    maps.add_argument("--views", metavar="K", type=_positive, help="views beside the image itself (default: 4)")
    maps.add_argument(
        "--disk", metavar="GB", type=_gigabytes,
        help="what maps may take in the cache; beyond it they are made anew in every epoch (default: half of what is "
        "free)",
    )  # fmt: skip
    maps.add_argument(
        "--memory", metavar="GB", type=_gigabytes, help="maps beyond this are read from a file (default: half of all)"
    )
    maps.add_argument("--dtype", choices=("float32", "float16"), default="float16", help="of the kept maps")
    _training_options(parser.add_argument_group("training"))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where it runs")
    parser.add_argument(
        "--engine", choices=("auto", "onnxruntime", "torch"), default="auto", help="what runs the frozen part"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: data/runs/<data set>-<time>)")
    parser.add_argument("--resume", action="store_true", help="go on where the same command was stopped")
    _common_options(parser)


def _training_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--epochs", metavar="N", type=_positive, default=10, help="passes over train (default: 10)")
    group.add_argument(
        "--lr", metavar="RATE", type=_rate, default=1e-3, help="of the last layers, lower further down (default: 0.001)"
    )
    group.add_argument("--batch-size", metavar="N", type=_positive, default=32, help="images a step (default: 32)")
    group.add_argument(
        "--parts", metavar="N", type=_positive, default=1,
        help="passes that a step is cut into, adding up their gradients, to save memory (default: 1)",
    )  # fmt: skip
    group.add_argument("--patience", metavar="N", type=_positive, default=5, help="epochs without a better val")
    group.add_argument("--smoothing", metavar="PART", type=_part, default=0.1, help="of labels (default: 0.1)")
    group.add_argument(
        "--class-weight", choices=("none", "balanced"), default="none", help="balanced: rare classes weigh as much"
    )
    group.add_argument(
        "--batch-norm", choices=("frozen", "trained"), default="frozen", help="its statistics (default: frozen)"
    )
    group.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of products (default: bf16 on cuda)"
    )
    group.add_argument("--seed", metavar="N", type=_whole, default=0, help="of views, order and a random head")


def _cache_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="cache_command", metavar="COMMAND", title="commands", required=True)

    info = commands.add_parser("info", help="what is kept, for which images, how large and when it was used")
    _common_options(info, has_progress=False)

    verify = commands.add_parser("verify", help="read every byte and name what is damaged")
    verify.add_argument(
        "--repair", action="store_true", help="set damaged files aside, so that extract redoes just their rows"
    )
    _common_options(verify)

    compact = commands.add_parser("compact", help="merge small shards, drop second copies, sweep left-over files")
    _common_options(compact, has_progress=False)

    export = commands.add_parser(
        "export", help="features, labels, paths and splits as one ordinary file",
        description="Row i for image i in manifest order. Labels are places in 'classes', in .parquet their names.",
    )  # fmt: skip
    export.add_argument("images", metavar="IMAGES", help=f"{IMAGES_HELP}, or a flat folder without labels")
    export.add_argument("out", metavar="OUT", type=Path, help="a .h5, .npz or .parquet file")
    _backbone_options(export)
    export.add_argument("--seed", metavar="N", type=_seed, default=0, help="of the split, as in classify (default: 0)")
    _common_options(export)

    prune = commands.add_parser("prune", help="drop the rows that none of these images uses")
    prune.add_argument("images", metavar="IMAGES", nargs="+", help="every image set that is still wanted")
    prune.add_argument("--backbone", metavar="NAME", action="append", help="prune only this backbone's caches")
    prune.add_argument("--yes", action="store_true", help="do it; without, only say what would be dropped")
    _common_options(prune)


def _backbone_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("features")
    group.add_argument(
        "--backbone", metavar="NAME", action="append", default=None,
        help="a network's name, see 'featurecache backbones' (default: efficientnet_lite0); repeat it for several",
    )  # fmt: skip
    group.add_argument("--weights", metavar="W", help="a name such as IMAGENET1K_V1, or a .pth or .safetensors file")
    group.add_argument(
        "--layer", metavar="L", action="append",
        help="another node of the network than the input of its last layer, or 'stages' for the ends of all stages in "
        "one vector; repeat it for several sets of features from one forward pass ('default' is the usual one)",
    )  # fmt: skip
    group.add_argument("--pooling", choices=("avg", "max", "gem", "flatten", "cls"), help="feature map to vector")
    group.add_argument(
        "--precision", choices=("fp32", "fp16", "bf16"), default="fp32", help="of the network's arithmetic"
    )
    group.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the kept numbers")
    group.add_argument(
        "--size", metavar="S", type=_positive, help="side of the input in pixels (default: what the weights expect)"
    )
    group.add_argument(
        "--decode", choices=("full", "reduced"), default="full",
        help="reduced: read a JPEG of more than twice the size that is needed at a half, a quarter or an eighth of it; "
        "several times faster for photographs from cameras, and other features than full",
    )  # fmt: skip


def _extract_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("extraction")
    group.add_argument(
        "--engine",
        choices=("auto", "onnxruntime", "torch"),
        default="auto",
        help="what runs the network (default: the faster one here; found out once for each network)",
    )
    group.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where it runs")
    group.add_argument("--batch-size", metavar="N", type=_positive, help="images per forward pass (default: by device)")
    group.add_argument(
        "--on-error",
        choices=("skip", "fail"),
        default="skip",
        help="list broken images and go on, or stop at the first",
    )
    group.add_argument(
        "--max-pixels", metavar="N", type=_positive, help="refuse larger images, against decompression bombs"
    )


def _classify_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("heads")
    group.add_argument(
        "--heads", metavar="A,B,C", action="append", default=None,
        help="names from 'featurecache heads', or scikit-learn classifiers by dotted path (default: all); repeatable",
    )  # fmt: skip
    group.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: data/runs/<data set>-<time>)")
    group.add_argument("--seed", metavar="N", type=_seed, default=0, help="of the split and of every head (default: 0)")
    group.add_argument("--folds", metavar="K", type=_folds, help="choose by K-fold cross-validation instead of val")
    group.add_argument(
        "--calibrate", action="store_true",
        help="temper every head's probabilities by what it said about val; labels stay, the effect on test is shown",
    )  # fmt: skip
    group.add_argument("--shots", metavar="1,2,4", type=_shots, default=(), help="also try few labels per class")
    group.add_argument(
        "--repeats", metavar="N", type=_positive, default=5, help="draws of the labels for --shots (default: 5)"
    )
    group.add_argument(
        "--memory", metavar="GB", type=_gigabytes,
        help="features beyond this go to a temporary file beside the run and are read in blocks (default: half of the "
        "machine's memory)",
    )  # fmt: skip


def _common_options(
    parser: argparse.ArgumentParser, *, cache_default: Path | None = DEFAULT_CACHE, has_progress: bool = True
) -> None:
    shown = cache_default or "the run's"
    parser.add_argument(
        "--cache", metavar="DIR", type=Path, default=cache_default, help=f"where features are kept (default: {shown})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    if has_progress:
        parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no learning rate, which is above 0")
    return value


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a part: 0 or more, and less than 1")
    return value


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _seed(text: str) -> int:
    value = _whole(text)
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{value} is no seed: give a whole number from 0 to {LARGEST_SEED}")
    return value


def _shots(text: str) -> tuple[int, ...]:
    shots = tuple(sorted({_positive(part) for part in text.split(",") if part}))
    if not shots:
        raise argparse.ArgumentTypeError(f"'{text}' names no number of labels: give some, such as 1,2,4")
    return shots


def _folds(text: str) -> int:
    value = _whole(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{value} folds are too few, 2 is the least")
    return value


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of GB") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} GB is no amount of memory, 0 is the least")
    return value * 1e9


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
    from extract.errors import EngineError, ExtractError, NoSuchImages, UnknownBackbone, UnknownLayer
    from pipeline import commands
    from pipeline.errors import PipelineError, UsageError

    try:
        return commands.COMMANDS[options.command](options)
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
