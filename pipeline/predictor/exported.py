"""A file that `export` has written, as a network of its own: an image to the probabilities and the label of its head.

    image, uint8 (H, W, 3), or (S, S, 3) of a file of a fixed size -> probabilities (C,), label ()

It runs under ONNX Runtime; images are decoded here, and resized here only for a file of a fixed size. What the file
says of itself may be untrusted: it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.cores import count_cores
from featurecache.base.errors import EngineFailed, PipelineError, UsageError
from featurecache.base.plain_files import parse_json
from featurecache.base.text import printable
from featurecache.extract.cache.spec import INT8, FeatureSpec
from featurecache.extract.images.decode_rules import DECODE_VERSION
from featurecache.extract.in_memory.network import ImageNetwork, ImageNetworks
from featurecache.extract.in_memory.pixels import PixelKind
from featurecache.predictor.exported_session import FORMAT, IMAGE, LABEL, PREFIX, PROBABILITIES, line_of, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.engines.protocol import Engine

# The limit of a protobuf message.
MAX_BYTES = 2 << 30
AGAIN = "Write it again with 'featurecache export'."


@dataclass(frozen=True)
class FileEngine:
    """How an exported file runs: an image at a time, on one core each; see `extract.engines.Engine`."""

    run: Callable[[Any], NDArray[np.float32]]
    n_lanes: int
    precision: str
    name: str = "onnxruntime"
    device: str = "cpu"
    batch_size: int = 1
    reason: str = "onnxruntime on cpu: an exported file"

    def allow_lanes(self, n_lanes: int) -> None:
        """Any number of threads may run the file at once."""


class ExportedNetwork(ImageNetwork):
    """An exported file, whose rows are the C probabilities of an image and the code of its label: (B, C + 1).

    name: head and features. classes: their names, by code. specs: of its features.
    Raises UsageError where there is no such file, PipelineError where it is none of `export`, or damaged.
    """

    def __init__(self, path: Path) -> None:
        content = _content(path)
        self._path = path
        check_has_all_values(path, content)
        self._session = open_session(content, f"'{printable(path)}'", advice=AGAIN)
        described = self._described()
        self.name, self.classes = str(described["head"]), list(described["classes"])
        self.specs: list[FeatureSpec] = described["features"]
        if any(spec.precision == INT8 for spec in self.specs):
            self._session = open_session(content, f"'{printable(path)}'", is_exact=True, advice=AGAIN)
        first = self.specs[0]
        kind = PixelKind.of(first)
        self.spec = replace(first, feature_dim=len(self.classes) + 1)
        is_fixed = described["is_fixed"]
        self.kind = kind if is_fixed else replace(kind, geometry=None)
        self._engine: Engine | None = FileEngine(self.run, count_cores(), first.precision)

    @property
    def engine(self) -> Engine:
        """How the file runs."""
        assert self._engine is not None
        return self._engine

    def run(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities and codes (B, C + 1) of B images (H, W, 3), or (3, S, S) of a file of a fixed size.

        Raises EngineFailed.
        """
        rows = []
        for each in pixels:
            image = each if self.kind.geometry is None else np.ascontiguousarray(each.transpose(1, 2, 0))
            try:
                proba, code = self._session.run([PROBABILITIES, LABEL], {IMAGE: image})
            except Exception as error:
                raise EngineFailed(f"ONNX Runtime does not run '{printable(self._path)}': {line_of(error)}") from error
            rows.append(self._row(np.asarray(proba), np.asarray(code)))
        return np.asarray(rows, dtype=np.float32)

    def _row(self, proba: NDArray[Any], code: NDArray[Any]) -> NDArray[np.float32]:
        """Return the probabilities of an image and the code of its label (C + 1,). Raises EngineFailed for others."""
        n_classes = len(self.classes)
        is_code = code.shape == () and code.dtype.kind in "iu" and 0 <= code < n_classes
        if not is_code or proba.shape != (n_classes,) or proba.dtype.kind != "f" or not np.isfinite(proba).all():
            raise EngineFailed(
                f"'{printable(self._path)}' does not answer with a probability for each of its {n_classes} classes and "
                f"the number of one of them. {AGAIN}"
            )
        return np.append(proba, code).astype(np.float32)

    def images(self, max_pixels: int) -> ImageNetworks:
        """Return it as the only network for images in memory."""
        return ImageNetworks({"": self}, max_pixels=max_pixels)

    def _described(self) -> dict[str, Any]:
        """Return head, classes and features by the metadata of the file. Raises PipelineError."""
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            if metadata[f"{PREFIX}format"] != str(FORMAT):
                raise ValueError("its format is of another version")
            classes = parse_json(metadata[f"{PREFIX}classes"])
            if not (isinstance(classes, list) and classes and all(isinstance(each, str) for each in classes)):
                raise ValueError("its classes are no list of names")
            features = [_spec(each) for each in parse_json(metadata[f"{PREFIX}features"])]
            if not features or any(each.decode_version != DECODE_VERSION for each in features):
                raise ValueError("it is for images that are decoded by other rules than those of this version")
            named = {each.name for each in (*self._session.get_inputs(), *self._session.get_outputs())}
            if not {IMAGE, PROBABILITIES, LABEL} <= named:
                raise ValueError("its inputs and outputs have other names")
            (shape,) = [each.shape for each in self._session.get_inputs() if each.name == IMAGE]
            sizes = {each for each in shape[:2] if isinstance(each, int)}
            if len(shape) != 3 or shape[2] != 3 or not sizes <= {features[0].transform.crop}:
                raise ValueError("its image has another shape than its transform gives")
            head = printable(metadata[f"{PREFIX}head"])
            return {"head": head, "classes": classes, "features": features, "is_fixed": bool(sizes)}
        except KeyError as error:
            reason = f"it does not say {error}"
        except (ValueError, TypeError, AttributeError) as error:
            reason = printable(str(error))
        raise PipelineError(f"'{printable(self._path)}' is no file of featurecache export: {reason}. {AGAIN}")


def _spec(values: Any) -> FeatureSpec:
    return FeatureSpec.from_dict({name: value for name, value in dict(values).items() if name != "key"})


def _content(path: Path) -> bytes:
    """Return the content of a file. Raises UsageError for what is none, cannot be read or is too large for ONNX."""
    try:
        if not path.is_file():
            raise UsageError(f"'{printable(path)}' is no file. Name one that 'featurecache export' has written.")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"'{printable(path)}' has more than the 2 GiB that an ONNX file holds.")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"'{printable(path)}' cannot be read: {error.strerror or error}.") from None
    except ValueError:
        raise UsageError(f"'{printable(path)}' is no name of a file.") from None


def check_has_all_values(path: Path, content: bytes) -> None:
    """Raise PipelineError for a model that takes values from other files, which a stranger's file could choose."""
    import onnx

    def is_elsewhere(message: Any) -> bool:
        if isinstance(message, onnx.TensorProto):
            return message.data_location == onnx.TensorProto.EXTERNAL or len(message.external_data) > 0
        within = [value for field, value in message.ListFields() if field.message_type is not None]
        return any(
            is_elsewhere(part) for value in within for part in ([value] if hasattr(value, "ListFields") else value)
        )

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own, whose class is that of its implementation
        raise PipelineError(f"'{printable(path)}' is no ONNX file. {AGAIN}") from error
    if is_elsewhere(model):
        raise PipelineError(f"'{printable(path)}' takes values from other files, which are not read. {AGAIN}")
