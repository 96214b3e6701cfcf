"""Checks of the memo's database: a lock, damage, and tables that are not its own."""

from __future__ import annotations

import sqlite3

# Results of SQLite if a file is locked, or is on a network disk whose locks do not work. The low byte is the error.
LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS}
LOCK_FAILURES = {sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_RDLOCK}
TABLES = ("digests", "requests", "refused", "uses")


def is_locked(error: sqlite3.OperationalError) -> bool:
    """Whether an error says that another program has locked the file, or that it cannot be locked."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in LOCKED or code in LOCK_FAILURES


def is_damaged(database: sqlite3.Connection) -> bool:
    """Whether the structure of the file is damaged; False where it cannot be read."""
    try:
        return bool(database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.OperationalError:
        return False
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return True


def check_schema(database: sqlite3.Connection) -> None:
    """Raise DatabaseError for a file with more than the memo's tables: a view or a trigger could falsify them."""
    found = database.execute(
        "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    strange = next((name for kind, name in found if kind != "table" or name not in TABLES), None)
    if strange is not None:
        raise sqlite3.DatabaseError(f"unexpected table, view or trigger: {strange}")
