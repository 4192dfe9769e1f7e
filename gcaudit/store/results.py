"""Results kept on disk by content: what was measured once is never measured again.

One SQLite file in WAL mode. `blocks` holds one model looked at with one data set, `cells` the reports put together of them, `failures` what could
not be done, `models` what a model file was found to be, by its place, size and times. A row is written in one transaction as soon as it is
there, so that whatever ends the process loses the blocks under way and nothing else.

Processes that work on one store share the work by claims: locks on single bytes of a file beside it. The system drops them when their process
ends, however it ends. All processes must be on one machine, as SQLite's WAL demands.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, final

import numpy as np

from gcaudit.audit import Block
from gcaudit.errors import RequestError, one_line
from gcaudit.report import DataBlock, Report, ReportEvidence, ReportWarning, read_warnings
from gcaudit.store.claims import Claims

DEFAULT_STORE = Path("gcaudit.db")
_VERSION = 1
_WAIT_SECONDS = 60
_SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (
    key TEXT PRIMARY KEY, observation TEXT NOT NULL, role TEXT NOT NULL, seconds REAL NOT NULL, content TEXT NOT NULL, arrays BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY, created TEXT NOT NULL, model TEXT NOT NULL, arch TEXT NOT NULL, sha256 TEXT NOT NULL, source TEXT NOT NULL,
    target TEXT, source_block TEXT NOT NULL, target_block TEXT, report TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, created TEXT NOT NULL, model TEXT NOT NULL, source TEXT NOT NULL, target TEXT, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (question TEXT PRIMARY KEY, answer TEXT NOT NULL);
"""


