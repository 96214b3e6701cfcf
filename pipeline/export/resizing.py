"""The resizing and cropping of images of any size as a graph of standard operators, to the pixels of `fit_pixels`.

The weights of an axis are computed in float64 from the size of the image, as `extract/images/decoding/taps.py` does,
and are whole numbers q of at most 16 bits. The products are exact, in 32 bits, by two products of 8 bits:

    q = 256 (high - 128) + low        sum q x = 256 sum (high - 128) x + sum low x        pixel = clip(... >> bits)

ONNX's own Resize with antialias has float weights: other pixels in some thousandths. A place depends on few sources, so
the places of an axis are in blocks, and each block is a product with its own part of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import EngineError
from featurecache.extract.cache.transform_spec import CROP, NEAREST_PILLOW, SQUASH
from featurecache.extract.images.decoding.taps import CUBIC, FILTERED, MOST_BITS, WEIGHT_LIMIT

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from featurecache.export.nodes import Nodes
    from featurecache.extract.cache.transform_spec import TransformSpec

# Places of an axis that are computed by one product.
BLOCK = 16
# Places whose weights are looked at to find the number of bits: all of any image that `predict` takes.
MOST_PLACES = 1 << 20
HALF_WORD, HIGH_ZERO = 1 << 15, 128


@dataclass(frozen=True)
class Axis:
    """One axis of an image, by names of values: its length, that after resizing, and the place of the crop's first."""

    length: str
    resized: str
    first: str


def no_exact_graph(spec: TransformSpec) -> str:
    """Return why an image is not resized in a graph, as a clause; empty where it is."""
    if spec.interpolation in FILTERED and not spec.antialias:
        return f"{spec.interpolation} resizing without antialiasing has no exact graph"
    return ""


def add_transform(nodes: Nodes, image: str, spec: TransformSpec) -> str:
    """Add the transform of an image, uint8 (H, W, 3), and return the name of the result: uint8 (1, 3, S, S).

    Raises EngineError for a transform that has no exact graph.
    """
    if why := no_exact_graph(spec):
        raise EngineError(why)
    rows, columns = _axes(nodes, image, spec)
    if spec.interpolation in FILTERED:
        fitted = _filtered(nodes, image, rows, columns, spec)
    else:
        picked = nodes.add("Gather", image, _nearest(nodes, rows, spec), axis=0)
        fitted = nodes.add("Gather", picked, _nearest(nodes, columns, spec), axis=1)
    if spec.fit != CROP or spec.resize < spec.crop:
        fitted = _filled(nodes, fitted, rows, columns, spec)
    return channels_first(nodes, fitted)


def channels_first(nodes: Nodes, image: str) -> str:
    """Add the change of (S, S, 3) to (1, 3, S, S) and return the name of the result."""
    turned = nodes.add("Transpose", image, perm=[2, 0, 1])
    return nodes.add("Unsqueeze", turned, nodes.constant([0], np.int64))


def _axes(nodes: Nodes, image: str, spec: TransformSpec) -> tuple[Axis, Axis]:
    """Return rows and columns: their lengths after resizing as `transform.py` computes them."""
    shape = nodes.cast(nodes.add("Shape", image, start=0, end=2), np.float64)
    resize = nodes.constant(spec.resize, np.float64)
    if spec.fit == SQUASH:
        sizes = nodes.constant([spec.resize, spec.resize], np.float64)
    elif spec.fit == CROP:
        shortest = nodes.add("ReduceMin", shape, keepdims=0)
        sizes = nodes.add("Floor", nodes.add("Div", nodes.add("Mul", shape, resize), shortest))
    else:
        ratio = nodes.add("ReduceMax", nodes.add("Div", shape, resize), keepdims=0)
        rounded = nodes.add("Round", nodes.add("Div", shape, ratio))
        sizes = nodes.add("Max", rounded, nodes.constant(1, np.float64))
    spare = nodes.add("Div", nodes.add("Sub", sizes, nodes.constant(spec.crop, np.float64)),
                      nodes.constant(2, np.float64))  # fmt: skip
    is_short = nodes.add("Less", spare, nodes.constant(0, np.float64))
    firsts = nodes.add("Where", is_short, nodes.add("Ceil", spare), nodes.add("Round", spare))

    def axis(i: int) -> Axis:
        at = nodes.constant(i, np.int64)
        length, resized, first = (nodes.add("Gather", values, at) for values in (shape, sizes, firsts))
        return Axis(length, resized, first)

    return axis(0), axis(1)


