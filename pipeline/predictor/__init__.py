"""The two stages joined again: F(x) = T(P(x)) on any images, with a head that a run saved.

predictor    Predictor: a saved head and the features that it takes; the mean of several
exported     a file of `export` as a network; exported_session: in ONNX Runtime
on_images    images in memory: paths, bytes, PIL images, arrays; and the steps that a server runs one by one
replay       images of a run labelled again, compared with its cache and its predictions
row_blocks   rows to labels in blocks of one size, so that those of one do not depend on the others
saved        checks of a saved head, and the cache of its run
"""

from featurecache.predictions.labelled import Predictions
from featurecache.predictor.predictor import Predictor
from featurecache.predictor.saved import recorded_cache

__all__ = ["Predictions", "Predictor", "recorded_cache"]
