"""The applications of Keras: their names, inputs and published weights, without importing Keras.

The weights of ImageNet are without the last layers, as Keras publishes and downloads them, in `~/.keras/models`.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import NamedTuple

from featurecache.base.errors import UnknownBackbone
from featurecache.base.text import printable
from featurecache.extract.backbones.names import KERAS_START
from featurecache.extract.cache.transform_spec import NEAREST_PILLOW, SQUASH, TransformSpec

# Licences of the weights, as Keras states them; it states none of the newer networks.
APACHE, BSD, CREATIVE_COMMONS, MIT, UNSTATED = "Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "MIT", ""
N_NEIGHBOURS = 3
# Networks of Keras whose layers are nested or that do not run on torch; timm has both.
UNREAD = ("ConvNeXt", "NASNet")
IMAGENET = "IMAGENET"
SOURCE = "https://keras.io/api/applications"

# What `preprocess_input` does to values of 0 to 255, as mean and standard deviation of values of 0 to 1, red first.
CAFFE, SIGNED, STANDARD, NONE = "caffe", "tf", "torch", "none"
MODES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    CAFFE: ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3),
    SIGNED: ((0.5,) * 3, (0.5,) * 3),
    STANDARD: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    NONE: ((0.0,) * 3, (1 / 255,) * 3),
}


class Application(NamedTuple):
    """A network of `keras.applications`. side: of its input. mode: of its `preprocess_input`. file_name: of weights."""

    name: str
    side: int
    mode: str
    file_name: str
    licence: str = UNSTATED

    @property
    def is_scaled(self) -> bool:
        """Whether the published weights need a layer more, which Keras adds for them alone."""
        return self.name.startswith("EfficientNetB")

    @property
    def path(self) -> Path:
        """The file of the published weights on this machine, if it was downloaded."""
        return keras_home() / "models" / self.file_name


def _tf(start: str) -> str:
    return f"{start}_weights_tf_dim_ordering_tf_kernels_notop.h5"


APPLICATIONS = (
    *(Application(f"DenseNet{n}", 224, STANDARD, _tf(f"densenet{n}"), BSD) for n in (121, 169, 201)),
    *(Application(f"EfficientNetB{n}", side, NONE, f"efficientnetb{n}_notop.h5")
      for n, side in enumerate((224, 240, 260, 300, 380, 456, 528, 600))),
    *(Application(f"EfficientNetV2{size}", side, NONE, f"efficientnetv2-{size.lower()}_notop.h5")
      for size, side in (("B0", 224), ("B1", 240), ("B2", 260), ("B3", 300), ("L", 480), ("M", 480), ("S", 384))),
    Application("InceptionResNetV2", 299, SIGNED, _tf("inception_resnet_v2"), APACHE),
    Application("InceptionV3", 299, SIGNED, _tf("inception_v3"), APACHE),
    Application("MobileNet", 224, SIGNED, "mobilenet_1_0_224_tf_no_top.h5", APACHE),
    Application(
        "MobileNetV2", 224, SIGNED, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", APACHE
    ),
    Application("MobileNetV3Large", 224, NONE, "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"),
    Application("MobileNetV3Small", 224, NONE, "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"),
    *(Application(f"ResNet{n}", 224, CAFFE, _tf(f"resnet{n}"), MIT) for n in (50, 101, 152)),
    *(Application(f"ResNet{n}V2", 224, SIGNED, _tf(f"resnet{n}v2")) for n in (50, 101, 152)),
    Application("VGG16", 224, CAFFE, _tf("vgg16"), CREATIVE_COMMONS),
    Application("VGG19", 224, CAFFE, _tf("vgg19"), CREATIVE_COMMONS),
    Application("Xception", 299, SIGNED, _tf("xception"), MIT),
)  # fmt: skip
BY_NAME = {each.name: each for each in APPLICATIONS}


def keras_home() -> Path:
    """Return the folder of Keras, by its own rules."""
    named = os.environ.get("KERAS_HOME")
    return Path(named if named is not None else "~/.keras").expanduser()


def application_of(backbone: str) -> Application:
    """Return the application that a name of a backbone means. Raises UnknownBackbone with the nearest names."""
    name = backbone.removeprefix(KERAS_START)
    found = BY_NAME.get(name)
    if found is None and name.startswith(UNREAD):
        raise UnknownBackbone(
            f"The {' and '.join(UNREAD)} networks of Keras are not read here. timm has both: `featurecache backbones "
            "timm/` lists its networks."
        )
    if found is None:
        spelled = {each.lower(): each for each in BY_NAME}
        near = [spelled[each] for each in difflib.get_close_matches(name.lower(), spelled, N_NEIGHBOURS, cutoff=0.5)]
        hint = f"Did you mean {' or '.join(f'{KERAS_START}{each}' for each in near)}?" if near else "It has VGG16."
        raise UnknownBackbone(
            f"Of Keras there is no '{printable(name)}'. {hint} `featurecache backbones keras/` lists them."
        )
    return found


def keras_transform(application: Application) -> TransformSpec:
    """Return what `load_img(path, target_size=...)` and `preprocess_input` do to an image.

    Keras resizes both sides to the input of the network, by the nearest pixel unless it is asked for more.
    """
    mean, std = MODES[application.mode]
    side = application.side
    return TransformSpec(side, side, NEAREST_PILLOW, False, mean, std, fit=SQUASH)
