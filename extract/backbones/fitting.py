"""The weights of a network among all tensors of a file, whatever wraps them: one rule for every training script.

A tensor's full name is its own with the keys of the dictionaries around it, joined by dots:

    state_dict . module.encoder_q. conv1.weight          place "state_dict.module.encoder_q", name "conv1.weight"

The weights are below the one place where every tensor of the network is found in its shape. Of the classifier, all
hidden layers are taken or none: another or no classifier leaves the layers below it as they are. Tensors in other
places are not used; a tensor too many inside a part that the network has, or in a part of the same series (layer5
where there are layer1 to layer4), is the sign of another architecture. Several places with the same values are one.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from featurecache.base.errors import WeightsMismatch
from featurecache.base.text import count, printable
from featurecache.extract.backbones.architectures import Network
from featurecache.extract.backbones.named_file import with_part

# Written during training or by counters of operations, not used in inference, absent from other files.
BOOKKEEPING = ("num_batches_tracked", "total_ops", "total_params")
# The name of the place that is the file itself.
TOP = "."
N_NAMED = 5  # places in one line

# Renamed parameters, which torchvision translates when it loads its own older files.
RENAMES = (
    (re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$"), r"\1\2"),
    (re.compile(r"^(.*\.mlp)\.linear_1\.(\w+)$"), r"\1.0.\2"),
    (re.compile(r"^(.*\.mlp)\.linear_2\.(\w+)$"), r"\1.3.\2"),
)


@dataclass(frozen=True)
class Fit:
    """The tensors of a network in a file, by the network's names.

    place: where they are, empty for the file itself. unused: number of other tensors by place, without the classifier.
    has_classifier: whether the hidden layers of the classifier, if the network has any, are among the tensors.
    """

    place: str
    tensors: dict[str, Tensor]
    unused: dict[str, int]
    has_classifier: bool

    def line(self, backbone: str, file_name: str) -> str:
        """Return one line on what was taken; empty for a plain state dict."""
        if not self.place and not self.unused and self.has_classifier:
            return ""
        where = f" below '{printable(self.place)}'" if self.place else ""
        named = [f"'{printable(place)}' ({n:,})" for place, n in self.unused.items()]
        more = f" and {count(len(named) - N_NAMED, 'more place')}" if len(named) > N_NAMED else ""
        unused = f"; not used: {', '.join(named[:N_NAMED])}{more}" if named else ""
        without = "" if self.has_classifier else f"; the classifier of {backbone} is not in it"
        taken = count(len(self.tensors), "tensor")
        return f"Weights of {backbone}: {taken}{where} of {printable(file_name)}{unused}{without}"


def fit_tensors(
    network: Network, tensors: Mapping[str, Tensor], *, backbone: str, file_name: str, part: str = ""
) -> Fit:
    """Return the tensors of a network among those of a file, by their full names.

    part: the place, or a run of the names in it, where a file holds several sets of weights; `.` for the file itself.
    Raises WeightsMismatch: with the first tensor that differs, or with the places if several fit and differ.
    """
    search = _Search(network, tensors)
    fits = [fit for place in search.places() if (fit := search.fit(place)) is not None]
    chosen = [fit for fit in fits if _is_part(fit.place, part)]
    exact = [fit for fit in chosen if part and (fit.place or TOP) == part]
    distinct = _distinct(exact or chosen)
    if len(distinct) == 1:
        return distinct[0]
    if distinct:
        raise WeightsMismatch(_ambiguous(distinct, backbone, file_name))
    if fits:
        raise WeightsMismatch(
            f"{printable(file_name)} has no weights of {backbone} below '{printable(part)}'; it has them below "
            f"{_alternatives([fit.place for fit in fits])}."
        )
    raise WeightsMismatch(
        f"{printable(file_name)} does not hold weights of {backbone}: {search.difference(part)}; "
        "name the network that it is of"
    )


def comparable(tensors: Mapping[str, Tensor], ignored: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the tensors that features depend on: no bookkeeping, none whose names begin with one of `ignored`."""
    return {n: tensor for n, tensor in tensors.items() if not n.startswith(ignored) and not n.endswith(BOOKKEEPING)}


