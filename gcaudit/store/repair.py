"""A damaged store -> a sound one with the rows that can still be read and are as they were written; the damaged file is kept."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gcaudit.errors import AuditError, RequestError, one_line
from gcaudit.store.database import Database, check_header, connect, has_tables, shut_others_out
from gcaudit.store.rows import TABLES, is_sound

_SIDES = ("", "-wal", "-shm")
_UNREADABLE = (sqlite3.Error, UnicodeError)
"""The second of names of columns, and of errors that have them."""


@final
@dataclass(frozen=True)
class Repair:
    """What came of it.

    Attributes:
        kept: rows by table.
        lost: rows by table that could be seen but not be read, or were not as they were written; what left no trace is not counted.
        moved: where the damaged file is now; None where nothing was wrong and nothing was done.
    """

    kept: Mapping[str, int]
    lost: Mapping[str, int]
    moved: Path | None


def repair_store(path: Path) -> Repair:
    """Write a store anew from what is sound in it, and put the old one beside it.

    Args:
        path: of the store; no process may have it open.

    Returns:
        What was kept, and where the damaged file is.

    Raises:
        RequestError: there is none, it is no store of this version, or another process has it open.
        AuditError: no room for another.
    """
    path = path.resolve()
    if not path.exists():
        raise RequestError(f"expected a store at {path}, found none; pass --store FILE")
    check_header(path)
    try:
        with closing(connect(path, 0)) as old:
            _keep_others_out(old, path)
            return _repair(old, path)
    except _UNREADABLE as error:
        raise AuditError(
            f"{path}: expected to repair the store: {one_line(error)}; copy it to another disk and repair it there"
        ) from None


def _keep_others_out(old: sqlite3.Connection, path: Path) -> None:
    try:
        alone = shut_others_out(old)
    except _UNREADABLE:
        return  # damaged beyond locks, so that nobody can work with it
    if not alone:
        raise RequestError(f"{path}: expected a store that no process uses, found it open in another; end that first")


def _repair(old: sqlite3.Connection, path: Path) -> Repair:
    kept, lost = dict.fromkeys(TABLES, 0), dict.fromkeys(TABLES, 0)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".gcaudit-") as folder:
        fresh = Path(folder) / path.name
        database = Database(fresh, create=True)
        with closing(database), database.transaction():
            for table in TABLES:
                for row in _rows(old, table):
                    sound = row is not None and is_sound(table, row)
                    (kept if sound else lost)[table] += 1
                    if row is not None and sound:
                        database.put(table, row[:-1])
        if not any(lost.values()) and _is_whole(old):
            return Repair(kept, lost, None)
        moved = _free_name(path)
        for side in _SIDES:
            with suppress(FileNotFoundError):
                path.with_name(path.name + side).rename(moved.with_name(moved.name + side))
        fresh.rename(path)
    return Repair(kept, lost, moved)


def _is_whole(old: sqlite3.Connection) -> bool:
    try:
        return has_tables(old) and bool(old.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
    except _UNREADABLE:
        return False


def _rows(old: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...] | None]:
    """Read all rows that any way leads to; None for those that are seen and cannot be read."""
    places: dict[int, None] = {}
    for order in (
        "rowid",
        "rowid DESC",
        "key",
        "key DESC",
    ):  # from both ends, by table and by index
        with suppress(*_UNREADABLE):
            for (place,) in old.execute(f"SELECT rowid FROM {table} ORDER BY {order}"):
                places[place] = None
    for place in places:
        try:
            found = old.execute(f"SELECT * FROM {table} WHERE rowid = ?", (place,)).fetchone()
        except _UNREADABLE:
            found = None
        yield found if found is not None and len(found) == len(TABLES[table]) + 1 else None


def _free_name(path: Path) -> Path:
    tried = [path.with_name(f"{path.name}.damaged{end}") for end in ("", *(f"-{number}" for number in range(2, 1000)))]
    return next(place for place in tried if not place.exists())
