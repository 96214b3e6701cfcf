"""Networks of timm: from its table of names, or from a folder as timm writes them; never by pickle.

    registered(NAME.TAG)        TimmConfig, by timm's table
    from_folder(config.json)    TimmConfig, by the file: architecture, model_args, pretrained_cfg
    build_timm                  the network without its last layer, for shapes or with tensors

Tensors are given to timm as a state dict, so timm's own conversions apply: names of other libraries, and position
embeddings, which are interpolated for another side of the input.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from featurecache.base.errors import BackboneError, UnknownBackbone, UnknownWeights, WeightsMismatch
from featurecache.base.plain_files import read_json_file
from featurecache.base.text import printable
from featurecache.extract.backbones.architectures import Family, Network, Whole, is_initialiser
from featurecache.extract.backbones.libraries.definitions import no_timm
from featurecache.extract.backbones.libraries.timm_mismatch import first_difference
from featurecache.extract.backbones.listing import N_NEIGHBOURS
from featurecache.extract.backbones.names import TIMM_START

# Fields of a configuration that say where weights are: which file is read is not for a file to decide.
PLACES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load")
MOST_CONFIG_BYTES = 16 << 20  # 21,000 class names with descriptions have two
NO_LAST_LAYER = "no last layer"
# Arguments that timm's builders take out of those of an architecture; they make another kind of network of it.
OF_BUILDING = {"features_only", "out_indices", "feature_cls", "pruned"}


@dataclass(frozen=True)
class TimmConfig:
    """How timm builds a network and prepares its images.

    pretrained: timm's `pretrained_cfg` as plain values. arguments: those of the architecture, besides.
    """

    architecture: str
    pretrained: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The names of the last layers."""
        named = self.pretrained.get("classifier") or ()
        return (named,) if isinstance(named, str) else tuple(named)


def timm_library(backbone: str) -> Any:
    """Return timm. Raises BackboneError, with the extra, where it is not installed."""
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise no_timm(backbone) from error
    return timm


def registered(backbone: str) -> TimmConfig:
    """Return what timm's table has for `timm/NAME.TAG`; without a tag its default.

    Raises UnknownBackbone with the nearest names, UnknownWeights with the tags.
    """
    timm = timm_library(backbone)
    name = backbone.removeprefix(TIMM_START)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), N_NEIGHBOURS, cutoff=0.5)
        hint = f"Did you mean {' or '.join(f'timm/{each}' for each in near)}?" if near else "It has hundreds."
        raise UnknownBackbone(
            f"timm has no network '{printable(architecture)}'. {hint} `featurecache backbones timm/` lists them."
        )
    try:
        found = timm.get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag
        found = None
    if found is None:
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
        known = f"it has {', '.join(tags)}" if tags else "timm has none of it"
        raise UnknownWeights(f"There are no weights '{printable(tag)}' of timm/{architecture}: {known}.")
    return TimmConfig(architecture, found.to_dict())


