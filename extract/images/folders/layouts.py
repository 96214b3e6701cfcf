"""The layout of a folder: what each level of folders below it means.

    class/              cat/1.jpg                 folders are classes; what is deeper belongs to them
    split/class         train/cat/1.jpg
    class/split         cat/train/1.jpg
    any/class           dataset/cat/1.jpg         a level that means nothing: a wrapper, or a heading of classes
    split/any/class     train/train/cat/1.jpg
    class/group         cat/patient7/1.jpg        images of a group stay on one side of the split
    leaf                a/balcony/inside/1.jpg    the whole path of an image's folder is its class
    flat                1.jpg                     no labels, at any depth

A layout is found out where a folder can be read in one way only. Where there are two, both are named and none is taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from featurecache.base.errors import ManifestError, RequestError
from featurecache.base.text import printable
from featurecache.extract.images.folders.split_names import (
    SPLIT_NAMES,
    UNLABELLED,
    is_filler,
    mixed_names,
    split_roles,
)
from featurecache.extract.images.folders.tree import Folder

SPLIT, CLASS, GROUP, ANY, LEAF = LEVELS = ("split", "class", "group", "any", "leaf")
FLAT = "flat"
# Names that a message shows.
SHOWN = 3
# Words for splits that need no remark.
PLAIN_SPLITS = frozenset({"train", "val", "valid", "validation", "test"})


class Layout(NamedTuple):
    """The meaning of each level, and remarks on it where it is not plain."""

    levels: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def parse_layout(text: str) -> tuple[str, ...]:
    """Return the levels that a text names: `split/class` -> ("split", "class"). Raises RequestError for others."""
    if text == FLAT:
        return ()
    levels = tuple(text.strip("/").split("/"))
    known = set(levels) <= set(LEVELS) and LEAF not in levels[:-1] and not {CLASS, LEAF} <= set(levels)
    if not known or any(levels.count(level) > 1 for level in (SPLIT, CLASS, GROUP)):
        raise RequestError(
            f"There is no layout '{printable(text)}'. It names the levels of folders from the top, such as class, "
            f"split/class, class/split or any/class, of {', '.join(LEVELS)}; or it is {FLAT}."
        )
    return levels


def find_layout(root: Folder) -> Layout:
    """Return the one layout that a folder can be read in. Raises ManifestError with both where there are two."""
    folder = root
    above: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    while (inner := _wrapped(folder)) is not None:
        folder, above = inner, (*above, ANY)
    if above:
        remarks = (f"The classes are the folders in '{printable(folder.path)}', which is all there is.",)
    found = _below_wrappers(folder, above)
    return Layout((*above, *found.levels), (*remarks, *found.remarks))


def _wrapped(folder: Folder) -> Folder | None:
    """Return the one folder in a folder that holds everything without being a class or a split; None for no such."""
    inner = folder.with_images()
    if len(inner) != 1 or inner[0].images or split_roles([inner[0].name]):
        return None
    last = inner[0]
    while len(last.with_images()) == 1 and not last.images and not split_roles([last.with_images()[0].name]):
        last = last.with_images()[0]
    return inner[0] if last.with_images() and not last.images else None


def _below_wrappers(folder: Folder, above: tuple[str, ...]) -> Layout:
    inner = folder.with_images()
    names = [each.name for each in inner]
    roles = split_roles(names)
    if mixed := mixed_names(names):
        raise _two_ways(
            folder,
            f"{_names(mixed)} name a split and something else at once",
            "classes", "/".join((*above, CLASS)),
            "splits, after moving them into folders train, val and test", "",
        )  # fmt: skip
    strangers = [each.name for each in inner if each.name not in roles]
    if roles and not strangers:
        return _splits(folder, inner, roles, above)
    if roles and not _is_one_class_by_chance(inner, roles):
        raise _two_ways(
            folder,
            f"it has {_names(list(roles))} and next to it {_names(strangers)}",
            "splits, without the others", "/".join((*above, SPLIT, CLASS)),
            "classes", "/".join((*above, CLASS)),
        )  # fmt: skip
    found = _classes(folder, [folder], above)
    remarks = [f"'{printable(name)}' is read as a class; as a split it is with --layout split/class." for name in roles]
    return Layout(found.levels, (*found.remarks, *remarks))


def _is_one_class_by_chance(inner: Sequence[Folder], roles: dict[str, str]) -> bool:
    """Return whether one folder among others is only called like a split, as `train` is next to `bus` and `car`."""
    flat = all(not each.with_images() for each in inner if each.name in roles)
    return flat and len(set(roles.values())) == 1


def _splits(folder: Folder, inner: Sequence[Folder], roles: dict[str, str], above: tuple[str, ...]) -> Layout:
    odd = {name: role for name, role in roles.items() if name.lower() not in PLAIN_SPLITS}
    read_as = {UNLABELLED: "images without labels"}
    said = ", ".join(f"'{printable(name)}' as {read_as.get(role, role)}" for name, role in odd.items())
    remarks = (f"The folders are splits: {said}.",) if odd else ()
    levels: tuple[str, ...] = (SPLIT,)
    parents = list(inner)
    while (deeper := _wrapped_splits(parents, roles)) is not None:
        parents, levels = deeper, (*levels, ANY)
    labelled = [each for each in parents if roles[each.parts[len(folder.parts)]] != UNLABELLED]
    _refuse_split_in_split(folder, labelled)
    found = _classes(folder, labelled, (*above, *levels))
    return Layout((*levels, *found.levels), (*remarks, *found.remarks))


def _wrapped_splits(parents: Sequence[Folder], roles: dict[str, str]) -> list[Folder] | None:
    """Return the folders in splits that hold one folder each, called like the split or like no class."""
    deep = [each for each in parents if each.with_images()]
    for each in deep:
        inner = each.with_images()
        named = inner[0].name.casefold() == each.name.casefold() or is_filler(inner[0].name)
        if len(inner) > 1 or each.images or not (named or inner[0].name in roles or split_roles([inner[0].name])):
            return None
    return [(each.with_images() or [each])[0] for each in parents] if deep else None


def _refuse_split_in_split(folder: Folder, parents: Sequence[Folder]) -> None:
    for each in parents:
        inside = [inner.name for inner in each.with_images() if inner.name.lower() in SPLIT_NAMES]
        if inside:
            raise ManifestError(
                f"'{_place(folder)}' has folders of splits, and in '{printable(each.path)}' "
                f"there is {_names(inside)}, which is a split too. Move the classes out of it, or write a manifest."
            )


def _classes(folder: Folder, parents: Sequence[Folder], above: tuple[str, ...]) -> Layout:
    """Return the levels from those folders on that have classes in them: the splits, or the one that has no split."""
    tops = [each for parent in parents for each in parent.with_images()]
    if not tops:
        return Layout(())
    if SPLIT not in above and (found := _split_below_class(folder, tops, above)) is not None:
        return found
    return _hierarchy(folder, tops, above) or Layout((CLASS,))


def _split_below_class(folder: Folder, tops: Sequence[Folder], above: tuple[str, ...]) -> Layout | None:
    """Return class/split where every class has splits in it, and None where none has."""
    roles = {id(top): split_roles([each.name for each in top.with_images()]) for top in tops}
    found = {role for each in roles.values() for role in each.values()}
    whole = [top for top in tops if not top.images and len(roles[id(top)]) == len(top.with_images()) > 0]
    deeper = {each.name for top in tops for split in top.with_images() for each in split.with_images()}
    if len(found) < 2 or (not any(len(set(roles[id(top)].values())) > 1 for top in tops) and len(whole) < len(tops)):
        return None
    said = _names(sorted(_all(roles)))
    if len(whole) == len(tops) and len(deeper) < 2:
        return Layout((CLASS, SPLIT), (f"In every class there are splits: {said}.",))
    second: tuple[str, ...]
    if len(whole) == len(tops):
        other, second = f"classes {_names(sorted(deeper))} in splits", (ANY, SPLIT, CLASS)
    else:
        other, second = "classes, with no regard to the splits", (CLASS,)
    raise _two_ways(
        folder,
        f"'{printable(next(top for top in tops if roles[id(top)]).path)}' has splits in it: {said}",
        f"classes {_names([top.name for top in tops])} with splits in them", "/".join((*above, CLASS, SPLIT)),
        other, "/".join((*above, *second)),
    )  # fmt: skip


def _all(roles: dict[int, dict[str, str]]) -> set[str]:
    return {name for each in roles.values() for name in each}


def _hierarchy(folder: Folder, tops: Sequence[Folder], above: tuple[str, ...]) -> Layout | None:
    """Return the levels of classes below headings, and None where the folders in a class are no classes themselves."""
    by_top: dict[str, set[str]] = {}
    for top in tops:
        by_top.setdefault(top.name, set()).update(each.name for each in top.with_images())
    below = [name for names in by_top.values() for name in names]
    if len(by_top) < 2 or any(top.images for top in tops):
        return None
    same = sorted(set.intersection(*by_top.values()))
    if len(same) > 1 and len(below) == len(same) * len(by_top) and not _are_numbered(same):
        raise _two_ways(
            folder,
            f"in each of {_names(sorted(by_top))} there are the same folders: {_names(same)}",
            f"classes {_names(sorted(by_top))}", "/".join((*above, CLASS)),
            f"classes {_names(same)}", "/".join((*above, ANY, CLASS)),
        )  # fmt: skip
    if len(set(below)) < len(below) or _are_numbered(below):
        return None
    deep = any(each.with_images() for top in tops for each in top.with_images())
    letters = all(len(top) == 1 for top in by_top)
    if letters and all(name.casefold().startswith(top.casefold()) for top, names in by_top.items() for name in names):
        if not deep:
            return Layout((ANY, CLASS), (f"The classes are the folders in {_names(sorted(by_top))}.",))
    elif max(map(len, by_top.values())) < 2:
        return None
    raise _two_ways(
        folder,
        f"in {_names(sorted(by_top))} there are other folders: {_names(sorted(below))}",
        f"classes {_names(sorted(by_top))}", "/".join((*above, CLASS)),
        f"classes {_names(sorted(below))}", "/".join((*above, LEAF) if deep else (*above, ANY, CLASS)),
    )  # fmt: skip


def _are_numbered(names: Sequence[str]) -> bool:
    """Return whether names are those of sessions or patients: numbers, with few words that come again and again."""
    stems = {re.sub(r"[\W\d_]+", " ", name).strip().casefold() for name in names}
    return stems == {""} or len(stems) * 2 <= len(names)


def _two_ways(folder: Folder, found: str, first: str, option: str, second: str, other: str) -> ManifestError:
    ways = [f"{each} (--layout {how})" if how else each for each, how in ((first, option), (second, other))]
    return ManifestError(
        f"'{_place(folder)}' can be read in two ways: {found}. Read it as {ways[0]}, or as "
        f"{ways[1]}; or write a manifest."
    )


def _place(folder: Folder) -> str:
    return printable(folder.path or folder.prefix.rstrip("/\\") or folder.prefix or ".")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{printable(name)}'" for name in names[:SHOWN])
    return f"{shown}, ..." if len(names) > SHOWN else shown
