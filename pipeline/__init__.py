"""Two-stage transfer learning for images: F(x) = T(P(x)).

    extract (P: images to vectors) | classify (T: heads on vectors)      know nothing of each other
    base < extract | classify < runs < features < evaluate < finetune, report, predictor, head_training
    < export < serve < cli < bench

    base           errors, atomic files, progress, text: what every room may import
    extract        stage one, in the folder extract/
    classify       stage two, in the folder classify/
    runs           the run folder: its files, who writes and who reads them
    features       the features of a data set, cached, extracted or from a file of vectors
    evaluate       cached features to runs: classify, compare, audit, select
    finetune       the network itself trained on, from a run's head and cached maps
    predictions    labels of many images, in blocks, and how they are written
    report         one run as a page to look at
    predictor      a saved head on any images, of a data set or in memory
    head_training  heads from Python
    export         a head as one file for other programs
    serve          labels over HTTP, and a page
    cli            the command line
    bench          speed compared with what is usual

The folder pipeline/ is this package; extract/ and classify/ are its subpackages. Importing it imports nothing heavy:
names are fetched from their modules when first used.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

if __name__ != "featurecache":
    raise ImportError(f"'{__name__}' has become 'featurecache'.")

# ONNX Runtime reports sessions and a device id to its makers unless this is set before it is loaded, also by children.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "FeatureCache": "extract.cache.store",
    "FeatureCacheError": "base.errors",
    "FeatureExtractor": "extract.in_memory.extractor",
    "FeatureRequest": "extract.job.request",
    "Manifest": "extract.images.manifest",
    "Predictor": "predictor",
    "Progress": "base.progress",
    "Sample": "extract.images.manifest",
    "Settings": "extract.job.settings",
    "TransformSpec": "extract.cache.transform_spec",
    "audit_images": "evaluate.audit",
    "compare_runs": "evaluate.compare",
    "export_model": "export.export",
    "extract_features": "extract.job.extract",
    "list_backbones": "extract.backbones.listing",
    "list_heads": "classify.heads.table",
    "list_models": "runs.models.versions",
    "own_network": "extract.backbones.libraries.own_network",
    "promote_model": "runs.models.promotion",
    "read_arrays": "extract.images.vectors.arrays",
    "read_images": "extract.images.read",
    "select_backbones": "evaluate.backbone_choice",
    "train_heads": "head_training",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featurecache' has no attribute {name!r}")
    return getattr(importlib.import_module(f"featurecache.{_HOMES[name]}"), name)
