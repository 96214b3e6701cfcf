"""LitServe and ONNX Runtime, as its documentation writes it: python litserve_service.py GRAPH HEAD PORT.

It gathers up to a batch for a moment, in one worker for the CPU. The graph takes one image, so a batch is a loop; ONNX
Runtime has its own settings.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from PIL import Image

from featurecache.bench.serving.fastapi_service import fitted

MAX_BATCH, BATCH_SECONDS = 8, 0.005


class Labels(litserve.LitAPI):  # type: ignore[misc]
    """Labels of images. graph, head: as in `fastapi_service`."""

    def __init__(self, graph: str, head: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=BATCH_SECONDS)
        self._graph, self._head = graph, head

    def setup(self, device: str) -> None:
        """Load the model in the process of the worker."""
        self._session = onnxruntime.InferenceSession(self._graph, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]
        saved = np.load(self._head)
        self._coef, self._intercept = saved["coef"], saved["intercept"]

    def decode_request(self, request: Any) -> np.ndarray:
        """Return the pixels of an image."""
        image = Image.open(io.BytesIO(request["image"].file.read())).convert("RGB")
        return fitted(image, self._input.shape[2])

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Return a batch."""
        return inputs

    def predict(self, batch: list[np.ndarray]) -> np.ndarray:
        """Return the probabilities of a batch."""
        features = np.concatenate([self._session.run(None, {self._input.name: each})[0] for each in batch])
        logits = features @ self._coef.T + self._intercept
        p: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Return one row for each image."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, object]:
        """Return the response."""
        return {"label": int(output.argmax()), "probabilities": output.tolist()}


# LitServe takes forms where this has no annotation, and reads each as what FastAPI expects: here it is a string.
Labels.decode_request.__annotations__.clear()


if __name__ == "__main__":
    server = litserve.LitServer(Labels(sys.argv[1], sys.argv[2]), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[3]), log_level="warning", generate_client_file=False)