def _filtered(nodes: Nodes, image: str, rows: Axis, columns: Axis, spec: TransformSpec) -> str:
    """Resize the width of the rows that are needed, and then the height, as torch's kernel does: (S, S, 3)."""
    down, across = _Weights(nodes, rows, spec), _Weights(nodes, columns, spec)
    top = nodes.add("ReduceMin", down.sources, keepdims=0)
    bottom = nodes.add("Add", nodes.add("ReduceMax", down.sources, keepdims=0), nodes.constant(1, np.int64))
    one = nodes.constant([0], np.int64)
    limits = [nodes.add("Unsqueeze", each, one) for each in (top, bottom)]
    needed = nodes.add("Slice", image, *limits, one)
    narrow = across.product(nodes.add("Transpose", needed, perm=[1, 0, 2]), across.sources)
    upright = nodes.add("Transpose", narrow, perm=[1, 0, 2])
    return down.product(upright, nodes.add("Sub", down.sources, top))


class _Weights:
    """The weights of the places of a crop on one axis, in blocks.

    sources: the name of the sources of each block, int64 (n blocks, width), all within the image.
    """

    def __init__(self, nodes: Nodes, axis: Axis, spec: TransformSpec) -> None:
        self._nodes, self._axis, self._mode, self._side = nodes, axis, spec.interpolation, spec.crop
        add, number = nodes.add, self._number
        self._scale = add("Div", axis.length, axis.resized)
        self._wide = add("Max", self._scale, number(1))
        self._reach = add("Mul", self._wide, number(FILTERED[self._mode][0]))
        self._bits = self._count_bits()
        n_blocks = -(-spec.crop // BLOCK)
        places = add(
            "Add", nodes.constant(np.arange(n_blocks * BLOCK).reshape(n_blocks, BLOCK), np.float64), axis.first
        )
        last_place = add("Sub", axis.resized, number(1))
        places = add("Min", add("Max", places, number(0)), last_place)
        centres, first, last = self._sources(places)
        start = add("ReduceMin", first, nodes.constant([1], np.int64), keepdims=1)
        stop = add("ReduceMax", last, nodes.constant([1], np.int64), keepdims=1)
        width = add("ReduceMax", add("Sub", stop, start), keepdims=0)
        each = add("Add", start, self._range(width))
        sources = add("Min", each, add("Sub", axis.length, number(1)))
        self.sources = nodes.cast(sources, np.int64)
        self._high, self._low = self._digits(
            add("Unsqueeze", each, nodes.constant([1], np.int64)), centres, first, last
        )

    def _number(self, value: ArrayLike) -> str:
        return self._nodes.constant(value, np.float64)

    def _range(self, n: str) -> str:
        return self._nodes.add("Range", self._number(0), n, self._number(1))

    def _sources(self, places: str) -> tuple[str, str, str]:
        """Return the centre of each place, its first source and the one after its last, whole numbers as float64."""
        add, half = self._nodes.add, self._nodes.constant(0.5, np.float64)
        centres = add("Mul", self._scale, add("Add", places, half))
        first = add("Floor", add("Add", add("Sub", centres, self._reach), half))
        last = add("Floor", add("Add", add("Add", centres, self._reach), half))
        least = add("Max", first, self._nodes.constant(0, np.float64))
        return centres, least, add("Min", last, self._axis.length)

    def _real(self, each: str, centres: str, first: str, last: str) -> str:
        """Return the weights of sources `each` for places, which sum up to 1 on the last axis."""
        add, one = self._nodes.add, self._nodes.constant([-1], np.int64)
        centres, first, last = (add("Unsqueeze", value, one) for value in (centres, first, last))
        distance = add("Add", add("Sub", each, centres), self._nodes.constant(0.5, np.float64))
        inverse = add("Div", self._nodes.constant(1, np.float64), self._wide)
        weights = self._filter(add("Abs", add("Mul", distance, inverse)))
        is_source = add("And", add("GreaterOrEqual", each, first), add("Less", each, last))
        kept = add("Where", is_source, weights, self._nodes.constant(0, np.float64))
        return add("Div", kept, add("ReduceSum", kept, one, keepdims=1))

    def _filter(self, x: str) -> str:
        add, number = self._nodes.add, self._number
        if self._mode == "bilinear":
            return add("Max", add("Sub", number(1), x), number(0))
        a = CUBIC
        near = add("Sub", add("Mul", number(a + 2), x), number(a + 3))
        near = add("Add", add("Mul", add("Mul", near, x), x), number(1))
        far = add("Add", add("Mul", add("Sub", x, number(5)), x), number(8))
        far = add("Mul", add("Sub", add("Mul", far, x), number(4)), number(a))
        outer = add("Where", add("Less", x, number(2)), far, number(0))
        return add("Where", add("Less", x, number(1)), near, outer)

    def _count_bits(self) -> str:
        """Return the number of bits of the weights as float64, by the greatest weight of all places of the axis."""
        add, number = self._nodes.add, self._number
        places = self._range(add("Min", self._axis.resized, number(MOST_PLACES)))
        centres, first, last = self._sources(places)
        n_sources = add("ReduceMax", add("Sub", last, first), keepdims=0)
        each = add("Add", add("Unsqueeze", first, self._nodes.constant([1], np.int64)), self._range(n_sources))
        greatest = add("ReduceMax", self._real(each, centres, first, last), keepdims=0)
        scaled = add("Mul", greatest, number(2.0 ** np.arange(1, MOST_BITS + 1)))
        is_below = add("Less", add("Floor", add("Add", scaled, number(0.5))), number(WEIGHT_LIMIT))
        return add("ReduceSum", self._nodes.cast(is_below, np.float64), keepdims=0)

    def _digits(self, each: str, centres: str, first: str, last: str) -> tuple[str, str]:
        """Return the weights as whole numbers 256 (high - 128) + low: uint8 (n blocks, BLOCK, width) each."""
        add, number, cast = self._nodes.add, self._number, self._nodes.cast
        real = add("Mul", self._real(each, centres, first, last), add("Pow", number(2), self._bits))
        half = add("Where", add("Less", real, number(0)), number(-0.5), number(0.5))
        whole = cast(cast(add("Add", real, half), np.int32), np.float64)
        shifted = add("Add", whole, number(HALF_WORD))
        high = add("Floor", add("Div", shifted, number(256)))
        low = add("Sub", shifted, add("Mul", high, number(256)))
        return cast(cast(high, np.int32), np.uint8), cast(cast(low, np.int32), np.uint8)

    def product(self, image: str, sources: str) -> str:
        """Resize the first axis of (M, N, 3) and return the places of the crop: uint8 (S, N, 3)."""
        nodes, add = self._nodes, self._nodes.add
        parts = add("Gather", image, sources, axis=0)
        flat = add("Reshape", parts, nodes.constant([0, 0, -1], np.int64))
        high = add("MatMulInteger", self._high, flat, nodes.constant(HIGH_ZERO, np.uint8))
        low = add("MatMulInteger", self._low, flat)
        half = nodes.cast(add("Pow", nodes.constant(2, np.float64),
                              add("Sub", self._bits, nodes.constant(1, np.float64))), np.int32)  # fmt: skip
        total = add("Add", add("Add", add("Mul", high, nodes.constant(256, np.int32)), low), half)
        above = nodes.cast(add("Max", total, nodes.constant(0, np.int32)), np.uint32)
        shifted = add("BitShift", above, nodes.cast(self._bits, np.uint32), direction="RIGHT")
        pixels = nodes.cast(add("Min", shifted, nodes.constant(255, np.uint32)), np.uint8)
        places = add("Reshape", pixels, add("Concat", nodes.constant([-1], np.int64),
                                            add("Shape", image, start=1, end=3), axis=0))  # fmt: skip
        ends = [nodes.constant([value], np.int64) for value in (0, self._side, 0)]
        return places if self._side % BLOCK == 0 else add("Slice", places, *ends)


def _nearest(nodes: Nodes, axis: Axis, spec: TransformSpec) -> str:
    """Return the source of each place of the crop on an axis, int64 (S,), as `interpolate` and Pillow choose it."""
    add = nodes.add
    last = add("Sub", axis.resized, nodes.constant(1, np.float64))
    places = add("Add", nodes.constant(np.arange(spec.crop), np.float64), axis.first)
    places = add("Min", add("Max", places, nodes.constant(0, np.float64)), last)
    if spec.interpolation == NEAREST_PILLOW:
        step = add("Div", axis.length, axis.resized)
        n_steps = nodes.cast(add("Unsqueeze", last, nodes.constant([0], np.int64)), np.int64)
        steps = add("Expand", step, n_steps)
        first = add("Unsqueeze", add("Div", step, nodes.constant(2, np.float64)), nodes.constant([0], np.int64))
        every = add("CumSum", add("Concat", first, steps, axis=0), nodes.constant(0, np.int64))
        found = add("Gather", every, nodes.cast(places, np.int64))
    else:
        # torch computes it in float32.
        sides = (nodes.cast(value, np.float32) for value in (axis.length, axis.resized))
        shift = 0.5 if spec.interpolation == "nearest-exact" else 0.0
        centres = add("Add", nodes.cast(places, np.float32), nodes.constant(shift, np.float32))
        found = nodes.cast(add("Mul", centres, add("Div", *sides)), np.float64)
    end = add("Sub", axis.length, nodes.constant(1, np.float64))
    return nodes.cast(add("Min", add("Floor", found), end), np.int64)


def _filled(nodes: Nodes, fitted: str, rows: Axis, columns: Axis, spec: TransformSpec) -> str:
    """Fill what the resized image does not cover of the crop."""

    def covered(axis: Axis) -> str:
        places = nodes.add("Add", nodes.constant(np.arange(spec.crop), np.float64), axis.first)
        is_after = nodes.add("GreaterOrEqual", places, nodes.constant(0, np.float64))
        return nodes.add("And", is_after, nodes.add("Less", places, axis.resized))

    down = nodes.add("Unsqueeze", covered(rows), nodes.constant([1, 2], np.int64))
    across = nodes.add("Unsqueeze", covered(columns), nodes.constant([1], np.int64))
    fill = nodes.constant(spec.fill or (0, 0, 0), np.uint8)
    return nodes.add("Where", nodes.add("And", down, across), fitted, fill)
