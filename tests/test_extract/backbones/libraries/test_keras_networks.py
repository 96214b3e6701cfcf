"""Networks of Keras: their vectors and their transform are Keras's own, their files are read as numbers only."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from featurecache.base.errors import (
    BackboneError,
    UnknownBackbone,
    UnknownLayer,
    UnknownWeights,
    WeightsMismatch,
    WeightsMissing,
)
from featurecache.extract.backbones.libraries import keras_networks
from featurecache.extract.backbones.libraries.keras_names import APPLICATIONS, application_of, keras_transform
from featurecache.extract.backbones.listing import list_library_backbones
from featurecache.extract.backbones.registry import load_backbone, load_network
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.protocol import source_of
from featurecache.extract.images.transform import fit_pixels
from featurecache.extract.job.request import FeatureRequest, resolve

# Keras on torch converts its variables as numpy will not for long.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = 64
MODULES = {
    "VGG16": "vgg16", "ResNet50": "resnet", "MobileNetV2": "mobilenet_v2", "EfficientNetB0": "efficientnet",
    "MobileNetV3Small": "mobilenet_v3", "Xception": "xception",
}  # fmt: skip


@pytest.fixture(scope="session")
def keras(tmp_path_factory):
    """Keras on torch, with a home of its own; CI has it."""
    pytest.importorskip("optree", reason="keras is an extra")
    os.environ.setdefault("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="keras is an extra")


@pytest.fixture(scope="session")
def pixels():
    """Four images with structure, uint8 (4, S, S, 3)."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.uint8)
    for i, image in enumerate(images):
        image[: 16 * i] = random.integers(0, 256, 3)
        image[:, 48:] //= i + 1
    return images


def random_model(keras, name: str, pixels, **arguments):
    """An application with random weights whose batch norms are set by one batch, so that vectors differ."""
    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=pixels.shape[1:], **arguments
    )
    set_norms(keras, model, preprocessed(keras, name, pixels))
    return model


def set_norms(keras, model, images) -> None:
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        with torch.no_grad():
            model(images, training=True)


def preprocessed(keras, name: str, pixels):
    return getattr(keras.applications, MODULES[name]).preprocess_input(pixels.astype(np.float32))


def predicted(model, images) -> np.ndarray:
    return model.predict(images, verbose=0)


def vectors_of(backbone, pixels) -> np.ndarray:
    with torch.inference_mode():
        return backbone.module(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()).numpy()


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.fixture(scope="session")
def vgg16(keras, pixels, tmp_path_factory):
    """A model, what Keras gives for the pixels, and its weights in a file."""
    model = random_model(keras, "VGG16", pixels)
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.weights.h5"
    model.save_weights(path)
    return model, predicted(model, preprocessed(keras, "VGG16", pixels)), path


SLOW = ("ResNet50", "MobileNetV2", "MobileNetV3Small", "Xception")