def from_folder(path: Path, backbone: str) -> TimmConfig:
    """Return what a config.json, written by timm, says. Raises UnknownBackbone, WeightsMismatch."""
    timm = timm_library(backbone)
    try:
        file = path.resolve()  # the hub's cache has links
        values = read_json_file(file, file.parent, most_bytes=MOST_CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise WeightsMismatch(f"'{printable(path)}' cannot be read as JSON: {error}.") from error
    if not isinstance(values, dict) or not isinstance(values.get("architecture"), str):
        raise WeightsMismatch(
            f"'{printable(path)}' names no architecture of timm. A folder of another library is not read; timm has its "
            "own copies of most networks, which `featurecache backbones timm/` lists."
        )
    architecture = values["architecture"]
    if not timm.is_model(architecture):
        raise UnknownBackbone(
            f"'{printable(path)}' is for '{printable(architecture)}', which this version of timm does not have."
        )
    nested = values.get("pretrained_cfg", values)
    known = set(inspect.signature(timm.models.PretrainedCfg).parameters) - set(PLACES)
    entries = nested.items() if isinstance(nested, dict) else ()
    pretrained = {name: tuple(v) if isinstance(v, list) else v for name, v in entries if name in known}
    if type(values.get("num_classes")) is int:
        pretrained["num_classes"] = values["num_classes"]
    _check_classifiers(path, pretrained)
    arguments = _arguments(timm, path, values.get("model_args") or {})
    return TimmConfig(architecture, {**pretrained, "architecture": architecture}, arguments)


def _arguments(timm: Any, path: Path, arguments: Any) -> dict[str, Any]:
    """Return the arguments of an architecture in a file. Raises WeightsMismatch.

    timm takes its own arguments from the same place: some name files and addresses of other weights.
    """
    if not isinstance(arguments, dict):
        raise WeightsMismatch(f"'{printable(path)}' has model_args that are no object. Save the network again by timm.")
    builders = (timm.create_model, timm.models.build_model_with_cfg)
    own = {name for builder in builders for name in inspect.signature(builder).parameters} | OF_BUILDING
    wrong = [name for name in arguments if name in own or name.startswith("pretrained")]
    if wrong:
        raise WeightsMismatch(
            f"'{printable(path)}' has '{printable(wrong[0])}' among its model_args, which is no argument of an "
            "architecture and could lead to other files. Remove it."
        )
    return dict(arguments)


def _check_classifiers(path: Path, pretrained: Mapping[str, Any]) -> None:
    named = pretrained.get("classifier") or ()
    if not all(isinstance(name, str) for name in (named if isinstance(named, tuple) else (named,))):
        raise WeightsMismatch(f"'{printable(path)}' has a classifier that is no name of a layer. Correct it.")


def build_timm(
    backbone: str,
    config: TimmConfig,
    *,
    size: int | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    has_last_layers: bool = False,
) -> Network:
    """Build a network without its last layers, in eval mode; without tensors its values mean nothing.

    size: side of the input; of a network with position embeddings for one size these are interpolated.
    tensors: a whole state dict, by the names of the file. Raises BackboneError, WeightsMismatch.
    """
    timm = timm_library(backbone)
    pretrained = {name: value for name, value in config.pretrained.items() if name not in PLACES}
    arguments = dict(config.arguments)
    if size is not None and pretrained.get("fixed_input_size"):
        arguments["img_size"] = size
    if tensors is not None:
        pretrained["state_dict"] = dict(tensors)
    try:
        with _Unfilled(tensors is not None), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = timm.create_model(
                config.architecture, pretrained=tensors is not None, pretrained_cfg=pretrained, **arguments
            )
    except MemoryError:
        raise
    except Exception as error:
        raise _not_built(backbone, config, size, tensors, error) from error
    for kept in (module.pretrained_cfg, module.default_cfg):
        kept.pop("state_dict", None)
    whole = _whole(module)
    definition = {"architecture": config.architecture, "arguments": dict(config.arguments), "pooling": whole.pooling}
    last_layers = _last_layers(module, config)
    if not has_last_layers:
        _remove(module, last_layers)
    module.eval().requires_grad_(False)
    _check_filled(backbone, module, tensors)
    last, *others = last_layers or [NO_LAST_LAYER]
    family = Family(last, "", "", ignored=tuple(f"{name}." for name in others))
    return Network(module, family, whole=whole, definition=json.dumps(definition, sort_keys=True))


def _whole(module: Any) -> Whole:
    """Return what timm says of a network: its pooling, prefix tokens and stages."""
    if "pre_logits" not in inspect.signature(module.forward_head).parameters:
        raise BackboneError(
            f"The network {type(module).__name__} of timm does not separate its features from its head."
        )
    n_prefix = int(getattr(module, "num_prefix_tokens", 0) or 0)
    has_class_token = getattr(module, "cls_token", None) is not None
    n_prefix = max(n_prefix, int(has_class_token))
    pooling = getattr(module, "global_pool", None)
    names = {path for path, _ in module.named_modules()}
    stages = [str(each.get("module", "")) for each in getattr(module, "feature_info", None) or ()]
    return Whole(
        has_head=True,
        pooling=pooling if isinstance(pooling, str) and pooling else "own",
        tokens="cls" if pooling == "token" and has_class_token else "avg",
        n_prefix=n_prefix,
        has_class_token=has_class_token,
        stages=tuple(dict.fromkeys(stage for stage in stages if stage in names)),
    )


def _last_layers(module: Any, config: TimmConfig) -> list[str]:
    """Return the names of the last layers, whose tensors no vector depends on, as far as the network has them so.

    A file may name any layer as its classifier.
    """
    own = module.get_classifier() if hasattr(module, "get_classifier") else ()
    own = own if isinstance(own, tuple | list) else (own,)
    found = []
    for name in config.classifiers:
        try:
            layer = module.get_submodule(name)
        except AttributeError:
            layer = None
        is_last = any(layer is each for each in own)
        if layer is None or is_last or isinstance(layer, nn.Linear | nn.Conv2d | nn.Identity):
            found.append(name)
    return found


def _remove(module: nn.Module, last_layers: Sequence[str]) -> None:
    """Replace those of the last layers that are linear."""
    for name in last_layers:
        with contextlib.suppress(AttributeError):
            if isinstance(module.get_submodule(name), nn.Linear | nn.Conv2d):
                module.set_submodule(name, nn.Identity())


def _check_filled(backbone: str, module: nn.Module, tensors: Mapping[str, Tensor] | None) -> None:
    if tensors is None:
        return
    for name, parameter in module.named_parameters():
        if bool(parameter.isnan().any()):
            raise WeightsMismatch(f"The weights of {printable(backbone)} have no '{name}', or NaN in it.")


def _not_built(
    backbone: str, config: TimmConfig, size: int | None, tensors: Mapping[str, Tensor] | None, error: Exception
) -> BackboneError:
    cut = printable(" ".join(str(error).split())[:160]) or type(error).__name__
    reason = first_difference(str(error), config.classifiers) or cut
    if size is not None:
        return BackboneError(
            f"{printable(backbone)} does not take images of {size} x {size} pixels ({reason}). Choose "
            "another --size, or leave it out."
        )
    if tensors is not None:
        return WeightsMismatch(f"The weights of {printable(backbone)} are not those of its network: {reason}.")
    return BackboneError(f"timm cannot build {printable(backbone)}: {reason}.")


class _Unfilled(TorchFunctionMode):
    """Create parameters without drawing their values; with `is_marked` they are NaN until tensors replace them."""

    def __init__(self, is_marked: bool) -> None:
        super().__init__()
        self.is_marked = is_marked

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensor = args[0] if args else kwargs.get("tensor")
        if not is_initialiser(func) or not isinstance(tensor, nn.Parameter):
            return func(*args, **kwargs)
        if self.is_marked and tensor.is_floating_point():
            with torch._C.DisableTorchFunction(), torch.no_grad():
                tensor.fill_(float("nan"))
        return tensor
