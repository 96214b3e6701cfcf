"""The grammar of the command line: every command and what it takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.leakage import MOST_LEAKED
from pipeline.option_types import part, positive, seed
from pipeline.options import (
    DEFAULT_CACHE,
    IMAGES_HELP,
    backbone_options,
    classify_options,
    common_options,
    extract_options,
    map_options,
    rare_option,
    start_options,
    training_options,
)

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXAMPLES = """\
two commands to a table of heads, on any folder with one folder per class:
  featurecache extract photos/
  featurecache classify photos/

and what the best of them says about other images:
  featurecache predict data/runs/latest new/

exit codes of every command: 0 done; 1 the run failed; 2 usage; 3 finished, but something that a person would count is
not in the result (a refused image, a failed head; all are listed), or a check found something; 130 stopped by Ctrl-C,
143 by SIGTERM
"""


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
    _extract_command(commands)
    _classify_command(commands)
    _run_command(commands)
    _predict_command(commands)
    _finetune_command(commands)
    _report_command(commands)
    _audit_command(commands)
    _select_command(commands)
    _compare_command(commands)
    _cache_commands(commands)
    _bench_command(commands)
    _list_commands(commands)
    return parser


def _extract_command(commands: Commands) -> None:
    extract = commands.add_parser("extract", help="give every image its vector, once", description="Stage one.")
    extract.add_argument("images", metavar="IMAGES", help=f"{IMAGES_HELP}, or a flat folder without labels")
    backbone_options(extract)
    extract_options(extract)
    common_options(extract)


def _classify_command(commands: Commands) -> None:
    classify = commands.add_parser(
        "classify", help="train and compare heads on the kept vectors", description="Stage two."
    )
    classify.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    backbone_options(classify)
    classify_options(classify)
    common_options(classify)


def _run_command(commands: Commands) -> None:
    both = commands.add_parser("run", help="extract, then classify", description="Both stages.")
    both.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    backbone_options(both)
    extract_options(both)
    classify_options(both)
    common_options(both)


def _predict_command(commands: Commands) -> None:
    predict = commands.add_parser("predict", help="label images with a head of a run", description="F(x) = T(P(x)).")
    predict.add_argument("run", metavar="RUN", type=Path, help="a run folder, such as data/runs/latest")
    predict.add_argument("images", metavar="IMAGES", nargs="+", help="image files, folders or manifests")
    predict.add_argument("--head", metavar="NAME", help="a head of the run (default: the best on val)")
    predict.add_argument("--out", metavar="FILE", type=Path, help="write a .csv or .json file instead of a table")
    predict.add_argument(
        "--trust-head", action="store_true",
        help="use a scikit-learn head even if its arrays could crash Python or read its memory; only for heads that "
        "you made yourself",
    )  # fmt: skip
    extract_options(predict)
    common_options(predict, cache_default=None)


def _finetune_command(commands: Commands) -> None:
    finetune = commands.add_parser(
        "finetune",
        help="train the network itself on, from a run's head and cached maps",
        description="The frozen part of the network runs once per image and view; epochs run only what is above.",
    )
    finetune.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    start_options(finetune)
    map_options(finetune)
    training_options(finetune)
    finetune.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where it runs")
    finetune.add_argument(
        "--engine", choices=("auto", "onnxruntime", "torch"), default="auto", help="what runs the frozen part"
    )
    finetune.add_argument(
        "--out", metavar="DIR", type=Path, help="the run folder (default: data/runs/<data set>-<time>)"
    )
    finetune.add_argument("--max-pixels", metavar="N", type=positive, help="refuse larger images, as in extract")
    finetune.add_argument(
        "--resume", action="store_true",
        help="go on where the same command was stopped, at any instant; where nothing was saved it begins anew, and "
        "what is finished is not trained again",
    )  # fmt: skip
    common_options(finetune, cache_default=None)


def _report_command(commands: Commands) -> None:
    report = commands.add_parser("report", help="one run as a page to look at", description="report.html of a run.")
    report.add_argument("run", metavar="RUN", type=Path, help="a run folder, such as data/runs/latest")
    report.add_argument("--out", metavar="FILE", type=Path, help="where to write it (default: report.html in the run)")
    report.add_argument("--images", metavar="IMAGES", help="where the images are now (default: where the run saw them)")
    report.add_argument("--cache", metavar="DIR", type=Path, help="where features are kept (default: the run's)")
    report.add_argument("--open", action="store_true", help="show it in the browser")


def _audit_command(commands: Commands) -> None:
    audit = commands.add_parser(
        "audit", help="find copies, leaks between the splits, doubtful labels and outliers",
        description="Look for copies, leaks between the splits, doubtful labels and outliers. Exit code 3: more than "
        "--max-leaked of the test images are in train or val too, or under two labels.",
    )  # fmt: skip
    audit.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    backbone_options(audit)
    audit.add_argument("--out", metavar="DIR", type=Path, help="write audit.json and tables there, for instance a run")
    audit.add_argument("--seed", metavar="N", type=seed, default=0, help="of the split, as in classify (default: 0)")
    audit.add_argument(
        "--max-leaked",
        metavar="SHARE",
        type=part,
        default=MOST_LEAKED,
        help="share of the test images that may leak before it ends with exit code 3 (default: %(default)s)",
    )
    rare_option(audit)
    common_options(audit)


def _select_command(commands: Commands) -> None:
    select = commands.add_parser(
        "select", help="compare backbones on a subsample and recommend one",
        description="Extract a subsample with every backbone, measure how well each suits the labels, and rank them.",
    )  # fmt: skip
    select.add_argument("images", metavar="IMAGES", help=IMAGES_HELP)
    select.add_argument(
        "--backbones", metavar="A,B,C", action="append", required=True, help="the candidates; 'pixels' is the baseline"
    )
    select.add_argument(
        "--sample", metavar="N", type=positive, default=1000, help="images to measure on (default: 1000)"
    )
    select.add_argument(
        "--size", metavar="S", type=positive, help="side of the input in pixels (default: what the weights expect)"
    )
    select.add_argument("--seed", metavar="N", type=seed, default=0, help="of the subsample (default: 0)")
    rare_option(select)
    extract_options(select)
    common_options(select)


def _compare_command(commands: Commands) -> None:
    compare = commands.add_parser(
        "compare", help="several runs in one table, with ranks, ties and costs",
        description="Heads that were tested on the same images are paired; on other images they are only listed.",
    )  # fmt: skip
    compare.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folders, such as data/runs/latest")
    compare.add_argument(
        "--format", choices=("text", "csv", "markdown", "json"), default="text", help="of the table (default: text)"
    )
    compare.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")


def _bench_command(commands: Commands) -> None:
    bench = commands.add_parser(
        "bench", help="how fast extraction and heads are here, against what is usual",
        description="Options of each: featurecache bench extract --help, and so on.",
    )  # fmt: skip
    bench.add_argument(
        "what",
        choices=("extract", "heads", "classify", "finetune", "starts"),
        help="stage one; heads; a whole classify; epochs from the cache; fine-tuning from a head or at random",
    )
    bench.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="its options")


def _list_commands(commands: Commands) -> None:
    backbones = commands.add_parser("backbones", help="list the backbones that can be named")
    backbones.add_argument("--json", action="store_true", help="print JSON")
    heads = commands.add_parser("heads", help="list the heads that can be named")
    heads.add_argument("--json", action="store_true", help="print JSON")
    doctor = commands.add_parser("doctor", help="what this machine offers, and what is missing")
    doctor.add_argument("--cache", metavar="DIR", type=Path, default=DEFAULT_CACHE, help="the cache to look at")
    doctor.add_argument("--json", action="store_true", help="print JSON")


def _cache_commands(commands: Commands) -> None:
    cache = commands.add_parser("cache", help="look after the kept vectors", description="The feature cache.")
    commands = cache.add_subparsers(dest="cache_command", metavar="COMMAND", title="commands", required=True)

    info = commands.add_parser("info", help="what is kept, for which images, how large and when it was used")
    common_options(info, has_progress=False)

    verify = commands.add_parser("verify", help="read every byte and name what is damaged")
    verify.add_argument(
        "--repair", action="store_true", help="set damaged files aside, so that extract redoes just their rows"
    )
    common_options(verify)

    compact = commands.add_parser("compact", help="merge small shards, drop second copies, sweep left-over files")
    common_options(compact, has_progress=False)

    export = commands.add_parser(
        "export", help="features, labels, paths and splits as one ordinary file",
        description="Row i for image i in manifest order. Labels are places in 'classes', in .parquet their names.",
    )  # fmt: skip
    export.add_argument("images", metavar="IMAGES", help=f"{IMAGES_HELP}, or a flat folder without labels")
    export.add_argument("out", metavar="OUT", type=Path, help="a .h5, .npz or .parquet file")
    backbone_options(export)
    export.add_argument("--seed", metavar="N", type=seed, default=0, help="of the split, as in classify (default: 0)")
    rare_option(export)
    common_options(export)

    prune = commands.add_parser("prune", help="drop the rows that none of these images uses")
    prune.add_argument("images", metavar="IMAGES", nargs="+", help="every image set that is still wanted")
    prune.add_argument("--backbone", metavar="NAME", action="append", help="prune only this backbone's caches")
    prune.add_argument("--yes", action="store_true", help="do it; without, only say what would be dropped")
    common_options(prune)
