"""What a head learned is checked before it predicts: a document or an array that was changed ends in a sentence."""

import json
from hashlib import sha256

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from featurecache.base.errors import SavedHeadError
from featurecache.classify.heads.saving.folder import load_head, save_head
from featurecache.classify.heads.shared.learned import OPTIONAL_LEARNED, Array, check_fitted
from featurecache.classify.heads.table import HEADS, build_head

LABELS = np.arange(60) % 3
X = (np.random.default_rng(0).normal(size=(60, 5)) + np.eye(5)[LABELS]).astype(np.float32)
SMALL = {"mlp": {"hidden": 8, "epochs": 2}}
ARRAYS = [
    (name, key) for name in HEADS for key, declared in build_head(name).learned.items() if isinstance(declared, Array)
]


def fitted(name, labels=LABELS):
    return build_head(name, **SMALL.get(name, {})).fit(X, labels)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    for name in HEADS:
        save_head(fitted(name), root / name, meta={})
    return root


def changed(saved, tmp_path, name, *, arrays=None, **changes):
    """A copy of a saved head with other arrays, and other parameters and learned values where these are dicts."""
    document = json.loads((saved / name / "head.json").read_text())
    found = load_file(saved / name / "head.safetensors")
    for key, change in (arrays or {}).items():
        found[key] = change(found[key]) if key in found else change(None)
    kept = {key: np.ascontiguousarray(value) for key, value in found.items() if value is not None}
    (tmp_path / "head").mkdir()
    save_file(kept, tmp_path / "head" / "head.safetensors")
    for part, values in changes.items():
        document[part] = {key: value for key, value in (document[part] | values).items() if value != "left out"}
    document["sha256"] = sha256((tmp_path / "head" / "head.safetensors").read_bytes()).hexdigest()
    (tmp_path / "head" / "head.json").write_text(json.dumps(document))
    return tmp_path / "head"


