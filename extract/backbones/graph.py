"""Paths through a network's graph, and the nodes that all of them pass (dominators)."""

from __future__ import annotations

from torch import fx, nn


def nodes_between(graph: fx.Graph, end: fx.Node) -> list[fx.Node]:
    """The nodes on some way from the image to `end`, in order, both included."""
    after: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in after for source in node.all_input_nodes):
            after.add(node)
    before = _ancestors(end)
    return [node for node in graph.nodes if node in after and node in before]


def _ancestors(end: fx.Node, until: fx.Node | None = None) -> set[fx.Node]:
    """`end` and what it is computed from; `until` and what is before it left out."""
    found, todo = set(), [end]
    while todo:
        node = todo.pop()
        if node not in found and node is not until:
            found.add(node)
            todo += node.all_input_nodes
    return found


def required_nodes(graph: fx.Graph, end: fx.Node, start: fx.Node) -> list[fx.Node]:
    """What `end` needs besides `start`, in order; parameters that are read as such are among it."""
    before = _ancestors(end, until=start)
    return [node for node in graph.nodes if node in before]


def dominators(nodes: list[fx.Node]) -> set[fx.Node]:
    """Those of the nodes, which are in order, that every way from the first to the last passes through."""
    index = {node: i for i, node in enumerate(nodes)}
    found, furthest = set(), 0
    for i, node in enumerate(nodes):
        if furthest <= i:
            found.add(node)
        furthest = max([furthest, *(index[user] for user in node.users if user in index)])
    return found


def parameters_of(root: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    """What a node would have trained."""
    if node.op == "call_module":
        return list(root.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(root.get_submodule(owner), name)
        return [value] if isinstance(value, nn.Parameter) else []
    return []
