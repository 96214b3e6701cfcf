"""The protocol of engines, and the source that an engine is built from."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypedDict

from featurecache.base.text import printable
from featurecache.base.values import no_such

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from featurecache.extract.backbones.registry import Backbone
    from featurecache.extract.cache.transform_spec import TransformDocument

DEVICES = ("auto", "cpu", "cuda", "mps")
# cuda is one GPU, the first that torch sees; these are another one, and every one.
ONE_GPU, ALL_GPUS = re.compile(r"cuda:(0|[1-9][0-9]{0,2})"), "cuda:all"
ENGINES = ("auto", "onnxruntime", "torch")


def no_device(device: object) -> str:
    """Return the sentence on a value that no device has as its name; empty for one of DEVICES, cuda:1 or cuda:all."""
    if isinstance(device, str) and device.lower() in ("gpu", "nvidia", "rocm"):
        return f"There is no device '{device}': use cuda, cuda:1 for the second GPU, {ALL_GPUS}, or mps on a Mac."
    if not isinstance(device, str) or not device.lower().startswith("cuda:"):
        return no_such("device", device, DEVICES)
    if device == ALL_GPUS or ONE_GPU.fullmatch(device):
        return ""
    return f"There is no device {printable(repr(device)[:40])}: use cuda, cuda:1 for the second GPU, or {ALL_GPUS}."


def kind_of_device(device: str) -> str:
    """Return the device without its number, as torch names its kind."""
    return device.partition(":")[0]


def no_precision(device: str, precision: str) -> str:
    """Return the sentence on a precision that a device, resolved, does not run by its kind; empty for any other."""
    kind = kind_of_device(device)
    if kind == "cpu" and precision == "fp16":
        return "On a CPU fp16 is slower than fp32, and less exact. Use fp32 or bf16, or --device cuda."
    return no_tf32(device) if precision == "tf32" and kind != "cuda" else ""


def no_tf32(device: str) -> str:
    """Return the sentence on a device without tf32."""
    return (
        f"tf32 is a precision of NVIDIA GPUs since 2020, which {device} is not. "
        "Use --precision fp32 or bf16, or --device cuda on a machine with such a GPU."
    )


class Engine(Protocol):
    """A backbone that is loaded on one device.

    name: as in `--engine`. device: as in `--device`, resolved. precision: one of PRECISIONS.
    batch_size: images per batch inside `run`, which accepts any number of images.
    n_lanes: how many threads may call `run` at once; together they use every core, and more would only wait.
    reason: one line on the chosen engine and device, and why.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def n_lanes(self) -> int: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102

    def run(self, batch: Tensor | NDArray[np.uint8]) -> np.ndarray:
        """Compute features: uint8 (B, 3, S, S) -> float32 (B, D)."""
        ...

    def allow_lanes(self, n_lanes: int) -> None:
        """Let more threads call `run` at once, next to engines with more lanes: each has its share of the cores."""
        ...


class NetworkIdentity(TypedDict):
    """Everything that the vectors of a network depend on, as plain JSON values.

    weights: digest of the tensors. cuts: layer and pooling of each, in order of columns. network: as a spec has it.
    """

    backbone: str
    weights: str
    cuts: list[list[str]]
    transform: TransformDocument
    network: str


@dataclass(frozen=True)
class Source:
    """A network that an engine is built from. It is loaded only if there is no stored graph.

    side: S. load: returns the module, uint8 (B, 3, S, S) -> float32 (B, D).
    feature_dim: D, None if unknown before loading. columns: of each cut in the vectors; empty for a single cut.
    exported: graphs in fp32 that were exported for it, by batch size.
    """

    identity: NetworkIdentity
    side: int
    load: Callable[[], nn.Module]
    feature_dim: int | None = None
    columns: tuple[slice, ...] = ()
    exported: dict[int, bytes] = field(default_factory=dict, compare=False)


def source_of(backbone: Backbone) -> Source:
    """Return the source of a loaded backbone."""
    identity: NetworkIdentity = {
        "backbone": backbone.name,
        "weights": backbone.weights_digest,
        "cuts": [[backbone.layer, backbone.pooling]],
        "transform": backbone.transform.to_dict(),
        "network": backbone.network,
    }
    return Source(identity, backbone.transform.crop, lambda: backbone.module, backbone.feature_dim)
