"""An exported file in ONNX Runtime: its session, and the names of what it takes, gives and says of itself."""

from __future__ import annotations

from typing import Any

from featurecache.base.errors import EngineError, PipelineError
from featurecache.base.text import printable

IMAGE, PROBABILITIES, LABEL = "image", "probabilities", "label"
# Of the keys of its metadata, and the format of these.
PREFIX, FORMAT = "featurecache.", 1
ERRORS_ONLY = 3
MOST_CHARACTERS = 200


def open_session(content: bytes, named: str, *, is_exact: bool = False, advice: str = "") -> Any:
    """Return a session in which every thread that runs it computes on one core.

    named: what the file is called in an error, and advice: how that ends. is_exact: products of 8 bits are exact on
    every processor. Raises PipelineError for a file that ONNX Runtime does not load, EngineError.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = 1
    try:
        if is_exact:
            from featurecache.extract.engines.exact_products import make_products_exact

            make_products_exact(options)
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except EngineError:
        raise
    except Exception as error:
        reason = f"ONNX Runtime does not take {named}: {line_of(error)}. {advice}"
        raise PipelineError(reason.rstrip()) from error


def line_of(error: Exception) -> str:
    """Return the first line of an error of ONNX Runtime, without its end."""
    return printable(str(error).strip().partition("\n")[0])[:MOST_CHARACTERS]
