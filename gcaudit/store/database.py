"""A SQLite file of rows with checksums: what was damaged on disk, or is another program's, is told and never taken for a result.

Each row ends with a digest of its other columns, but for raw bytes, whose own digest is among those. A row that has changed since it was written
is as good as none. Files of other programs and versions are told by their header, before SQLite touches them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from gcaudit.errors import AuditError, RequestError, one_line, telling_paths
from gcaudit.files import OpenFile
from gcaudit.store.rows import RAW, STATEMENTS, TABLES, digest_of, is_sound, names_of, storable

VERSION = 2
APPLICATION = 0x67634175
"""Marks SQLite files as stores, in their header."""
_WAIT_SECONDS = 60
_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")

Row = dict[str, Any]


@final
class Database:
    """The file; rows go in and come out, each in a transaction of its own unless one is open."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open it.

        Args:
            path: of the file.
            create: make it when there is none.

        Raises:
            RequestError: there is none, or it is no store, one of another version, or damaged.
            AuditError: it cannot be written.
        """
        self.path = path
        self.damaged: set[tuple[str, str]] = set()
        """Rows whose digest is not theirs, by table and key."""
        with telling_paths("a store", RequestError):
            parent, there = path.parent.is_dir(), path.exists()
        if not parent:
            raise RequestError(f"expected --store in a folder that exists, found no {path.parent}; make it first")
        if not create and not there:
            raise RequestError(f"expected a store at {path}, found none; run gcaudit compare first, or pass --store FILE")
        check_header(path)
        with self._told():
            self._db = connect(path, _WAIT_SECONDS)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        if int(self._db.execute("PRAGMA user_version").fetchone()[0]) != VERSION:
            with self.transaction():  # another process may be making it at this very moment
                if not self._is_ready():
                    for statement in STATEMENTS.values():
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA application_id={APPLICATION}")
                    self._db.execute(f"PRAGMA user_version={VERSION}")
        if not has_tables(self._db):
            raise damaged_error(self.path, "its tables are not as they were made")
        self._use_wal()
        self._db.execute("PRAGMA synchronous=NORMAL")

    def _use_wal(self) -> None:
        """Write ahead; of two processes that come at once, SQLite refuses one without letting it wait."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while self._db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith(_BUSY) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _is_ready(self) -> bool:
        """Tell whether it is a store, or empty; the header on disk is older than what others have not yet moved into the file."""
        version, application = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("user_version", "application_id")
        )
        tables = int(self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if version or tables:
            _check_version(self.path, version, application)
        return version == VERSION

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what SQLite's errors mean."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(error) from None
        except UnicodeError as error:  # names of columns
            raise damaged_error(self.path, one_line(error)) from None

    def _error(self, error: sqlite3.Error) -> AuditError | RequestError:
        name = getattr(error, "sqlite_errorname", "")
        if (
            name == "SQLITE_ERROR" or name.startswith(_DAMAGED) or "malformed" in str(error)
        ):  # the first: tables that are not as they were made
            return damaged_error(self.path, one_line(error))
        if name.startswith(_BUSY):
            return AuditError(
                f"{self.path}: expected to use the store, found it locked by another process for {_WAIT_SECONDS} s; end that, and run again"
            )
        if name.startswith("SQLITE_CANTOPEN"):
            return RequestError(f"{self.path}: expected a store of results: {one_line(error)}; pass another --store")
        if name.startswith("SQLITE_READONLY"):
            return RequestError(
                f"{self.path}: expected a store that can be written: {one_line(error)}; see its permissions, or pass another --store"
            )
        return AuditError(
            f"{self.path}: expected to keep results in the store: {one_line(error)}; free the disk or pass another --store, and run again: "
            "what the store has is not measured again"
        )

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """Do all or nothing.

        Args:
            kind: `IMMEDIATE`, or `EXCLUSIVE` to keep readers out as well.

        Raises:
            AuditError: it cannot be written.
        """
        with self._told():
            self._db.execute(f"BEGIN {kind}")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Be in one transaction and, if nobody else has the file open, keep everybody out until its end.

        Yields:
            Whether everybody is kept out.

        Raises:
            AuditError: it cannot be written.
        """
        with self._told():
            self._db.execute("PRAGMA busy_timeout=0")
            try:
                alone = shut_others_out(self._db)
            finally:
                self._db.execute(f"PRAGMA busy_timeout={_WAIT_SECONDS * 1000}")
        if not alone:
            with self.transaction():
                yield False
            with self._told():
                self._use_wal()  # of the file that somebody opened a moment ago
            return
        with self._told():
            try:
                yield True
                self._db.execute("COMMIT")
                with suppress(sqlite3.OperationalError):  # somebody has opened it since; the next time will do
                    self._db.execute("VACUUM")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._use_wal()

    def put(self, table: str, row: tuple[Any, ...]) -> None:
        """Write a row in place of that of the same key.

        Args:
            table: one of `TABLES`.
            row: its columns.

        Raises:
            AuditError: it cannot be written.
        """
        row = tuple(storable(value) for value in row)
        plain = [value for name, value in zip(TABLES[table], row, strict=True) if name != RAW]
        marks = ", ".join("?" * (len(row) + 1))
        with self._told():
            self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*row, digest_of(plain)))
        self.damaged.discard((table, row[0]))

    def get(self, table: str, key: str, *, raw: bool = False) -> Row | None:
        """Read a row.

        Args:
            table: one of `TABLES`.
            key: of the row.
            raw: also its raw bytes.

        Returns:
            Its columns by name; None when it is not there, or not as it was written.

        Raises:
            RequestError: the file is damaged.
        """
        with self._told():
            found = self._db.execute(
                f"SELECT {', '.join((*names_of(table, raw=raw), 'digest'))} FROM {table} WHERE key = ?", (key,)
            ).fetchone()
        return None if found is None else self._checked(table, found, raw=raw)

    def rows(self, table: str) -> Iterator[Row]:
        """Read the rows of a table without their raw bytes, but those that are not as they were written.

        Args:
            table: one of `TABLES`.

        Yields:
            Columns by name.

        Raises:
            RequestError: the file is damaged.
        """
        with self._told():
            found = self._db.execute(
                f"SELECT {', '.join((*names_of(table, raw=False), 'digest'))} FROM {table} ORDER BY rowid"
            ).fetchall()
        seen = set()
        for values in found:
            if values[0] not in seen and (row := self._checked(table, values, raw=False)) is not None:
                seen.add(values[0])
                yield row

    def delete(self, table: str, key: str) -> int:
        """Remove a row.

        Args:
            table: one of `TABLES`.
            key: of the row.

        Returns:
            How many there were.

        Raises:
            AuditError: it cannot be written.
        """
        with self._told():
            return self._db.execute(f"DELETE FROM {table} WHERE key = ?", (key,)).rowcount

    def _checked(self, table: str, values: tuple[Any, ...], *, raw: bool) -> Row | None:
        if not is_sound(table, values, raw=raw):
            self.mark_damaged(table, str(values[0]))
            return None
        return dict(zip(names_of(table, raw=raw), values[:-1], strict=True))

    def mark_damaged(self, table: str, key: str) -> None:
        """Take note of a row that is not what it should be; make sure that the file is sound where it is the first.

        Args:
            table: one of `TABLES`.
            key: of the row.

        Raises:
            RequestError: the file is damaged.
        """
        first = not self.damaged
        self.damaged.add((table, key))
        if first:
            with self._told():
                found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise damaged_error(self.path, " ".join(str(found).split()))


def connect(path: Path, seconds: float) -> sqlite3.Connection:
    """Open a file of rows; text that is none is read all the same, and its row told by its digest.

    Args:
        path: of the file.
        seconds: to wait for others.

    Returns:
        The connection.
    """
    # SQLite takes :memory: and file: for more than names
    found = sqlite3.connect(path.absolute(), timeout=seconds, isolation_level=None)
    found.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    return found


def shut_others_out(database: sqlite3.Connection) -> bool:
    """Begin a transaction that nobody else can read or write beside, where nobody else has the file open.

    Args:
        database: that does not wait for others.

    Returns:
        Whether it has begun.
    """
    try:  # a file that others have open cannot leave the WAL mode
        if database.execute("PRAGMA journal_mode=DELETE").fetchone()[0] != "delete":
            return False
        database.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if not error.sqlite_errorname.startswith(_BUSY):
            raise
        return False
    return True


def has_tables(database: sqlite3.Connection) -> bool:
    """Tell whether the tables are as they were made.

    Args:
        database: open.
    """
    found = dict(database.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'").fetchall())
    return found == STATEMENTS


def damaged_error(path: Path, what: str) -> RequestError:
    """Make the refusal of a damaged file.

    Args:
        path: of the file.
        what: is wrong with it.

    Returns:
        The error to raise.
    """
    return RequestError(f"{path}: expected a sound store, found it damaged ({what}); run gcaudit results repair --store {path}")


def check_header(path: Path) -> None:
    """Refuse what is no store by its first bytes, so that SQLite does nothing to it; an empty file may become one.

    Args:
        path: of the file; it may not be there.

    Raises:
        RequestError: it is no store, or one of another version.
    """
    try:
        with OpenFile(path) as file:
            start, size = file.file.read(_HEADER_BYTES), file.size
    except FileNotFoundError:
        return
    except OSError as error:
        raise RequestError(f"{path}: expected a store of results, found {error.strerror}; pass another --store") from None
    if not size:
        return
    version, application = (int.from_bytes(start[place : place + 4], "big") for place in (60, 68))
    if not start.startswith(_MAGIC):
        raise _foreign(path, "another file")
    _check_version(path, version, application)


def _check_version(path: Path, version: int, application: int) -> None:
    if application not in (0, APPLICATION):
        found = "another program's database"
    elif application == 0 or version < VERSION:
        found = "a store of version 1, which had no checksums" if version == 1 else "another database"
    elif version > VERSION:
        found = f"version {version}, of a newer gcaudit"
    else:
        return
    raise _foreign(path, found)


def _foreign(path: Path, found: str) -> RequestError:
    return RequestError(f"{path}: expected a store of results of version {VERSION}, found {found}; pass another --store")
