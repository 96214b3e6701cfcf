"""What a command does not import, and the files that it writes without."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from featurecache.classify.heads.shared.estimator import PlainClassifier, PlainEstimator
from featurecache.cli.main import DONE
from featurecache.runs.predictions_file import HeadPredictions, open_predictions, write_predictions

HEAVY = ("torch", "sklearn", "pandas", "scipy", "array_api_compat.numpy", "numpy.f2py", "pyarrow.compute")
PROGRAM = f"""
import sys
from featurecache.base.startup import begin_command_process
begin_command_process()
from featurecache.cli.main import run
code = run(sys.argv[1:])
print([name for name in {HEAVY} if name in sys.modules])
sys.exit(code)
"""


def test_a_classify_by_ridge_imports_no_library_that_it_does_not_need(digits_folder, filled_cache, tmp_path):
    cache = shutil.copytree(filled_cache, tmp_path / "cache")
    words = ["classify", digits_folder, "--cache", cache, "--heads", "ridge", "--out", tmp_path / "run"]
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, words)], capture_output=True, text=True)
    assert ended.returncode == DONE, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"


class Head(PlainClassifier, PlainEstimator):
    """Predicts one label."""

    def __init__(self, C: float = 1.0, *, label: str = "a") -> None:
        self.C = C
        self.label = label

    def predict(self, X):
        return np.full(len(X), self.label)


def test_the_small_bases_are_those_of_an_estimator():
    from sklearn.base import clone, is_classifier

    head = Head(2.0)
    assert (repr(head), repr(Head())) == ("Head(C=2.0)", "Head()")
    assert head.get_params() == {"C": 2.0, "label": "a"}
    assert clone(head).set_params(label="b").get_params() == {"C": 2.0, "label": "b"}
    assert is_classifier(head)
    assert head.score(np.zeros((4, 1)), np.array(["a", "b", "a", "a"])) == 0.75
    assert head.score(np.zeros((2, 1)), np.array(["a", "b"]), sample_weight=np.array([1.0, 3.0])) == 0.25
    with pytest.raises(
        ValueError, match=r"Invalid parameter 'D' for estimator Head\(C=2\.0\)\. Valid .*\['C', 'label'\]"
    ):
        head.set_params(D=1)


def test_names_of_any_alphabet_are_read_as_they_were_written(tmp_path):
    names, proba = ["", "été/ß.png", "写真\U0001f600"], np.linspace(0, 1, 6).reshape(3, 2)
    heads = [HeadPredictions("pixels", "pixels", name, names[::-1], proba) for name in ("ridge", "knn")]
    write_predictions(tmp_path, names=names, digests=["d"] * 3, labels=names, heads=heads)
    with open_predictions(tmp_path) as file:
        found = file.read().to_pydict()
        assert file.num_row_groups == 2
    assert found["path"] == names * 2
    assert found["predicted"] == names[::-1] * 2
    assert found["head"] == ["ridge"] * 3 + ["knn"] * 3
    assert found["probabilities"][:3] == [pytest.approx(row) for row in proba.tolist()]
