"""The head that a network is fine-tuned from."""

from __future__ import annotations

import pytest

from featurecache.finetune.source_run import _row

RESULTS = {"config": {}}


def head(name: str, accuracy: float, **more):
    return {"name": name, "backbone": "pixels", "val": {"accuracy": accuracy, "log_loss": 1.0}, **more}


@pytest.mark.parametrize("name", [None, "random"])
def test_an_ensemble_is_none_that_starts_a_network(name):
    heads = [head("knn", 0.8), head("forest", 0.7), head("ensemble", 0.9, members=["pixels--knn", "pixels--forest"])]
    assert _row(RESULTS, heads, name)["name"] == "knn"
    assert _row(RESULTS, heads, "ensemble")["name"] == "ensemble"
