"""Cutting of networks that are run as they are: those of timm, and those of the user.

Tracing the operations of any network fails for some; running it does not. Layers are modules, by the names that
`named_modules` has, and their outputs are taken by hooks while the network runs. Two more layers have names:

    forward_features    the last feature map or the last tokens; of networks of timm
    pre_logits          the input of the last layer, by the network's own pooling; `output` of a network of the user

The layer `stages` is that of `cutting.py`, over the modules that timm names in `feature_info`.
"""

from __future__ import annotations

import copy
import difflib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featurecache.base.errors import BackboneError, UnknownLayer
from featurecache.base.text import printable
from featurecache.extract.backbones.architectures import PROBE_ROWS, Whole, output_on_meta
from featurecache.extract.backbones.cuts import (
    CLASS_TOKEN,
    STAGES,
    Cut,
    CutNetwork,
    CutRequest,
    FeatureExtractor,
    check_output,
    is_channels_last,
    stage_ends,
)
from featurecache.extract.backbones.listing import N_NEIGHBOURS
from featurecache.extract.backbones.pooling import Pooling
from featurecache.extract.cache.transform_spec import TransformSpec

LAST_MAP, PRE_LOGITS, OUTPUT = "forward_features", "pre_logits", "output"

Take = Callable[[str, Any], None]


def cut_whole(
    name: str, module: nn.Module, whole: Whole, transform: TransformSpec, requests: Sequence[CutRequest]
) -> CutNetwork:
    """Cut a network at every requested layer and pool the outputs. Raises UnknownLayer or BackboneError."""
    places = [_places(name, module, whole, each) for each in requests]
    outputs = _outputs(name, module, whole, transform, dict.fromkeys(place for each in places for place in each))
    pools: list[tuple[str, Pooling]] = []
    cuts, width = [], 0
    for request, candidates in zip(requests, places, strict=True):
        start, kinds = width, []
        chosen = _chosen(candidates, outputs, whole)
        for place in chosen:
            check_output(name, place, outputs[place])
            kinds.append(_kind(name, place, outputs[place], whole, request))
            pool = Pooling(kinds[-1], channels_last=is_channels_last(outputs[place]), n_prefix=whole.n_prefix)
            width += pool(outputs[place]).shape[1]
            pools.append((place, pool))
        layer = f"{STAGES}:{'+'.join(chosen)}" if request.layer == STAGES else chosen[0]
        is_own = chosen[0] == PRE_LOGITS and outputs[PRE_LOGITS].ndim == 2
        cuts.append(Cut(layer, whole.pooling if is_own else kinds[0], width - start, start))
    taken = FeatureExtractor(TakenOutputs(module, whole, pools), transform).eval().requires_grad_(False)
    return CutNetwork(taken, tuple(cuts))


