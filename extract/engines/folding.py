"""Batch norms folded into the convolutions before them."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Return a copy of an eval-mode module with each batch norm that follows a convolution folded into it.

        w' = w * g / sqrt(v + eps)        b' = (b - m) * g / sqrt(v + eps) + beta

    with running mean m, running variance v, scale g and offset beta of the batch norm.
    """
    folded = copy.deepcopy(module)
    if any(getattr(part, "is_tapped", False) for part in folded.modules()):
        return folded  # what a module puts out is taken, and must stay what it is
    for part in list(folded.modules()):
        if isinstance(part, fx.GraphModule):
            _fold_in_graph(part)
        elif isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward:
            _fold_in_sequence(part)
    return folded


def _fold_in_graph(graph_module: fx.GraphModule) -> None:
    calls = Counter(node.target for node in graph_module.graph.nodes if node.op == "call_module")
    for node in list(graph_module.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or len(before.users) > 1 or calls[before.target] != 1:
            continue
        pair = graph_module.get_submodule(str(before.target)), graph_module.get_submodule(str(node.target))
        folded = _fold(*pair)
        if folded is not None:
            graph_module.set_submodule(str(before.target), folded)
            node.replace_all_uses_with(before)
            graph_module.graph.erase_node(node)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()


def _fold_in_sequence(sequence: nn.Sequential) -> None:
    """Fold plain convolutions only: a library's own may change its weights when it is run."""
    for at, (first, second) in enumerate(pairwise(list(sequence))):
        folded = _fold(first, second) if type(first) is nn.Conv2d else None
        if folded is not None:
            sequence[at], sequence[at + 1] = folded, nn.Identity()


def _fold(convolution: nn.Module, norm: nn.Module) -> nn.Module | None:
    """Return the two as one convolution, or None if they are not a convolution and its batch norm."""
    # A subclass of a batch norm may do more, such as an activation.
    if not isinstance(convolution, nn.Conv2d) or type(norm) is not nn.BatchNorm2d or not norm.track_running_stats:
        return None
    return fuse_conv_bn_eval(convolution, norm)
