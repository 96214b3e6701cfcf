"""FastAPI and ONNX Runtime, as their tutorials write it: python fastapi_service.py GRAPH HEAD PORT.

One image a request, decoded and resized by Pillow in the threads of FastAPI, and run on as it is; one process, ONNX
Runtime with its own settings.
"""

from __future__ import annotations

import io
import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image

RESIZE, CROP = 256, 224


def fitted(image: Image.Image, crop: int) -> np.ndarray:
    """Resize the shortest side, crop the middle: uint8 (1, 3, crop, crop)."""
    scale = crop * RESIZE / CROP / min(image.size)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (resized.width - crop) // 2, (resized.height - crop) // 2
    pixels = np.asarray(resized.crop((left, top, left + crop, top + crop)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]


def build(graph: str, head: str) -> FastAPI:
    """Return the service. graph: uint8 (1, 3, S, S) to features. head: a .npz of coef (C, D) and intercept (C,)."""
    app = FastAPI()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    saved = np.load(head)
    coef, intercept = saved["coef"], saved["intercept"]

    def predict(image: UploadFile) -> dict[str, object]:
        pixels = fitted(Image.open(io.BytesIO(image.file.read())).convert("RGB"), given.shape[2])
        (features,) = session.run(None, {given.name: pixels})
        logits = (features @ coef.T + intercept)[0]
        p = np.exp(logits - logits.max())
        p /= p.sum()
        return {"label": int(p.argmax()), "probabilities": p.tolist()}

    # FastAPI reads the annotation of the function, which is a string here.
    predict.__annotations__["image"] = UploadFile
    app.post("/predict")(predict)
    return app


if __name__ == "__main__":
    uvicorn.run(build(sys.argv[1], sys.argv[2]), host="127.0.0.1", port=int(sys.argv[3]), log_level="warning")