class TakenOutputs(nn.Module):
    """The pooled outputs of layers of a network that is run as it is: normalised images (B, 3, S, S) -> (B, D).

    pools: for each block of columns the layer and its pooling. is_tapped: whether outputs of modules are taken, which
    must then stay what they are when batch norms are folded.
    """

    def __init__(self, network: nn.Module, whole: Whole, pools: Sequence[tuple[str, Pooling]]) -> None:
        super().__init__()
        self.network = network
        self.whole = whole
        self.places = [place for place, _ in pools]
        self.pools = nn.ModuleList(pool for _, pool in pools)
        self.is_tapped = any(place not in (LAST_MAP, PRE_LOGITS, OUTPUT) for place in self.places)

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled outputs next to each other. The output of a layer may be overwritten by the next one."""
        pieces: dict[int, Tensor] = {}

        def take(place: str, output: Any) -> None:
            for i, (wanted, pool) in enumerate(zip(self.places, self.pools, strict=True)):
                if wanted == place:
                    pieces[i] = pool(output).clone() if self.is_tapped else pool(output)

        run_taking(self.network, self.whole, images, dict.fromkeys(self.places), take)
        parts = [pieces[i] for i in range(len(self.places))]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def run_taking(network: nn.Module, whole: Whole, images: Tensor, places: Iterable[str], take: Take) -> None:
    """Run a network and call `take` with every one of these layers and its output, as soon as it is computed.

    Hooks of another thread that runs the same network at the same time are not called for this run.
    """
    ours = threading.get_ident()
    ends = {PRE_LOGITS, LAST_MAP} if whole.has_head else {OUTPUT}

    def hook_of(place: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if threading.get_ident() == ours:
                take(place, output)

        return hook

    modules = [(place, network.get_submodule(place)) for place in places if place not in ends]
    hooks = [module.register_forward_hook(hook_of(place)) for place, module in modules]
    runner: Any = network
    try:
        if not whole.has_head:
            output = runner(images)
            if OUTPUT in places:
                take(OUTPUT, output)
            return
        maps = runner.forward_features(images)
        if LAST_MAP in places:
            take(LAST_MAP, maps)
        if PRE_LOGITS in places:
            take(PRE_LOGITS, runner.forward_head(maps, pre_logits=True))
    finally:
        for each in hooks:
            each.remove()


class _Outputs(nn.Module):
    """The outputs of layers as they are: images (B, 3, S, S) -> {layer: output}."""

    def __init__(self, network: nn.Module, whole: Whole, places: Iterable[str]) -> None:
        super().__init__()
        self.network, self.whole, self.places = network, whole, list(places)

    def forward(self, images: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {}
        run_taking(self.network, self.whole, images, self.places, found.__setitem__)
        return found


def _outputs(
    name: str, module: nn.Module, whole: Whole, transform: TransformSpec, places: Iterable[str]
) -> dict[str, Any]:
    """Return the outputs of layers for two images: shapes only, or values where the network cannot do without.

    A copy is run: networks keep what they have computed once, and some share modules. Raises BackboneError.
    """
    probe = FeatureExtractor(_Outputs(copy.deepcopy(module), whole, places), transform).eval()
    try:
        return dict(output_on_meta(probe, transform.crop))
    except Exception:  # noqa: BLE001 (code of any library; the run that follows shows whether it is the side)
        probe = FeatureExtractor(_Outputs(copy.deepcopy(module), whole, places), transform).eval()
        images = torch.zeros((PROBE_ROWS, 3, transform.crop, transform.crop), dtype=torch.uint8)
    try:
        with torch.inference_mode():
            return dict(probe(images))
    except Exception as error:
        raise BackboneError(
            f"{printable(name)} does not take images of {transform.crop} x {transform.crop} pixels "
            f"({type(error).__name__}). Choose another --size, or leave it out."
        ) from error


def _places(name: str, module: nn.Module, whole: Whole, request: CutRequest) -> list[str]:
    """Return the layers that a request may take, in execution order, the end of the network last."""
    end = OUTPUT if not whole.has_head else LAST_MAP if request.pooling else PRE_LOGITS
    if request.layer is None:
        return [end]
    if request.layer == STAGES:
        if not whole.stages:
            raise BackboneError(f"{printable(name)} names no stages. Choose a layer, or leave --layer out.")
        return [*whole.stages, *([LAST_MAP] if end != LAST_MAP else []), end]
    known = [OUTPUT] if not whole.has_head else [LAST_MAP, PRE_LOGITS]
    known = [*(path for path, _ in module.named_modules() if path), *known]
    if request.layer not in known:
        near = difflib.get_close_matches(request.layer, known, N_NEIGHBOURS, cutoff=0.5)
        nearest = f"nearest: {', '.join(near)}; " if near else ""
        tops = [path for path, _ in module.named_children()]
        raise UnknownLayer(
            f"{printable(name)} has no layer '{printable(request.layer)}'; {nearest}its parts: {', '.join(tops)}."
        )
    return [request.layer]


def _chosen(candidates: Sequence[str], outputs: dict[str, Any], whole: Whole) -> list[str]:
    """Return the layers of a request: that one, or the ends of the stages."""
    if len(candidates) == 1:
        if candidates[0] not in outputs:
            raise BackboneError(f"Layer '{candidates[0]}' is not run by the network. Choose the layer before or after.")
        return list(candidates)
    end = candidates[-1]
    inner = [place for place in candidates if place in whole.stages]
    shapes = {place: outputs[place] for place in inner if getattr(outputs.get(place), "ndim", 0) in (3, 4)}
    last = getattr(outputs[LAST_MAP], "shape", None)
    if len({output.shape for output in shapes.values()}) > 1:
        shapes = {place: output for place, output in shapes.items() if output.shape != last}
    return stage_ends({**shapes, end: outputs[end]})


def _kind(name: str, place: str, output: Tensor, whole: Whole, request: CutRequest) -> str:
    """Return the requested or default pooling of an output. Raises BackboneError for a class token that is missing."""
    kind = request.pooling
    if output.ndim == 3 and kind in CLASS_TOKEN and not whole.has_class_token:
        raise BackboneError(f"{printable(name)} has no class token for pooling '{kind}'. Use avg, or leave it out.")
    if output.ndim == 2 and kind not in CLASS_TOKEN:
        return "flatten"
    if output.ndim == 3 and output.shape[1] <= whole.n_prefix and kind not in ("cls", "flatten"):
        if kind is not None:
            raise BackboneError(f"Layer '{place}' of {printable(name)} has no tokens of patches. Use --pooling cls.")
        return "cls"
    return kind or (whole.tokens if output.ndim == 3 else "avg")
