"""Paths through a network's graph, and its dominators: the nodes that all paths pass through."""

from __future__ import annotations

from torch import fx, nn


def nodes_between(graph: fx.Graph, end: fx.Node) -> list[fx.Node]:
    """Return the nodes on any path from the image to `end`, in execution order, both included."""
    after: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in after for source in node.all_input_nodes):
            after.add(node)
    before = _ancestors(end)
    return [node for node in graph.nodes if node in after and node in before]


def _ancestors(end: fx.Node, until: fx.Node | None = None) -> set[fx.Node]:
    """Return `end` and all nodes that it is computed from, without `until` and the nodes that only `until` needs."""
    found, todo = set(), [end]
    while todo:
        node = todo.pop()
        if node not in found and node is not until:
            found.add(node)
            todo += node.all_input_nodes
    return found


def required_nodes(graph: fx.Graph, end: fx.Node, start: fx.Node) -> list[fx.Node]:
    """Return the nodes that `end` is computed from given `start`, in execution order, parameters included."""
    before = _ancestors(end, until=start)
    return [node for node in graph.nodes if node in before]


def dominators(nodes: list[fx.Node]) -> set[fx.Node]:
    """Return the nodes that every path from the first to the last passes through; `nodes` in execution order."""
    index = {node: i for i, node in enumerate(nodes)}
    found, furthest = set(), 0
    for i, node in enumerate(nodes):
        if furthest <= i:
            found.add(node)
        furthest = max([furthest, *(index[user] for user in node.users if user in index)])
    return found


def parameters_of(root: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    """Return the trainable parameters that a node uses."""
    if node.op == "call_module":
        return list(root.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(root.get_submodule(owner), name)
        return [value] if isinstance(value, nn.Parameter) else []
    return []
