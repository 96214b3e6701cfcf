"""Options that several commands share, in the groups that their help shows."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.option_types import folds, gigabytes, part, positive, rate, seed, shots

DEFAULT_CACHE = Path("data/cache")
DEFAULT_LAYER = "default"
IMAGES_HELP = (
    "a folder of class folders (train/ val/ test/ above them if you like), or a .csv, .tsv or .parquet manifest"
)


def backbone_options(parser: argparse.ArgumentParser) -> None:
    """Which features."""
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
        "--size", metavar="S", type=positive, help="side of the input in pixels (default: what the weights expect)"
    )
    group.add_argument(
        "--decode", choices=("full", "reduced"), default="full",
        help="reduced: read a JPEG of more than twice the size that is needed at a half, a quarter or an eighth of it; "
        "several times faster for photographs from cameras, and other features than full",
    )  # fmt: skip


def extract_options(parser: argparse.ArgumentParser) -> None:
    """How they are extracted."""
    group = parser.add_argument_group("extraction")
    group.add_argument(
        "--engine",
        choices=("auto", "onnxruntime", "torch"),
        default="auto",
        help="what runs the network (default: the faster one here; found out once for each network)",
    )
    group.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where it runs")
    group.add_argument("--batch-size", metavar="N", type=positive, help="images per forward pass (default: by device)")
    group.add_argument(
        "--on-error",
        choices=("skip", "fail"),
        default="skip",
        help="list broken images and go on, or stop at the first",
    )
    group.add_argument(
        "--max-pixels", metavar="N", type=positive, help="refuse larger images, against decompression bombs"
    )


def classify_options(parser: argparse.ArgumentParser) -> None:
    """Which heads, and how they are tried."""
    group = parser.add_argument_group("heads")
    group.add_argument(
        "--heads", metavar="A,B,C", action="append", default=None,
        help="names from 'featurecache heads', or scikit-learn classifiers by dotted path (default: all); repeatable",
    )  # fmt: skip
    group.add_argument(
        "--out", metavar="DIR", type=Path,
        help="the run folder; a run that is there is replaced (default: data/runs/<data set>-<time>)",
    )  # fmt: skip
    group.add_argument("--seed", metavar="N", type=seed, default=0, help="of the split and of every head (default: 0)")
    rare_option(group)
    group.add_argument("--folds", metavar="K", type=folds, help="choose by K-fold cross-validation instead of val")
    group.add_argument(
        "--calibrate", action="store_true",
        help="temper every head's probabilities by what it said about val; labels stay, the effect on test is shown",
    )  # fmt: skip
    group.add_argument("--shots", metavar="1,2,4", type=shots, default=(), help="also try few labels per class")
    group.add_argument(
        "--repeats", metavar="N", type=positive, default=5, help="draws of the labels for --shots (default: 5)"
    )
    group.add_argument(
        "--memory", metavar="GB", type=gigabytes,
        help="features beyond this go to a temporary file beside the run and are read in blocks; with them what is "
        "large of the heads (default: half of the machine's memory)",
    )  # fmt: skip


def rare_option(parser: argparse._ActionsContainer) -> None:
    """Which classes are too small."""
    parser.add_argument(
        "--min-per-class", metavar="N", type=positive, default=1,
        help="leave out classes with fewer images, named and counted; copies and members of a group count once "
        "(default: 1, none)",
    )  # fmt: skip


def common_options(
    parser: argparse.ArgumentParser, *, cache_default: Path | None = DEFAULT_CACHE, has_progress: bool = True
) -> None:
    """Where the cache is, and what is printed."""
    shown = cache_default or "the run's"
    parser.add_argument(
        "--cache", metavar="DIR", type=Path, default=cache_default, help=f"where features are kept (default: {shown})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    if has_progress:
        parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def start_options(parser: argparse.ArgumentParser) -> None:
    """What a fine-tune begins from, and how far down it goes."""
    start = parser.add_argument_group("start")
    start.add_argument("--from", metavar="RUN", dest="start", type=Path, required=True, help="a run on these images")
    start.add_argument(
        "--head", metavar="NAME",
        help="a head of the run whose weights start the last layers, or 'random' (default: the best on val that can)",
    )  # fmt: skip
    start.add_argument("--backbone", metavar="NAME", help="which of the run's backbones, where it has several")
    start.add_argument("--size", metavar="S", type=positive, help="side of the input in pixels (default: the run's)")
    start.add_argument(
        "--unfreeze", metavar="N|PART|all",
        help="what is trained: the last N stages, a stage or block and all above it, or all (default: three eighths of "
        "the stages)",
    )  # fmt: skip


def map_options(parser: argparse.ArgumentParser) -> None:
    """Which views of the images are kept, and where."""
    maps = parser.add_argument_group("maps")
    maps.add_argument(
        "--augment", choices=("none", "flip", "light", "strong"), default="light",
        help="views of each image: its mirror image; shifted, sized and toned; the same further, mirrored and erased "
        "(default: light)",
    )  # fmt: skip
    maps.add_argument("--views", metavar="K", type=positive, help="views beside the image itself (default: 4)")
    maps.add_argument(
        "--disk", metavar="GB", type=gigabytes,
        help="what maps may take in the cache; beyond it they are made anew in every epoch (default: half of what is "
        "free)",
    )  # fmt: skip
    maps.add_argument(
        "--memory", metavar="GB", type=gigabytes, help="maps beyond this are read from a file (default: half of all)"
    )
    maps.add_argument(
        "--dtype", choices=("float32", "float16"), help="of the maps, kept or made anew (default: float16)"
    )


def training_options(parser: argparse.ArgumentParser) -> None:
    """How a network is trained."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", metavar="N", type=positive, default=10, help="passes over train (default: 10)")
    group.add_argument(
        "--lr", metavar="RATE", type=rate, default=1e-3, help="of the last layers, lower further down (default: 0.001)"
    )
    group.add_argument("--batch-size", metavar="N", type=positive, default=32, help="images a step (default: 32)")
    group.add_argument(
        "--parts", metavar="N", type=positive, default=1,
        help="passes that a step is cut into, adding up their gradients, to save memory (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--patience", metavar="N", type=positive, default=5, help="epochs no better than before (default: 5)"
    )
    group.add_argument("--smoothing", metavar="PART", type=part, default=0.1, help="of labels (default: 0.1)")
    group.add_argument(
        "--class-weight", choices=("none", "balanced"), default="none", help="balanced: rare classes weigh as much"
    )
    group.add_argument(
        "--batch-norm", choices=("frozen", "trained"), default="frozen", help="its statistics (default: frozen)"
    )
    group.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of products (default: bf16 on cuda)"
    )
    group.add_argument("--seed", metavar="N", type=seed, default=0, help="of views, order and a random head")
