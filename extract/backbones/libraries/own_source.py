"""The source text that a network of the user depends on: its module, and what that imports from next to it.

All modules of its package count, and those that they import by statements and that are below the same folder as the
module itself. Installed packages are not followed: they have versions.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

INSTALLED = frozenset({"site-packages", "dist-packages"})
PACKAGE_FILE = "__init__.py"


def source_digest(path: Path) -> str:
    """Return the SHA-256 of the text of a module and of the modules that it depends on."""
    package = path.parent if (path.parent / PACKAGE_FILE).is_file() else None
    own = sorted(package.rglob("*.py")) if package else [path]
    files = [*own, *_imported(own, _root_of(path))]
    digests = [hashlib.sha256(each.read_bytes()).hexdigest() for each in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _root_of(path: Path) -> Path:
    """Return the folder that the module is imported from, above its packages."""
    folder = path.parent
    while (folder / PACKAGE_FILE).is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def _imported(own: list[Path], root: Path) -> list[Path]:
    """Return the modules below `root` that these import, and that those import, without these; sorted."""
    if root.name in INSTALLED:
        return []
    seen, waiting = set(own), list(own)
    while waiting:
        for name in _imports(waiting.pop(), root):
            new = [file for file in _files_of(name, root) if file not in seen]
            seen.update(new)
            waiting += new
    return sorted(seen - set(own))


def _imports(file: Path, root: Path) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names in the import statements of a module, in parts; none where it is no Python."""
    tree = ast.Module([], [])
    with contextlib.suppress(SyntaxError, ValueError, OSError, RecursionError):
        tree = ast.parse(file.read_bytes())
    package = file.parent.relative_to(root).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = (*start, *(node.module.split(".") if node.module else ()))
            yield from ((*base, alias.name) for alias in node.names)


def _files_of(name: tuple[str, ...], root: Path) -> Iterator[Path]:
    """Yield the files of a module below `root` and of the packages that it is in; the last part may be no module."""
    for n in range(1, len(name) + 1):
        place = root.joinpath(*name[:n])
        for file in (place.with_name(f"{place.name}.py"), place / PACKAGE_FILE):
            if file.is_file():
                yield file
