"""Shared by the tests of saved heads."""

import json
from hashlib import sha256

import pytest


def write_skops_head(folder, blob, **changes):
    """A folder with this head.skops, as `save_head` would have written it."""
    folder.mkdir()
    (folder / "head.skops").write_bytes(blob)
    document = {
        "format": 2,
        "name": "foreign",
        "file": "head.skops",
        "params": {"temperature": 1.0},
        "meta": {},
        "learned": {"n_features_in_": 5, "converged_": True, "note_": ""},
    }
    document |= {"sha256": sha256(blob).hexdigest()} | changes
    (folder / "head.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(name="write_skops_head", scope="session")
def _write_skops_head():
    return write_skops_head
