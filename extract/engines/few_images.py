"""Fewer images than a batch has, one at a time on all cores, for a service that answers lone images.

A batch that is filled up costs what a full one does. The same graph for one image costs its share, and all cores can
work on it where no other lane does. Kernels may sum in an order that depends on the size of the batch or on the number
of threads, but not on the values: so images of several kinds are computed both ways, and the graph is used only if
every bit is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.extract.engines.fixed_batches import run_in_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Run = Callable[[Any], NDArray[np.float32]]

# Two more sessions hold the weights again.
MOST_BYTES = 256 << 20
# Operators with a second input that depends on the batch: a shape that begins with the number of images, and indices.
SHAPED, PICKED = ("Reshape", "Expand"), "Gather"
# Batches that are computed both ways.
N_BATCHES = 3
OTHER_BITS = "the graph for one image gives other bits"


class FewImages:
    """The graph of a network for one image.

    on_all, on_own: run it on all cores, and on those of one lane. most: so many images take less time one by one than
    in a batch.
    """

    def __init__(self, on_all: Run, on_own: Run, *, side: int, most: int) -> None:
        self._on_all, self._on_own, self._side, self.most = on_all, on_own, side, most

    def run(self, images: Any, *, is_alone: bool) -> NDArray[np.float32]:
        """Compute features: uint8 (n, 3, S, S) -> float32 (n, D); is_alone: whether no other lane runs."""
        return run_in_batches(images, 1, self._side, self._on_all if is_alone else self._on_own)


def compared(whole: Run, on_all: Run, on_own: Run, *, batch_size: int, side: int) -> tuple[FewImages | None, str]:
    """Compare batches with their images one by one; return what to use for few images, or None and why it is unfit.

    The reason is empty where it is fit, but takes no less time. whole: uint8 (batch_size, 3, S, S) -> float32
    (batch_size, D). on_all, on_own: the same for a single image.
    """
    of_batch, of_one = list[float](), list[float]()
    for pictures in _pictures(batch_size, side):
        expected, seconds = _timed(whole, pictures)
        of_batch.append(seconds)
        for i in range(batch_size):
            found, seconds = _timed(on_all, pictures[i : i + 1])
            of_one.append(seconds)
            also = on_own(pictures[i : i + 1])
            if not found.tobytes() == also.tobytes() == expected[i : i + 1].tobytes():
                return None, OTHER_BITS
    most = min(batch_size - 1, int(min(of_batch) / min(of_one)))
    return FewImages(on_all, on_own, side=side, most=most) if most else None, ""


def _timed(run: Run, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
    started = time.perf_counter()
    found = run(images)
    return found, time.perf_counter() - started


def _pictures(batch_size: int, side: int) -> list[NDArray[np.uint8]]:
    """Return batches of noise, of coarse noise and of edges, uint8 (batch_size, 3, S, S)."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (N_BATCHES, batch_size, 3, side, side), dtype=np.uint8)
    coarse = noise[1, ..., :: max(1, side // 7), :: max(1, side // 7)]
    step = -(-side // coarse.shape[-1])
    noise[1] = coarse.repeat(step, axis=-1).repeat(step, axis=-2)[..., :side, :side]
    noise[2] = np.where(noise[1] > 127, 255, 0)
    return list(noise)


def graph_for_one(graph: bytes, batch_size: int) -> bytes:
    """Return an exported graph for batches of `batch_size` images as one for single images.

    Inputs, outputs and the constants by which the pixels or vectors of all images are reshaped or picked have the size
    of the batch. Where it is within the network in another way, the result does not load, or gives other vectors.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(graph)
    body = model.graph
    del body.value_info[:]
    for value in (*body.input, *body.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    constants = {each.name: each for each in body.initializer}
    for node in body.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
    for operator, name in _constants_of_images(body):
        if (tensor := constants.get(name)) is not None:
            given = numpy_helper.to_array(tensor)
            found = _for_one(given.copy(), operator, batch_size)
            tensor.CopyFrom(numpy_helper.from_array(found, tensor.name))
    content: bytes = model.SerializeToString()
    return content


def _for_one(constant: NDArray[Any], operator: str, batch_size: int) -> NDArray[Any]:
    """Return the shape, or the indices, that a batch of one takes instead of these."""
    if operator == PICKED:
        is_of_all = constant.ndim > 0 and len(constant) % batch_size == 0
        return constant[: len(constant) // batch_size] if is_of_all else constant
    if constant.size and constant[0] > 0 and constant[0] % batch_size == 0:
        constant[0] //= batch_size
    return constant


def _constants_of_images(body: Any) -> set[tuple[str, str]]:
    """Return operators on values that depend on the images, with the names of their second inputs."""
    reached, found = {each.name for each in body.input}, set[tuple[str, str]]()
    for node in body.node:
        if reached.isdisjoint(node.input):
            continue
        reached.update(node.output)
        if node.op_type in (*SHAPED, PICKED) and node.input[0] in reached:
            found.add((node.op_type, node.input[1]))
    return found
