"""An exported file as ONNX Runtime runs it, and the values between its stages."""

from __future__ import annotations

import json
import re
import statistics
import time
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import PipelineError
from featurecache.predictor.exported_session import IMAGE, LABEL, PREFIX, PROBABILITIES, line_of, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

STAGE = re.compile(r"(pixels|features)_[0-9]+")
NAMED = "the exported file"


class ExportedFile:
    """An exported file, by its content; every thread that calls it runs one image on one core.

    document: its metadata. milliseconds: of every image so far. Raises PipelineError where it cannot be loaded.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._session = open_session(content, NAMED)
        metadata = self._session.get_modelmeta().custom_metadata_map
        own = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
        self.document: dict[str, Any] = {
            key: json.loads(value) if value[:1] in ("[", "{") else value for key, value in own.items()
        }
        self.milliseconds: list[float] = []
        self._stages: Any = None
        self._lock = Lock()

    def answer(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], int]:
        """Return the probabilities (C,) and the code of the label of an image (H, W, 3). Raises PipelineError."""
        started = time.perf_counter()
        try:
            proba, label = self._session.run([PROBABILITIES, LABEL], {IMAGE: image})
        except Exception as error:
            raise PipelineError(f"ONNX Runtime does not run {NAMED}: {line_of(error)}.") from error
        self.milliseconds.append(1000 * (time.perf_counter() - started))
        return proba, int(label)

    def median_ms(self) -> float:
        """Return the median time of an image in milliseconds."""
        return round(statistics.median(self.milliseconds), 2)

    def stages(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return the values between the stages for an image: pixels_0, uint8 (1, 3, S, S), features_0, and so on."""
        with self._lock:
            if self._stages is None:
                self._stages = open_session(_with_stages(self._content), NAMED)
        names = [each.name for each in self._stages.get_outputs()]
        return dict(zip(names, self._stages.run(None, {IMAGE: image}), strict=True))


def _with_stages(content: bytes) -> bytes:
    """Return the model with the values between its stages as its outputs."""
    import onnx

    model = onnx.load_model_from_string(content)
    names = [name for node in model.graph.node for name in node.output if STAGE.fullmatch(name)]
    kinds = {"pixels": onnx.TensorProto.UINT8, "features": onnx.TensorProto.FLOAT}
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, kinds[name.partition("_")[0]], None) for name in names
    )
    changed: bytes = model.SerializeToString()
    return changed