@pytest.mark.parametrize(
    "name", ["VGG16", "EfficientNetB0", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_a_vector_is_what_keras_predicts_and_averages(keras, pixels, tmp_path, name):
    if name == "Xception":  # takes 71 pixels at least
        pixels = pixels.repeat(2, axis=1).repeat(2, axis=2)
    model = random_model(keras, name, pixels)
    theirs = predicted(model, preprocessed(keras, name, pixels))
    model.save_weights(tmp_path / "random.weights.h5")
    side = pixels.shape[1]
    backbone = load_backbone(f"keras/{name}", weights=str(tmp_path / "random.weights.h5"), size=side)
    assert relative_error(vectors_of(backbone, pixels), theirs) < 1e-4
    assert np.linalg.norm(theirs[0] - theirs[1]) > 1e-2 * np.linalg.norm(theirs[0])
    assert (backbone.source, backbone.feature_dim) == ("keras", theirs.shape[1])
    assert backbone.transform.crop == side


@pytest.mark.slow
def test_both_engines_give_the_same(vgg16, pixels):
    _, theirs, path = vgg16
    backbone = load_backbone("keras/VGG16", weights=str(path), size=SIDE)
    for engine in ("torch", "onnxruntime"):
        built = build_engine(source_of(backbone), engine=engine, batch_size=4)
        vectors = built.run(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())
        assert relative_error(vectors, theirs) < 1e-4


def test_files_of_all_kinds_hold_the_same_weights(keras, vgg16, tmp_path):
    model, _, path = vgg16
    classifier = keras.Sequential([model, keras.layers.Dense(3)])
    keras.Model(model.input, keras.layers.Dense(3)(model.output)).save_weights(tmp_path / "flat.weights.h5")
    classifier.save(tmp_path / "around.keras")
    model.save(tmp_path / "whole.keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("absl.logging.warning", lambda *_: None)
        model.save(tmp_path / "whole.h5")
        classifier.save(tmp_path / "around.h5")
    digest = load_backbone("keras/VGG16", weights=str(path), size=SIDE).weights_digest
    notes = {}
    for file in sorted(tmp_path.iterdir()):
        loaded = load_backbone("keras/VGG16", weights=str(file), size=SIDE)
        assert loaded.weights_digest == digest, file.name
        notes[file.name] = loaded.note
    assert notes["whole.keras"] == notes["whole.h5"] == ""
    assert notes["around.h5"] == "Weights of keras/VGG16: 26 tensors below 'vgg16' of around.h5; not used: 'dense' (2)"
    assert "26 tensors below 'functional' of around.keras; not used: 'dense" in notes["around.keras"]


@pytest.mark.slow
def test_an_efficientnet_of_published_weights_is_scaled_as_keras_scales_it(keras, pixels, tmp_path, monkeypatch):
    published = tmp_path / application_of("keras/EfficientNetB0").file_name
    images = preprocessed(keras, "EfficientNetB0", pixels)
    plain = random_model(keras, "EfficientNetB0", pixels)
    monkeypatch.setattr("absl.logging.warning", lambda *_: None)
    plain.save(published)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(published))
    model = keras.applications.EfficientNetB0(include_top=False, pooling="avg", input_shape=(SIDE, SIDE, 3))
    set_norms(keras, model, images)
    theirs = predicted(model, images)
    model.save_weights(tmp_path / "tuned.weights.h5")
    model.save(tmp_path / "tuned.keras")
    plain.load_weights(tmp_path / "tuned.weights.h5")
    plain.save(published)
    for name in (published.name, "tuned.weights.h5", "tuned.keras"):
        backbone = load_backbone("keras/EfficientNetB0", weights=str(tmp_path / name), size=SIDE)
        assert relative_error(vectors_of(backbone, pixels), theirs) < 1e-4, name
        assert backbone.network.endswith('"scaled": "imagenet"}')


def test_layers_have_the_names_of_keras(keras, vgg16, pixels):
    model, _, path = vgg16
    part = keras.Model(model.input, model.get_layer("block4_conv3").output)
    theirs = predicted(part, preprocessed(keras, "VGG16", pixels)).mean((1, 2))
    backbone = load_backbone("keras/VGG16", weights=str(path), layer="block4_conv3", size=SIDE)
    assert relative_error(vectors_of(backbone, pixels), theirs) < 1e-4
    stages = load_backbone("keras/VGG16", weights=str(path), layer="stages", size=SIDE)
    assert stages.layer == "stages:block2_conv2+block3_conv3+block4_conv3+block5_conv3+block5_pool"
    with pytest.raises(UnknownLayer, match="nearest: block4_conv3"):
        load_backbone("keras/VGG16", weights=str(path), layer="block4_conv9", size=SIDE)


def test_an_image_is_resized_as_load_img_does(keras, tmp_path):
    random = np.random.default_rng(1)
    for height, width, side in [(37, 53, 32), (265, 88, 260), (322, 410, 299), (304, 513, 600), (64, 64, 64)]:
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "image.png")
        theirs = keras.utils.img_to_array(keras.utils.load_img(tmp_path / "image.png", target_size=(side, side)))
        spec = keras_transform(application_of("keras/VGG16")._replace(side=side))
        ours = fit_pixels(np.ascontiguousarray(image.transpose(2, 0, 1)), spec).transpose(1, 2, 0)
        assert (ours == theirs).all()


def test_values_are_preprocessed_as_keras_does(keras, pixels):
    for application in APPLICATIONS:
        module = next((m for n, m in MODULES.items() if n == application.name), None)
        if module is None:
            continue
        theirs = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32))
        spec = keras_transform(application)
        ours = (pixels / 255 - np.array(spec.mean)) / np.array(spec.std)
        assert np.allclose(ours[..., ::-1] if application.mode == "caffe" else ours, theirs, atol=1e-4)


def test_the_key_holds_what_determines_the_vectors(vgg16):
    _, _, path = vgg16
    backbone = load_backbone("keras/VGG16", weights=str(path), size=SIDE)
    spec = resolve(FeatureRequest("keras/VGG16", weights=str(path), size=SIDE), backbone).spec
    assert spec.network == '{"application": "VGG16", "channels": "BGR"}'
    assert (spec.transform.fit, spec.transform.interpolation) == ("squash", "nearest-pillow")
    assert spec.folder_name.startswith("keras_VGG16-")


