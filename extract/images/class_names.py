"""Names of classes: their order, and those that are written nearly alike, are several in one, or hardly classes."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable

from featurecache.base.text import count, printable

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
_SEP = r"[-_. ]?"
_MONTH = (
    "(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?"
    "|dec(ember)?)"
)
# 2021, 2021-03, 20210301, 2021-03-01 at the sea, 01.03.2021, March 2021, 03-March.
_DATE = re.compile(
    rf"(19|20)\d\d({_SEP}(0[1-9]|1[0-2])({_SEP}(0[1-9]|[12]\d|3[01])(\D.*)?)?)?"
    rf"|(0?[1-9]|[12]\d|3[01]){_SEP}(0?[1-9]|1[0-2]){_SEP}(19|20)\d\d"
    rf"|((19|20)\d\d{_SEP})?((0[1-9]|1[0-2]){_SEP})?{_MONTH}({_SEP}(19|20)\d\d)?",
    re.ASCII,
)
# The folders of memory cards: 100CANON, 101_PANA; and of phones and numbered cameras, and the makers of cameras. An
# apple may be a fruit: makers of other things need the name or number of a model.
_CARD = re.compile(r"[1-9]\d\d(?!\d{5})[A-Z0-9_]{5}", re.ASCII)
_CAMERA = re.compile(
    r"(img|image)?_?dcim|(ip)?cam(era)?([-_ ]?(\d+|roll)|[-_ ][a-z])?|whatsapp images|screenshots"
    r"|(canon|nikon|sony|fujifilm|olympus|panasonic|pentax|leica|gopro|dji|iphone|samsung|huawei|xiaomi)([-_ ].*)?"
    r"|apple[-_ ]?(iphone|ipad).*|google[-_ ]?pixel.*",
    re.ASCII,
)
# Groups of names that a remark shows.
SHOWN = 3
# What people put between several labels in one cell, and what hardly anybody puts into one.
SEPARATOR, SURE_SEPARATOR = re.compile(r"\s*[|;,/+&]\s*"), re.compile("[|;]")
# What lists in a cell are written with, such as ['cat', 'dog'].
OF_LISTS = "[](){}'\""


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of classes in their order: by value where all are numbers, else by characters."""
    found = sorted(names)
    if all(_NUMBER.fullmatch(name) for name in found):
        found.sort(key=float)
    return found


def remark_on_alike(names: Iterable[str | None]) -> tuple[str, ...]:
    """Return a sentence on classes whose names are equal but for case, spaces or Unicode form; none for no such.

    Characters that cannot be seen, such as spaces of no width, are of the Unicode form.
    """
    written: dict[str, list[str]] = {}
    for name in sorted({name for name in names if name is not None}):
        seen = "".join(c for c in name if c.isascii() or unicodedata.category(c) != "Cf")
        plain = " ".join(unicodedata.normalize("NFKC", seen).casefold().split())
        written.setdefault(plain, []).append(name)
    alike = [same for same in written.values() if len(same) > 1]
    if not alike:
        return ()
    shown = "; ".join(" and ".join(f"'{_exactly(name)}'" for name in same) for same in alike[:SHOWN])
    more = "; ..." if len(alike) > SHOWN else ""
    return (
        "Classes whose names differ only in case, spaces or Unicode form are classes of their own: "
        f"{shown}{more}. Give them one name if they are one class.",
    )


def remark_on_origins(names: Iterable[str | None]) -> tuple[str, ...]:
    """Return a sentence on classes that are all called like dates or cameras; none for others."""
    found = in_order({name for name in names if name is not None})
    if len(found) < 2 or not all(map(_is_origin, found)):
        return ()
    shown = ", ".join(f"'{printable(name)}'" for name in found[:SHOWN])
    more = ", ..." if len(found) > SHOWN else ""
    return (
        f"The classes {shown}{more} look like dates or cameras, not like what the images show. If they are no classes, "
        "use --layout flat (images without labels), or a table with a column 'label'.",
    )


def _is_origin(name: str) -> bool:
    plain = name.casefold().strip()
    return bool(_DATE.fullmatch(plain) or _CAMERA.fullmatch(plain) or _CARD.fullmatch(name))


def remark_on_several(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return a sentence on labels of images that are several in one, such as 'cat|dog'; none for no such.

    All of their parts are labels too, or parts of several, and one is a label. Next to | or ; one known part will do;
    of parts with nothing but spaces between them all have to be labels.
    """
    n_of = Counter(label for label in labels if label is not None)
    parts = {name: _parts(name) for name in sorted(n_of)}
    in_labels = Counter(part for own in parts.values() if len(own) > 1 for part in set(own))
    plain = {name.strip(OF_LISTS) for name in n_of if not SEPARATOR.search(name)}
    known = plain | {part for part, n in in_labels.items() if n > 1}
    found = [name for name, own in parts.items() if len(own) > 1 and _are_labels(name, own, plain, known)]
    if not found:
        return ()
    named = ", ".join(f"'{printable(name)}'" for name in found[:SHOWN])
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    made, classes_of = ("is", "is a class of its") if len(found) == 1 else ("are", "are classes of their")
    n_images = sum(n_of[name] for name in found)
    return (
        f"{count(len(found), 'label')} with {count(n_images, 'image')} {made} made of other labels ({named}{more}) "
        f"and {classes_of} own: an image has one label here.",
    )


def _parts(name: str) -> list[str]:
    """Return the parts of a label between separators, or where it has none the words in it."""
    bare = name.strip(OF_LISTS)
    return [part.strip(OF_LISTS) for part in (SEPARATOR.split(bare) if SEPARATOR.search(bare) else bare.split())]


def _are_labels(name: str, parts: Collection[str], plain: Collection[str], known: Collection[str]) -> bool:
    if SURE_SEPARATOR.search(name):
        return any(part in known for part in parts)
    if not SEPARATOR.search(name):
        return all(part in plain for part in parts)
    return all(part in known for part in parts) and any(part in plain for part in parts)


def _exactly(name: str) -> str:
    """Return a name as it is shown, with an escape for every accent that is a character of its own."""
    if unicodedata.is_normalized("NFC", name):
        return printable(name)
    return "".join(f"\\u{ord(c):04x}" if unicodedata.combining(c) else printable(c) for c in name)
