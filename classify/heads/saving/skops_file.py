"""The nodes of a skops file, checked before skops builds any of them.

A skops file (https://skops.readthedocs.io/en/stable/persistence.html) is a zip: schema.json is a tree of nodes, the
arrays are .npy files in the same zip. The loader that a node names decides how it is built: from a type, from its
state, or by calling something. skops itself asks whether a type is trusted; here a node may only be one of a few kinds,
of types by their exact names (`classify.heads.saving.skops_types`), at the places where skops reads nodes and nowhere
else. Arrays are as large as they say and nothing is compressed, so that a file needs no more memory than a few times
its size.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from math import prod
from re import fullmatch
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from featurecache.classify.heads.saving.skops_types import (
    DICTS,
    GENERATOR,
    KEYS,
    LOSSES,
    OBJECTS,
    RANDOM_STATE,
    SCALARS,
    TREE,
    UNCHECKED,
)

Node = Mapping[str, Any]
SCHEMA = "schema.json"
# A boosted forest of 100 classes and 100 rounds has 30,000 arrays and 100 MB of nodes.
MOST_MEMBERS = 1_000_000
MOST_SCHEMA_BYTES = 2**29
# The deepest of scikit-learn's classifiers has 20 nodes below each other; skops takes three calls for each.
MOST_DEPTH = 64
# Truth values, whole numbers, numbers, text.
ARRAY_KINDS = frozenset("biufU")


class NotAHead(ValueError):
    """A file that is not a saved head; its message follows the name of the file."""


@dataclass(frozen=True)
class SkopsFile:
    """A file whose nodes are all of kinds and types that a head may have.

    blob: the file. root: its first node. types: the names of all types in it. unchecked: those of UNCHECKED.
    """

    blob: bytes
    root: Node
    types: frozenset[str]

    @property
    def unchecked(self) -> list[str]:
        """The types in it whose arrays are used unchecked."""
        return sorted(self.types & UNCHECKED)

    def only(self, node: Node) -> "SkopsFile":
        """Return a file of one of the nodes and all arrays: what the file had if nothing but that had been saved."""
        written = BytesIO()
        with ZipFile(BytesIO(self.blob)) as source, ZipFile(written, "w", ZIP_STORED) as target:
            for info in source.infolist():
                if info.filename != SCHEMA:
                    target.writestr(info.filename, source.read(info))
            target.writestr(SCHEMA, json.dumps({**node, "protocol": self.root["protocol"]}))
        return SkopsFile(written.getvalue(), node, self.types)


def read_skops(blob: bytes, *, wrapper: str = "") -> SkopsFile:
    """Read the nodes of a skops file; `wrapper` is the name of a type that its first node may have besides.

    Raises NotAHead for a file that is not one, that is larger unpacked than packed, whose arrays are not what
    their sizes say, and for nodes of a kind or a type that no head has.
    """
    try:
        with ZipFile(BytesIO(blob)) as file:
            _check_members(file, len(blob))
            root = json.loads(file.read(SCHEMA))
            walk = _Walk(file, wrapper)
            protocol, _ = root.pop("protocol", None), root.pop("_skops_version", None)
            walk.node(root, 0)
    except (BadZipFile, NotImplementedError, EOFError) as error:
        raise NotAHead(f"cannot be read ({error})") from error
    except NotAHead:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise NotAHead(f"is not what scikit-learn's heads are saved as ({type(error).__name__})") from error
    return SkopsFile(blob, {**root, "protocol": protocol}, frozenset(walk.types))


def plain_value(node: Node) -> Any:
    """Return the number, text, truth value or None of a node that holds one; raises NotAHead for others."""
    if node["__loader__"] != "JsonNode":
        raise NotAHead(f"has a {node['__loader__']} where a plain value belongs")
    return json.loads(node["content"])


def _bare(state: Any) -> Any:
    """Return what is written of a node without numbers and files: those differ each time that an object is saved."""
    if isinstance(state, dict):
        return {key: _bare(value) for key, value in state.items() if key not in ("__id__", "file")}
    return [_bare(each) for each in state] if isinstance(state, list) else state


def _check_members(file: ZipFile, size: int) -> None:
    """Raise NotAHead for members of other names, twice the same, compressed, or larger together than the file."""
    members = file.infolist()
    names = [info.filename for info in members]
    if len(members) > MOST_MEMBERS or len(set(names)) < len(names):
        raise NotAHead(f"has {len(members):,} members, too many or two of one name")
    for info in members:
        if not fullmatch(r"schema\.json|[0-9]{1,20}\.npy", info.filename):
            raise NotAHead(f"has a member called {info.filename[:80]!r}, which skops does not write")
        if info.compress_type != ZIP_STORED or info.flag_bits & 1:
            raise NotAHead(f"has {info.filename} compressed or encrypted, which could be of any size unpacked")
    if sum(info.file_size for info in members) > size or file.getinfo(SCHEMA).file_size > MOST_SCHEMA_BYTES:
        raise NotAHead("says that it is larger unpacked than it can be")


@dataclass
class _Walk:
    """A walk over all nodes from the first, in the order in which skops builds them."""

    file: ZipFile
    wrapper: str
    types: set[str] = field(default_factory=set)
    known: dict[int, Node] = field(default_factory=dict)

    def node(self, node: Any, depth: int) -> None:
        """Check a node and all below it; raises NotAHead, or what an unexpected shape of it leads to."""
        loader, name = node["__loader__"], f"{node['__module__']}.{node['__class__']}"
        if loader not in KINDS:
            raise NotAHead(f"builds {name} by {loader}, which can call what the file names, and no head needs it")
        keys, types, read = KINDS[loader]
        is_wrapper = depth == 0 and loader == "ObjectNode" and name == self.wrapper
        if name not in types and not is_wrapper:
            raise NotAHead(f"holds {name} ({loader}), which no head of scikit-learn is made of")
        if not set(node) <= keys | {"__loader__", "__module__", "__class__", "__id__"}:
            raise NotAHead(f"holds {name} with parts that skops does not write")
        if depth > MOST_DEPTH:
            raise NotAHead(f"has nodes more than {MOST_DEPTH} deep")
        self._same_as_before(node)
        self.types.add(name)
        read(self, node, depth + 1)

    def _same_as_before(self, node: Node) -> None:
        """Raise NotAHead for a node with the number of another: skops would build the other in its place."""
        number = node.get("__id__")
        if number is None:
            return
        known = self.known.setdefault(number, node)
        if type(number) is not int or (known is not node and _bare(known) != _bare(node)):
            raise NotAHead(f"has two nodes of the number {number!r}")

    def json(self, node: Node, depth: int) -> None:
        """A number, a text, a truth value, or none."""
        value = json.loads(node["content"])
        if not (value is None or isinstance(value, bool | int | float | str)):
            raise NotAHead("holds JSON inside JSON")

    def keyed(self, node: Node, depth: int) -> None:
        """A dict: its values are nodes, and so are the types of its keys, which are called with the keys."""
        key_types = node["key_types"]
        if key_types["__loader__"] != "ListNode" or len(key_types["content"]) != len(node["content"]):
            raise NotAHead("holds a dict whose keys have no types")
        for each in key_types["content"]:
            if each["__loader__"] != "TypeNode" or f"{each['__module__']}.{each['__class__']}" not in KEYS:
                raise NotAHead(f"holds a dict with keys of {each['__module__']}.{each['__class__']}")
            self._same_as_before(each)
        self._same_as_before(key_types)
        for each in node["content"].values():
            self.node(each, depth)

    def listed(self, node: Node, depth: int) -> None:
        """A list or a tuple."""
        for each in node["content"]:
            self.node(each, depth)

    def array(self, node: Node, depth: int) -> None:
        """An array of numbers or text in a file, or one of objects, each a node."""
        if node["type"] == "numpy":
            self._check_array(self.file.getinfo(node["file"]))
            return
        if node["type"] != "json":
            raise NotAHead(f"holds an array of the type {node['type']!r}")
        self.node(node["shape"], depth)
        self.listed(node, depth)

    def _check_array(self, info: ZipInfo) -> None:
        with self.file.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(file)
            size = info.file_size - file.tell()
        kinds = {dtype[name].kind for name in dtype.names} if dtype.names else {dtype.kind}
        is_whole = dtype.itemsize > 0 and min(shape, default=0) >= 0 and prod(shape) * dtype.itemsize == size
        if not kinds <= ARRAY_KINDS or not is_whole:
            raise NotAHead(f"holds {info.filename}, which is no array of numbers or text as large as it says")

    def stateful(self, node: Node, depth: int) -> None:
        """An object of a type that is made without a call, and given its state."""
        if node.get("content") is not None:
            self.node(node["content"], depth)

    def reduced(self, node: Node, depth: int) -> None:
        """An object of a type that is called with numbers or arrays, and given its state."""
        arguments = node["__reduce__"]["args"]
        if arguments["__loader__"] != "TupleNode" or set(node["__reduce__"]) != {"args"}:
            raise NotAHead("holds arguments that are no tuple")
        for each in arguments["content"]:
            if each["__loader__"] not in ("JsonNode", "NdArrayNode"):
                raise NotAHead(f"holds an argument that is a {each['__loader__']}")
        self.node(arguments, depth)
        self.node(node["content"], depth)

    def generator(self, node: Node, depth: int) -> None:
        """A generator of random numbers: skops calls what its state says under "bit_generator"."""
        content = node["content"]
        if set(content) != {"bit_generator", "seed_seq"}:
            raise NotAHead("holds a generator of random numbers without its seed")
        for each in content.values():
            self.node(each, depth)
        state, seed = (content[key]["content"] for key in ("bit_generator", "seed_seq"))
        if plain_value(state["bit_generator"]) != "PCG64" or plain_value(seed["pool_size"]) != 4:
            raise NotAHead("holds a generator of random numbers that is not numpy's own")


STATE = frozenset({"content"})
KINDS: Mapping[str, tuple[frozenset[str], frozenset[str], Callable[[_Walk, Node, int], None]]] = {
    "JsonNode": (STATE | {"is_json"}, frozenset({"builtins.str"}), _Walk.json),
    "DictNode": (STATE | {"key_types"}, DICTS, _Walk.keyed),
    "ListNode": (STATE, frozenset({"builtins.list"}), _Walk.listed),
    "TupleNode": (STATE, frozenset({"builtins.tuple"}), _Walk.listed),
    "NdArrayNode": (STATE | {"type", "file", "shape"}, SCALARS | {"numpy.ndarray"}, _Walk.array),
    "ObjectNode": (STATE, OBJECTS, _Walk.stateful),
    "TreeNode": (STATE | {"__reduce__"}, frozenset({TREE}), _Walk.reduced),
    "LossNode": (STATE | {"__reduce__"}, LOSSES, _Walk.reduced),
    "RandomStateNode": (STATE, frozenset({RANDOM_STATE}), _Walk.stateful),
    "RandomGeneratorNode": (STATE, frozenset({GENERATOR}), _Walk.generator),
}