def content_hash(parts: Any) -> str:
    """Name content by what it is made of.

    Args:
        parts: anything that JSON can hold.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@final
@dataclass(frozen=True)
class Cell:
    """A row of the store: a report, or why there is none.

    Attributes:
        key: of its content; of the request when it failed.
        created: when, UTC.
        model: as it was named.
        source: as it was named.
        target: as it was named, or None.
        report: the report; None when it failed.
        reason: why it failed, or None.
    """

    key: str
    created: str
    model: str
    source: str
    target: str | None
    report: Report | None
    reason: str | None


@final
class Store:
    """Results on disk; see the module's description."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Open a store.

        Args:
            path: of the file.
            create: make it when there is none.

        Raises:
            RequestError: it cannot be opened, or is no store.
        """
        self.path = path
        if not path.parent.is_dir():
            raise RequestError(f"expected --store in a folder that exists, found no {path.parent}; make it first")
        if not create and not path.is_file():
            raise RequestError(f"expected a store at {path}, found none; run gcaudit compare first, or pass --store FILE")
        try:
            place = path.absolute()  # SQLite takes :memory: and file: for more than names
            self._db = sqlite3.connect(place, timeout=_WAIT_SECONDS, isolation_level=None)
            self._prepare()
        except sqlite3.Error as error:
            raise RequestError(f"{path}: expected a store of results: {one_line(error)}; pass another --store") from None
        real = path.resolve()  # through a link as well
        self.claims = Claims(real.with_name(f"{real.name}-claims"))

    def _prepare(self) -> None:
        if not self._is_ready():
            with self._transaction():  # another process may be making it at this very moment
                if not self._is_ready():
                    for statement in _SCHEMA.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version={_VERSION}")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")

    def _is_ready(self) -> bool:
        """Tell whether the file is a store; it may be empty."""
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        tables = int(self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if version != _VERSION and (version or tables):
            found = f"version {version}" if version else "another database"
            raise RequestError(f"{self.path}: expected a store of version {_VERSION}, found {found}; pass another --store")
        return version == _VERSION

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self.claims.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def put_block(self, key: str, observation: str, block: Block) -> None:
        """Keep a block.

        Args:
            key: of its content.
            observation: key of the pass that it was measured of.
            block: what was measured.
        """
        content = {
            "data": block.data.model_dump(mode="json"),
            "family": block.family,
            "warnings": [warning.model_dump() for warning in block.warnings],
            "used": dict(block.used),
        }
        arrays = {f"influence/{name}": values.astype(np.float32) for name, values in block.evidence.influences.items()}
        buffer = io.BytesIO()
        np.savez(buffer, digests=block.digests, perceptual=block.perceptual, **arrays)  # type: ignore[arg-type]
        row = (key, observation, block.role, block.seconds, json.dumps(content), buffer.getvalue())
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?)", row)

    def has_block(self, key: str) -> bool:
        """Tell whether a block is there.

        Args:
            key: of its content.
        """
        return self._db.execute("SELECT 1 FROM blocks WHERE key = ?", (key,)).fetchone() is not None

    def get_warnings(self, key: str) -> tuple[ReportWarning, ...] | None:
        """Look up what a report says, without reading the rest of it.

        Args:
            key: of the cell.

        Returns:
            Its warnings; None when it is not there.
        """
        row = self._db.execute("SELECT json_extract(report, '$.warnings') FROM cells WHERE key = ?", (key,)).fetchone()
        return None if row is None else read_warnings(row[0])

    def get_block_warnings(self, key: str) -> tuple[ReportWarning, ...]:
        """Look up what a block says, without reading the rest of it.

        Args:
            key: of its content.

        Returns:
            Its warnings; none when it is not there.
        """
        row = self._db.execute("SELECT json_extract(content, '$.warnings') FROM blocks WHERE key = ?", (key,)).fetchone()
        return () if row is None else read_warnings(row[0])

    def get_block(self, key: str, influences: Collection[str] | None = None) -> Block | None:
        """Look a block up.

        Args:
            key: of its content.
            influences: which to read, as `ROLE.METRIC`; None for all.

        Returns:
            The block, without draws; None when it is not there.
        """
        row = self._db.execute("SELECT role, seconds, content, arrays FROM blocks WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        role, seconds, text, raw = row
        content = json.loads(text)
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            digests, perceptual = file["digests"], file["perceptual"]
            names = [name.removeprefix("influence/") for name in file.files if name.startswith("influence/")]
            wanted = [name for name in names if influences is None or name in influences]
            found = {name: file[f"influence/{name}"].astype(np.float64) for name in wanted}
        return Block(
            role=role,
            data=DataBlock.model_validate(content["data"]),
            evidence=ReportEvidence(found, {}),
            digests=digests,
            perceptual=perceptual,
            family=content["family"],
            warnings=tuple(ReportWarning.model_validate(entry) for entry in content["warnings"]),
            used=content["used"],
            seconds=seconds,
        )

    def put_report(self, report: Report, source_block: str, target_block: str | None) -> None:
        """Keep a report.

        Args:
            report: the report.
            source_block: key of the source's block.
            target_block: key of the target's block, or None.
        """
        model, target = report.model, report.target
        names = (model.spec, model.arch, model.sha256, report.source.spec, None if target is None else target.spec)
        row = (cell_key(source_block, target_block), report.created, *names, source_block, target_block, report.to_json())
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def get_report(self, key: str, influences: Collection[str] | None = None) -> Report | None:
        """Look a report up, with the influences of its blocks.

        Args:
            key: of the cell.
            influences: which to read, as `ROLE.METRIC`; None for all.

        Returns:
            The report; None when it is not there.
        """
        row = self._db.execute("SELECT report, source_block, target_block FROM cells WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        blocks = [block for name in row[1:] if name is not None and (block := self.get_block(name, influences)) is not None]
        found = {name: values for block in blocks for name, values in block.evidence.influences.items()}
        return Report.from_json(row[0]).with_evidence(ReportEvidence(found, {}))

    def put_failure(self, request: str, model: str, source: str, target: str | None, reason: str) -> None:
        """Keep why a cell could not be done.

        Args:
            request: key of what was asked.
            model: as it was named.
            source: as it was named.
            target: as it was named, or None.
            reason: one line.
        """
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)", (request, _now(), model, source, target, reason)
            )

    def drop_failure(self, request: str) -> None:
        """Forget that a cell once failed.

        Args:
            request: key of what was asked.
        """
        self._db.execute("DELETE FROM failures WHERE key = ?", (request,))

    def get_model(self, question: str) -> dict[str, Any] | None:
        """Look up what a model file was found to be.

        Args:
            question: from `content_hash` of its place, size, times and how it is read.

        Returns:
            What `put_model` was given; None when it is not known.
        """
        row = self._db.execute("SELECT answer FROM models WHERE question = ?", (question,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def put_model(self, question: str, answer: Mapping[str, Any]) -> None:
        """Remember what a model file was found to be.

        Args:
            question: from `content_hash`.
            answer: anything that JSON can hold.
        """
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (question, json.dumps(answer)))

    def cells(self, *, failed: bool = True) -> list[Cell]:
        """List what is there.

        Args:
            failed: also what could not be done.

        Returns:
            Cells, oldest first; their reports have no evidence.
        """
        rows = self._db.execute("SELECT key, created, model, source, target, report FROM cells").fetchall()
        found = [
            Cell(key, at, model, source, target, Report.from_json(text), None) for key, at, model, source, target, text in rows
        ]
        if failed:
            rows = self._db.execute("SELECT key, created, model, source, target, reason FROM failures").fetchall()
            found += [Cell(key, at, model, source, target, None, reason) for key, at, model, source, target, reason in rows]
        return sorted(found, key=lambda cell: (cell.created, cell.key))

    def find(self, start: str) -> Cell:
        """Look a cell up by the first characters of its key.

        Args:
            start: of the key.

        Returns:
            The cell.

        Raises:
            RequestError: none or several begin so.
        """
        found = [cell for cell in self.cells() if cell.key.startswith(start)]
        if len(found) != 1:
            raise RequestError(
                f"expected the first characters of one cell's key, found {len(found)} cells for {start!r}; see gcaudit results list"
            )
        return found[0]

    def choose(self, *, failed: bool, model: str | None, older_than: int | None) -> list[str]:
        """Choose cells to remove; conditions are taken together.

        Args:
            failed: only those that failed.
            model: only models whose name or architecture matches this glob.
            older_than: only those older than so many days.

        Returns:
            Their keys.
        """
        limit = "" if older_than is None else (datetime.now(UTC) - timedelta(days=older_than)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return [
            cell.key
            for cell in self.cells()
            if (not failed or cell.report is None)
            and (older_than is None or cell.created < limit)
            and (
                model is None or fnmatch(cell.model, model) or (cell.report is not None and fnmatch(cell.report.model.arch, model))
            )
        ]

    def remove(self, keys: list[str]) -> int:
        """Remove cells, blocks and kept embeddings that no cell needs any more, and what is known of model files.

        Args:
            keys: of cells.

        Returns:
            How many cells were removed.
        """
        with self._transaction():
            removed = 0
            for key in keys:
                removed += self._db.execute("DELETE FROM cells WHERE key = ?", (key,)).rowcount
                removed += self._db.execute("DELETE FROM failures WHERE key = ?", (key,)).rowcount
            self._db.execute(
                "DELETE FROM blocks WHERE key NOT IN (SELECT source_block FROM cells) "
                "AND key NOT IN (SELECT target_block FROM cells WHERE target_block IS NOT NULL)"
            )
            self._db.execute("DELETE FROM models")
        self._db.execute("VACUUM")
        needed = {row[0] for row in self._db.execute("SELECT observation FROM blocks")}
        for path in observations_folder(self.path).glob("*.safetensors"):
            if path.stem not in needed:
                path.unlink(missing_ok=True)
        return removed


def observations_folder(store: Path) -> Path:
    """Name the folder of kept embeddings.

    Args:
        store: path of the store.

    Returns:
        It lies beside the store.
    """
    return store.with_name(f"{store.name}.embeddings")


def cell_key(source_block: str, target_block: str | None) -> str:
    """Name a cell by its blocks.

    Args:
        source_block: key of the source's block.
        target_block: key of the target's block, or None.

    Returns:
        64 hexadecimal digits.
    """
    return content_hash([source_block, target_block])