class _Search:
    """The search for the tensors of one network among those of a file."""

    def __init__(self, network: Network, tensors: Mapping[str, Tensor]) -> None:
        family = network.family
        self.tensors = tensors
        self.classifier = f"{family.last.partition('.')[0]}."
        self.ignored = (f"{family.last}.", *family.ignored)
        self.expected = comparable(network.module.state_dict(), self.ignored)
        self.hidden = {name for name in self.expected if name.startswith(self.classifier)}
        self.children = {name for name, _ in network.module.named_children()}
        self.series = {_without_number(name) for name in self.children if name != _without_number(name)}
        self.found = self._found()

    def places(self) -> list[str]:
        """Return every place that has any tensor of the network, in the order of the file."""
        return list(self.found) or [""]

    def fit(self, place: str) -> Fit | None:
        """Return the tensors at a place; None if they are not those of the network."""
        names = self.found.get(place, {})
        if any(not self._is_right(place, name) for name in self.expected if name not in self.hidden):
            return None
        if self._stranger(place):
            return None
        has_classifier = all(self._is_right(place, name) for name in self.hidden)
        taken = {n: self.tensors[names[n]] for n in self.expected if has_classifier or n not in self.hidden}
        return Fit(place, taken, self._unused(place, {names[name] for name in taken}), has_classifier)

    def difference(self, part: str) -> str:
        """Return a clause on the first tensor that differs, in the order of the network, at the likeliest place."""
        places = [place for place in self.places() if _is_part(place, part)] or self.places()
        place = max(places, key=lambda each: (len(self.found.get(each, {})), self._n_right(each)))
        below = f"below '{printable(place)}', " if place else ""
        for name, tensor in self.expected.items():
            if name in self.hidden or self._is_right(place, name):
                continue
            full = self.found.get(place, {}).get(name)
            if full is None:
                return f"{below}'{name}' {tuple(tensor.shape)} is missing from the file{self._like(name, tensor)}"
            theirs = self.tensors[full]
            if theirs.shape == tensor.shape:
                return f"{below}'{name}' is {theirs.dtype} in the file, which are no weights of a network"
            return f"{below}'{name}' is {tuple(theirs.shape)} in the file and {tuple(tensor.shape)} in the network"
        return f"the network has no '{printable(self._stranger(place))}'"

    def _found(self) -> dict[str, dict[str, str]]:
        """Return {place: {name: full name}} of the network's tensors, wherever they are in the file."""
        found: dict[str, dict[str, str]] = {}
        for full in self.tensors:
            for spelled in dict.fromkeys((full, _modern_name(full))):
                for place, name in _divisions(spelled):
                    if name in self.expected:
                        found.setdefault(place, {}).setdefault(name, full)
        return found

    def _is_right(self, place: str, name: str) -> bool:
        full = self.found.get(place, {}).get(name)
        if full is None:
            return False
        theirs, ours = self.tensors[full], self.expected[name]
        return theirs.shape == ours.shape and theirs.is_floating_point() == ours.is_floating_point()

    def _n_right(self, place: str) -> int:
        return sum(self._is_right(place, name) for name in self.expected)

    def _stranger(self, place: str) -> str:
        """Return the first tensor at a place that another architecture would have; empty if there is none."""
        used, start = set(self.found.get(place, {}).values()), f"{place}." if place else ""
        passed_over = (self.classifier, *self.ignored)
        for full in self.tensors:
            name = full.removeprefix(start)
            if full in used or not full.startswith(start) or name.startswith(passed_over) or name.endswith(BOOKKEEPING):
                continue
            top = name.partition(".")[0]
            if top in self.children or (top != _without_number(top) and _without_number(top) in self.series):
                return full
        return ""

    def _unused(self, place: str, used: set[str]) -> dict[str, int]:
        """Return the number of other tensors, by the first part of their name that is not in the place."""
        start = f"{place}." if place else ""
        inside = tuple(f"{start}{name}" for name in (self.classifier, *self.ignored))
        others = (n for n in self.tensors if n not in used and not n.startswith(inside) and not n.endswith(BOOKKEEPING))
        return dict(Counter(_branch(name, place) for name in others))

    def _like(self, name: str, tensor: Tensor) -> str:
        """Return a clause on the tensor of the file that is most like one that is missing."""
        if not self.tensors:
            return ""

        def likeness(full: str) -> tuple[bool, float]:
            return self.tensors[full].shape == tensor.shape, difflib.SequenceMatcher(None, name, full).ratio()

        like = max(self.tensors, key=likeness)
        return f", where '{printable(like)}' {tuple(self.tensors[like].shape)} is most like it"


def _divisions(full: str) -> Iterator[tuple[str, str]]:
    """Yield every division of a full name into place and name: ("", "a.b"), ("a", "b")."""
    yield "", full
    for dot in re.finditer(r"\.", full):
        yield full[: dot.start()], full[dot.end() :]


def _modern_name(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _without_number(name: str) -> str:
    return re.sub(r"_?\d+[a-z]?$", "", name)


def _branch(full: str, place: str) -> str:
    """Return the beginning of a name up to the first part in which it differs from a place."""
    parts, own = full.split("."), place.split(".") if place else []
    depth = next((i for i, (a, b) in enumerate(zip(parts, own, strict=False)) if a != b), min(len(parts), len(own)))
    return ".".join(parts[: depth + 1])


def _is_part(place: str, part: str) -> bool:
    """Whether a place has the names of `part`, one after another."""
    return not part or (part == TOP and not place) or f".{part}." in f".{place}."


def _distinct(fits: Sequence[Fit]) -> list[Fit]:
    """Return the fits with different values; of equal ones the first."""
    distinct: list[Fit] = []
    for fit in fits:
        if not any(_are_equal(fit.tensors, other.tensors) for other in distinct):
            distinct.append(fit)
    return distinct


def _are_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def _ambiguous(fits: Sequence[Fit], backbone: str, file_name: str) -> str:
    places = [fit.place or TOP for fit in fits]
    return (
        f"{printable(file_name)} holds {len(fits)} different sets of weights of {backbone}, below "
        f"{_alternatives(places)}. Name one of them, such as --weights "
        f"'{printable(with_part(file_name, places[-1]))}'."
    )


def _alternatives(places: Sequence[str]) -> str:
    named = [f"'{printable(place or TOP)}'" for place in places[:N_NAMED]]
    return f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else named[0]