@pytest.mark.parametrize(
    ("backbone", "weights", "kind", "sentence"),
    [
        ("keras/vgg16", None, UnknownBackbone, "Did you mean keras/VGG16 or"),
        ("keras/ConvNeXtTiny", None, UnknownBackbone, "timm has both"),
        ("keras/VGG16", "IMAGENET1K_V1", UnknownWeights, "it has IMAGENET"),
        ("keras/VGG16", "file.pth", UnknownWeights, "no file of Keras"),
        ("keras/VGG16", "text.h5", WeightsMismatch, "is not a weights file of Keras, or is damaged"),
        ("keras/VGG16", "empty.h5", WeightsMismatch, "holds no layers of Keras"),
        ("keras/VGG16", "bare.keras", WeightsMismatch, "has no model.weights.h5 in it"),
        ("keras/VGG16", "packed.keras", WeightsMismatch, "is packed"),
        ("keras/VGG19", "vgg16", WeightsMismatch, r"block3_conv4.layer.weight' \(256, 256, 3, 3\) is missing"),
        ("keras/VGG16", "linked.h5", WeightsMismatch, "is missing from the file"),
        ("keras/VGG16", "outside.weights.h5", WeightsMismatch, "which are no weights of a network"),
    ],
)
def test_what_is_no_weights_of_the_network_is_refused_in_a_sentence(vgg16, tmp_path, backbone, weights, kind, sentence):
    path = vgg16[2]
    (tmp_path / "file.pth").touch()
    (tmp_path / "text.h5").write_text("no HDF5")
    h5py.File(tmp_path / "empty.h5", "w").close()
    for name, member, packing in (
        ("bare.keras", "config.json", zipfile.ZIP_STORED),
        ("packed.keras", "model.weights.h5", zipfile.ZIP_DEFLATED),
    ):
        with zipfile.ZipFile(tmp_path / name, "w", packing) as archive:
            archive.writestr(member, "{}")
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file.attrs["layer_names"] = ["block1_conv1", "block1_conv2"]
        file["block1_conv1"] = h5py.ExternalLink(path, "/layers/conv2d")
        file.create_group("block1_conv2").attrs["weight_names"] = ["kernel"]
        file["block1_conv2/kernel"] = np.zeros((3, 3, 64, 64), np.float32)
    if weights == "outside.weights.h5":
        (tmp_path / weights).write_bytes(path.read_bytes())
        (tmp_path / "secret").write_bytes(bytes(9000))
        with h5py.File(tmp_path / weights, "r+") as file:
            del file["layers/conv2d/vars/0"]
            file["layers/conv2d/vars"].create_dataset(
                "0", (3, 3, 3, 64), np.float32, external=[(str(tmp_path / "secret"), 0, 6912)]
            )
    named = weights and str(path if weights == "vgg16" else tmp_path / weights)
    with pytest.raises(kind, match=sentence):
        load_backbone(backbone, weights=named, size=SIDE)


def test_an_input_that_is_too_small_is_named(vgg16):
    with pytest.raises(BackboneError, match="does not build keras/VGG16 for images of 16 x 16 pixels"):
        load_backbone("keras/VGG16", weights=str(vgg16[2]), size=16)


def test_published_weights_that_cannot_be_fetched_are_named(keras, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def offline(**_):
        raise Exception("URL fetch failure on https://storage: None -- no network")

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    with pytest.raises(WeightsMissing, match=r"needs vgg16_weights\w+\.h5, which is not in .*\(no network\)"):
        load_network("keras/VGG16")


def test_without_keras_the_extra_is_named(monkeypatch, tmp_path):
    for name in [each for each in sys.modules if each.partition(".")[0] == "keras"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    h5py.File(tmp_path / "some.h5", "w").close()
    with pytest.raises(BackboneError, match=r"pip install 'featurecache\[keras\]'"):
        load_backbone("keras/VGG16", weights=str(tmp_path / "some.h5"))


def test_another_backend_of_keras_is_named(monkeypatch):
    for name in [each for each in sys.modules if each.partition(".")[0] == "keras"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(BackboneError, match="KERAS_BACKEND is 'jax': set it to torch, or unset it"):
        keras_networks.build_keras("keras/VGG16")


def test_it_is_listed_with_its_licence(keras, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / application_of("keras/VGG16").file_name).touch()
    listed = {info.name: info for info in list_library_backbones() if info.source == "keras"}
    assert len(listed) == len(APPLICATIONS)
    assert [name for name, info in listed.items() if info.at_hand] == ["keras/VGG16"]
    assert listed["keras/VGG16"].license == "CC-BY-4.0"


def test_keras_is_not_needed_to_know_where_weights_are(monkeypatch):
    monkeypatch.setenv("KERAS_HOME", "/nowhere")
    assert application_of("keras/ResNet50").path == Path(
        "/nowhere/models/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    )
