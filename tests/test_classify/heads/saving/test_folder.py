import io
import json
import tracemalloc
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import sklearn
from skops.io import dumps

from featurecache.base.errors import SavedHeadError
from featurecache.classify.heads.saving.folder import load_head, load_meta, save_head
from featurecache.classify.heads.table import HEADS, build_head

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


def test_saving_a_head_with_many_rows_takes_a_part_of_their_memory(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 200)).astype(np.float32)  # 16 MB, compared 4,096 rows at a time
    head = build_head("knn").fit(X, np.arange(len(X)) % 3)
    save_head(head, tmp_path / "first", meta={})  # imports
    tracemalloc.start()
    try:
        save_head(head, tmp_path / "head", meta={})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * head.rows_.nbytes
    assert (load_head(tmp_path / "head").head.rows_ == head.rows_).all()


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
    with pytest.raises(SavedHeadError, match="is not a complete head"):
        load_head(root)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 3}, "has format 3, this version reads 1 and 2"),
        ({"name": "crystal ball"}, "The head 'crystal ball' is unknown to this version"),
        ({"file": "../../etc/passwd"}, "which no such head has"),
        ({"params": {"beta": 1}}, "is not a complete head"),
        ({"learned": {"fit": 1}}, "'fit' is not something a head learns"),
        ({"learned": {"__class__": 1}}, "'__class__' is not something a head learns"),
        ({"sha256": "00"}, "is damaged"),
        ({"name": "foreign"}, "which no such head has"),
        ({"learned": []}, "is not a complete head"),
    ],
)
def test_a_foreign_document_is_refused(root, changes, said):
    rewrite(root, **changes)
    with pytest.raises(SavedHeadError, match=said):
        load_head(root)


def test_a_head_of_types_that_are_not_trusted_is_neither_saved_nor_loaded(tmp_path):
    head, _ = fitted("sklearn.naive_bayes.GaussianNB")
    save_head(head, tmp_path / "head", meta={})
    head.estimator_.extra = NotTrusted()
    with pytest.raises(SavedHeadError, match=r"GaussianNB cannot be saved, for its file holds .*NotTrusted"):
        save_head(head, tmp_path / "other", meta={})
    blob = dumps(head.estimator_)
    (tmp_path / "head" / "head.skops").write_bytes(blob)
    rewrite(tmp_path / "head", sha256=sha256(blob).hexdigest())
    with pytest.raises(SavedHeadError, match=r"head\.skops holds .*NotTrusted .*, and is not loaded"):
        load_head(tmp_path / "head")


class NotTrusted:
    """Something a stranger might put into a file."""


@pytest.mark.parametrize("name", ["ridge", "sklearn.naive_bayes.GaussianNB"])
def test_the_versions_of_libraries_are_saved_and_nothing_of_our_modules(name, tmp_path):
    save_head(fitted(name)[0], tmp_path / "head", meta={})
    document = json.loads((tmp_path / "head" / "head.json").read_text())
    assert list(document["versions"]) == ["featurecache", "numpy", "scikit-learn", "scipy", "safetensors", "skops"]
    assert document["versions"]["scikit-learn"] == sklearn.__version__
    for path in (tmp_path / "head").iterdir():
        assert b"classify" not in path.read_bytes()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_head_of_another_scikit_learn_is_loaded_with_a_note(wrapped, tmp_path):
    head, X = fitted("sklearn.naive_bayes.GaussianNB")
    root = tmp_path / "head"
    save_head(head, root, meta={})
    assert load_head(root).notes == ()
    rewrite_skops(root, head if wrapped else head.estimator_, lambda text: text.replace(sklearn.__version__, "1.2.3"))
    rewrite(root, format=1 if wrapped else 2)
    loaded = load_head(root)
    (note,) = loaded.notes
    assert note.startswith(f"The head GaussianNB was saved by scikit-learn 1.2.3 and is used by {sklearn.__version__}")
    assert (loaded.head.predict_proba(X) == head.predict_proba(X)).all()


def rewrite_skops(root, saved, change):
    """Save an object as head.skops, with another text for the schema, in which our modules are as they once were."""
    with zipfile.ZipFile(io.BytesIO(dumps(saved))) as file, zipfile.ZipFile(root / "head.skops", "w") as other:
        for name in file.namelist():
            blob = file.read(name)
            as_it_was = blob.replace(b'"featurecache.classify.heads.sklearn_head"', b'"classify.foreign"')
            other.writestr(name, change(as_it_was.decode()) if name == "schema.json" else blob)
    rewrite(root, sha256=sha256((root / "head.skops").read_bytes()).hexdigest())


@pytest.mark.parametrize("name", FOREIGN)
def test_a_head_of_format_1_holds_a_whole_foreign_head_and_is_read(name, tmp_path):
    head, X = fitted(name)
    head.set_params(temperature=0.5)
    save_head(head, tmp_path / "head", meta={"run": 1})
    ours = f'"{type(head).__module__}"'
    rewrite_skops(tmp_path / "head", head, lambda text: text.replace(ours, '"classify.foreign"'))
    rewrite(tmp_path / "head", format=1, params={}, learned={})
    loaded = load_head(tmp_path / "head")
    assert loaded.meta == {"run": 1}
    assert (loaded.head.predict_proba(X) == head.predict_proba(X)).all()
    assert loaded.head.temperature == 0.5
    assert loaded.head.converged_ is head.converged_


def test_a_head_that_would_not_come_back_as_it_is_is_not_saved(tmp_path):
    head, _ = fitted("sklearn.naive_bayes.GaussianNB")
    # skops makes keys of JSON into truth values: "false" is true.
    head.estimator_.extra = {False: 1.0}
    with pytest.raises(SavedHeadError, match=r"ForeignHead cannot be saved: its estimator_\.extra comes"):
        save_head(head, tmp_path / "head", meta={})
    assert list(tmp_path.iterdir()) == []


def test_a_head_whose_file_was_not_written_whole_is_not_saved(tmp_path, monkeypatch):
    import safetensors.numpy

    whole = safetensors.numpy.save_file

    def rounded(arrays, path):
        whole({key: value.astype(np.float16) for key, value in arrays.items()}, path)

    monkeypatch.setattr(safetensors.numpy, "save_file", rounded)
    with pytest.raises(SavedHeadError, match=r"RidgeHead cannot be saved: its (coef_|intercept_) comes"):
        save_head(fitted("ridge")[0], tmp_path / "head", meta={})
    assert list(tmp_path.iterdir()) == []


def test_the_meta_is_read_without_the_head(tmp_path):
    save_head(fitted("ridge")[0], tmp_path / "head", meta={"run": 1})
    (tmp_path / "head" / "head.safetensors").unlink()
    assert load_meta(tmp_path / "head") == {"run": 1}
    rewrite(tmp_path / "head", meta=[])
    with pytest.raises(SavedHeadError, match="it has no meta"):
        load_meta(tmp_path / "head")
