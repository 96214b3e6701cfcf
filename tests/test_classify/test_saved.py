import json
from pathlib import Path

import numpy as np
import pytest

from classify.errors import SavedHeadError
from classify.heads import HEADS, build_head
from classify.saved import load_head, save_head

SMALL = {"mlp": {"hidden": 8, "epochs": 2}}
FOREIGN = ["sklearn.ensemble.ExtraTreesClassifier", "sklearn.svm.LinearSVC", "sklearn.naive_bayes.GaussianNB"]


def fitted(name, *, labels=("cat", "dog", "eel"), seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(60) % len(labels)
    X = (rng.normal(size=(60, 5)) + np.eye(5)[codes]).astype(np.float32)
    return build_head(name, **SMALL.get(name, {})).fit(X, np.array(labels)[codes]), X


@pytest.mark.parametrize("name", [*HEADS, *FOREIGN])
@pytest.mark.parametrize("labels", [("cat", "dog", "eel"), (3, 5)])
def test_a_loaded_head_predicts_the_same_to_the_bit(name, labels, tmp_path):
    head, X = fitted(name, labels=labels)
    save_head(head, tmp_path / "head", meta={"backbone": "pixels", "classes": ["a", "b"]})
    loaded = load_head(tmp_path / "head")
    assert loaded.meta == {"backbone": "pixels", "classes": ["a", "b"]}
    assert (loaded.head.predict_proba(X) == head.predict_proba(X)).all()
    assert (loaded.head.predict(X) == head.predict(X)).all()
    assert loaded.head.classes_.dtype == head.classes_.dtype
    assert str(loaded.head.get_params()) == str(head.get_params())


@pytest.mark.parametrize("name", HEADS)
def test_our_heads_need_no_pickle_and_no_skops(name, tmp_path):
    save_head(fitted(name)[0], tmp_path / "head", meta={})
    assert sorted(path.name for path in (tmp_path / "head").iterdir()) == ["head.json", "head.safetensors"]


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(tmp_path):
    save_head(fitted("ridge")[0], tmp_path / "head", meta={"run": 1})
    save_head(fitted("knn")[0], tmp_path / "head", meta={"run": 2})
    assert load_head(tmp_path / "head").meta == {"run": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def test_a_head_that_cannot_be_written_leaves_the_old_one(tmp_path):
    save_head(fitted("ridge")[0], tmp_path / "head", meta={"run": 1})
    with pytest.raises(TypeError):
        save_head(fitted("ridge")[0], tmp_path / "head", meta={"run": object()})
    assert load_head(tmp_path / "head").meta == {"run": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def test_a_number_that_is_none_is_saved_as_null(tmp_path):
    head, X = fitted("logistic")
    head.slope_ = np.inf
    save_head(head, tmp_path / "head", meta={"tempering": float("nan")})
    loaded = load_head(tmp_path / "head")
    assert loaded.head.slope_ is None
    assert loaded.meta == {"tempering": None}
    assert (loaded.head.predict(X) == head.predict(X)).all()


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path):
    head, X = fitted("knn")
    head.set_params(k=np.int64(3), sharpness=np.float32(0.5))
    save_head(head, tmp_path / "head", meta={"n": np.int32(7)})
    loaded = load_head(tmp_path / "head")
    assert (loaded.head.k, loaded.head.sharpness, loaded.meta) == (3, 0.5, {"n": 7})
    assert (loaded.head.predict_proba(X) == head.predict_proba(X)).all()


@pytest.mark.parametrize(
    "class_weight", [{3: 1.0, 5: 2.0}, {np.int64(3): np.float64(1.0)}, {"cat": 2.0, "pairs": 3.0}, {False: 1.0}]
)
def test_the_weights_of_classes_come_back_under_their_own_labels(class_weight, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.array([3, 5]) if 3 in class_weight else np.array([False, True])
    labels = np.array(["cat", "pairs"]) if "cat" in class_weight else labels
    head = build_head("ridge", class_weight=class_weight).fit(rng.normal(size=(20, 3)), labels[np.arange(20) % 2])
    save_head(head, tmp_path / "head", meta={})
    assert load_head(tmp_path / "head").head.class_weight == class_weight


def test_others_may_read_a_saved_head_as_they_may_read_any_file(tmp_path):
    save_head(fitted("ridge")[0], tmp_path / "head", meta={})
    (tmp_path / "any").touch()
    modes = {path.stat().st_mode for path in [tmp_path / "any", *(tmp_path / "head").iterdir()]}
    assert len(modes) == 1


def test_arrays_are_written_and_read_without_the_whole_file_in_memory(tmp_path, monkeypatch):
    def whole(self, *_):
        raise AssertionError(f"{self.name} as one piece of bytes")

    head, X = fitted("knn")
    monkeypatch.setattr(Path, "write_bytes", whole)
    monkeypatch.setattr(Path, "read_bytes", whole)
    save_head(head, tmp_path / "head", meta={})
    assert (load_head(tmp_path / "head").head.predict(X) == head.predict(X)).all()


def test_an_unfitted_head_is_refused(tmp_path):
    with pytest.raises(SavedHeadError, match="RidgeHead is not fitted"):
        save_head(build_head("ridge"), tmp_path / "head", meta={})


def test_a_missing_head_is_refused(tmp_path):
    with pytest.raises(SavedHeadError, match=r"holds no head\.json"):
        load_head(tmp_path / "nothing")


@pytest.fixture
def root(tmp_path):
    save_head(fitted("ridge")[0], tmp_path / "head", meta={})
    return tmp_path / "head"


def rewrite(root, **changes):
    document = json.loads((root / "head.json").read_text())
    (root / "head.json").write_text(json.dumps(document | changes))


@pytest.mark.parametrize("name", ["head.json", "head.safetensors"])
@pytest.mark.parametrize(
    "damage", [lambda blob: blob[: len(blob) // 2], lambda blob: b"\xff" + blob[1:], lambda _: b""]
)
def test_a_damaged_file_is_refused(root, name, damage):
    path = root / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SavedHeadError, match=r"cannot be read|is damaged"):
        load_head(root)


def test_a_lost_file_is_refused(root):
    (root / "head.safetensors").unlink()
    with pytest.raises(SavedHeadError, match="is not a whole head"):
        load_head(root)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"name": "crystal ball"}, "The head 'crystal ball' is unknown to this version"),
        ({"file": "../../etc/passwd"}, "which no head has"),
        ({"params": {"beta": 1}}, "is not a whole head"),
        ({"learned": {"fit": 1}}, "'fit' is not something a head learns"),
        ({"learned": {"__class__": 1}}, "'__class__' is not something a head learns"),
        ({"sha256": "00"}, "is damaged"),
        ({"name": "foreign"}, "cannot be read"),
        ({"learned": []}, "is not a whole head"),
    ],
)
def test_a_foreign_document_is_refused(root, changes, said):
    rewrite(root, **changes)
    with pytest.raises(SavedHeadError, match=said):
        load_head(root)


def test_a_head_of_types_that_are_not_trusted_is_neither_saved_nor_loaded(tmp_path):
    from hashlib import sha256

    from skops.io import dumps

    head, _ = fitted("sklearn.naive_bayes.GaussianNB")
    save_head(head, tmp_path / "head", meta={})
    head.estimator_.extra = NotTrusted()
    with pytest.raises(SavedHeadError, match="NotTrusted, which is not trusted"):
        save_head(head, tmp_path / "other", meta={})
    blob = dumps(head)
    (tmp_path / "head" / "head.skops").write_bytes(blob)
    rewrite(tmp_path / "head", sha256=sha256(blob).hexdigest())
    with pytest.raises(SavedHeadError, match="NotTrusted, which is not trusted"):
        load_head(tmp_path / "head")


class NotTrusted:
    """Something a stranger might put into a file."""