def refusal(folder):
    with pytest.raises(SavedHeadError) as refused:
        load_head(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", HEADS)
def test_the_table_of_a_head_names_all_that_it_learns_and_no_more(name):
    head = fitted(name)
    assert set(head.learned) <= {key for key in vars(head) if key.endswith("_")} <= {*head.learned, *OPTIONAL_LEARNED}
    check_fitted(head)


@pytest.mark.parametrize(("name", "key"), ARRAYS)
def test_an_array_of_another_shape_type_or_range_is_refused(saved, tmp_path, name, key):
    changes = {
        "is missing": lambda a: None,
        "has shape ": lambda a: a[..., :-1],
        "shape": lambda a: np.zeros((0, *a.shape[1:]), dtype=a.dtype),
        "has the unexpected type": lambda a: a.astype(bool),
    }
    if build_head(name).learned[key].kind == "f":
        changes["not finite"] = lambda a: np.full_like(a, np.nan)
        changes["numbers that are not"] = lambda a: np.where(np.arange(a.size).reshape(a.shape) == 0, -np.inf, a)
    for number, (said, change) in enumerate(changes.items()):
        (tmp_path / str(number)).mkdir()
        assert said in refusal(changed(saved, tmp_path / str(number), name, arrays={key: change}))


@pytest.mark.parametrize(
    ("name", "arrays", "said"),
    [
        ("knn", {"codes_": lambda a: a + 1}, "codes_ has numbers that are not from 0 to 2"),
        ("knn", {"codes_": lambda a: a - 1}, "codes_ has numbers that are not from 0 to 2"),
        ("knn", {"counts_": lambda a: a - 1}, "counts_ has numbers that are not from"),
        ("knn", {"factors_": lambda a: -a}, "factors_ has numbers that are not from 0 to inf"),
        ("knn", {"rows_": lambda a: a[:30]}, "codes_ has shape (60,), where (N) is (30,)|rows_ has shape"),
        ("mlp", {"hidden_coef_": lambda a: a[:4]}, "has shape"),
        ("rbf_svm", {"coef_": lambda a: a[:, :2]}, "coef_ has shape"),
        ("ridge", {"classes_": lambda a: a[::-1]}, "classes_ are not two classes or more, each once and in order"),
        ("ridge", {"classes_": lambda a: a[:1]}, "classes_ are not two classes or more"),
        ("ridge", {"classes_": lambda a: a[:, None]}, "classes_ holds values that are not labels"),
        ("ridge", {"classes_": lambda a: np.arange(4)}, "has shape"),
        ("ridge", {"other_": lambda a: np.ones(3)}, "'other_' is not something a head learns"),
        ("ridge", {"hidden_coef_": lambda a: np.ones((3, 5))}, "'hidden_coef_' is not something a head learns"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(saved, tmp_path, name, arrays, said):
    found = refusal(changed(saved, tmp_path, name, arrays=arrays))
    assert any(each in found for each in said.split("|"))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("ridge", {"learned": {"n_features_in_": 4}}, "coef_ has shape (3, 5), where (C, D) is (3, 4)"),
        ("ridge", {"learned": {"n_features_in_": "left out"}}, "n_features_in_ is missing"),
        ("ridge", {"learned": {"n_features_in_": 0}}, "n_features_in_=0 is not possible"),
        ("ridge", {"learned": {"n_features_in_": 5.5}}, "n_features_in_=5.5 is not possible"),
        ("ridge", {"learned": {"n_features_in_": [5]}}, "n_features_in_=[5] is not possible"),
        ("ridge", {"learned": {"converged_": "yes"}}, "converged_ has the unexpected type str"),
        ("ridge", {"learned": {"converged_": "left out"}}, "converged_ is missing"),
        ("ridge", {"learned": {"note_": 7}}, "note_ has the unexpected type int"),
        ("ridge", {"learned": {"n_iter_": -1}}, "n_iter_=-1 is not possible"),
        ("ridge", {"learned": {"slope_": "steep"}}, "slope_='steep' is not possible"),
        ("ridge", {"learned": {"coef_": 1.0}}, "coef_ has the unexpected type float"),
        (
            "ridge",
            {"learned": {"intercept_": {"text": ["a", "b", "c"], "dtype": "str"}}},
            "intercept_ has the unexpected type <U1",
        ),
        ("ridge", {"learned": {"note_": {"text": [""], "dtype": "float64"}}}, "an array of 'float64'"),
        ("ridge", {"learned": {"note_": {"text": [""], "dtype": "V999999999999"}}}, "an array of 'V999999999999'"),
        (
            "ridge",
            {"learned": {"classes_": {"text": [[1], [2], [3]], "dtype": "object"}}},
            "classes_ holds values that are not",
        ),
        ("ridge", {"learned": {"classes_": {"text": [1, "a", 2.0], "dtype": "object"}}}, "is not a complete head"),
        (
            "ridge",
            {"learned": {"feature_names_in_": {"text": ["a"], "dtype": "str"}}},
            "feature_names_in_ has 1 labels",
        ),
        ("ridge", {"params": {"temperature": 0.0}}, "temperature=0.0 is not possible: use a number above 0"),
        ("ridge", {"params": {"temperature": None}}, "temperature=None is not possible"),
        ("ridge", {"params": {"class_weight": "heavy"}}, "class_weight='heavy' is unknown"),
        ("ridge", {"params": {"class_weight": {"1": -1.0}}}, "class_weight['1']=-1.0 is not possible"),
        ("ridge", {"params": {"alpha": 10**400}}, "is not a complete head"),
        ("knn", {"params": {"k": 0}}, "k=0 is not possible"),
        ("knn", {"params": {"metric": "hamming"}}, "metric='hamming' is unknown"),
        ("knn", {"params": {"sharpness": 0}}, "sharpness=0 is not possible"),
        ("knn", {"learned": {"variance_": None}}, "variance_=None is not possible"),
        ("mlp", {"params": {"random_state": [1]}}, "random_state=[1] is no whole number"),
        ("mlp", {"params": {"device": 1}}, "device=1 is unknown"),
        ("rbf_svm", {"learned": {"method_": "by hand"}}, "has shape|method_='by hand' is unknown"),
        ("rbf_svm", {"learned": {"gamma_": -1.0}}, "gamma_=-1.0 is not possible"),
    ],
)
def test_values_that_no_fit_would_have_left_are_refused(saved, tmp_path, name, changes, said):
    folder = changed(saved, tmp_path, name, **changes)
    found = refusal(folder)
    assert any(each in found for each in said.split("|"))


@pytest.mark.parametrize("name", HEADS)
def test_whatever_number_of_a_document_is_changed_a_head_predicts_or_is_refused(saved, tmp_path, name):
    document = json.loads((saved / name / "head.json").read_text())
    changes = [None, True, -1, 0, 1e300, 10**30, "", "x", [], {}, {"pairs": [[1, 2]]}, {"text": [], "dtype": "str"}]
    n_refused = 0
    for part in ("params", "learned"):
        for key in document[part]:
            for value in changes:
                spoilt = document | {part: document[part] | {key: value}}
                (saved / name / "head.json").write_text(json.dumps(spoilt))
                try:
                    head = load_head(saved / name).head
                except SavedHeadError:
                    n_refused += 1
                else:
                    with np.errstate(all="ignore"):
                        assert head.predict_proba(X).shape == (60, 3)
    (saved / name / "head.json").write_text(json.dumps(document))
    assert n_refused > 20


def test_a_network_that_diverged_may_hold_what_is_no_number(tmp_path):
    head = fitted("mlp")
    head.coef_[:] = np.nan
    head.converged_, head.note_ = False, "learning_rate=1: training diverged."
    save_head(head, tmp_path / "head", meta={})
    assert np.isnan(load_head(tmp_path / "head").head.coef_).all()
    head.converged_ = True
    with pytest.raises(SavedHeadError, match="coef_ has numbers that are not finite"):
        save_head(head, tmp_path / "other", meta={})
    assert not (tmp_path / "other").exists()
