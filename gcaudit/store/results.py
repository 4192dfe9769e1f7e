"""Results kept on disk by content: what was measured once is never measured again.

One SQLite file in WAL mode, of rows with checksums (see `database`). `blocks` holds one model looked at with one data set, `cells` the reports
put together of them, `failures` what could not be done, `models` what a model file was found to be, by its place, size and times. A row is
written in one transaction as soon as it is there, so that whatever ends the process loses the blocks under way and nothing else.

Processes that work on one store share the work by claims: locks on single bytes of a file beside it. The system drops them when their process
ends, however it ends. All processes must be on one machine, as SQLite's WAL demands.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gcaudit.errors import GcauditError
from gcaudit.report import Report, ReportEvidence, ReportWarning
from gcaudit.store.cells import Cell, cell_key, cell_of
from gcaudit.store.claims import Claims
from gcaudit.store.database import Database
from gcaudit.store.rows import digest_of

if TYPE_CHECKING:
    from gcaudit.audit import Block

DEFAULT_STORE = Path("gcaudit.db")


@final
@dataclass(frozen=True)
class Pruned:
    """What was removed.

    Attributes:
        removed: cells.
        left: whether blocks and embeddings that no cell needs were left, since another process has the store open.
    """

    removed: int
    left: bool


@final
class Store:
    """Results on disk; see the module's description."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Open a store.

        Args:
            path: of the file.
            create: make it when there is none.

        Raises:
            RequestError: it cannot be opened, is no store, or is damaged.
            AuditError: it cannot be written.
        """
        self.path = path
        self._db = Database(path, create=create)
        self._sound: set[str] = set()
        real = path.resolve()  # through a link as well
        self.claims = Claims(real.with_name(f"{real.name}-claims"))

    @property
    def damaged(self) -> int:
        """How many rows were found not to be as they were written; they were taken for missing."""
        return len(self._db.damaged)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self.claims.close()

    def put_block(self, key: str, observation: str, block: Block) -> None:
        """Keep a block.

        Args:
            key: of its content.
            observation: key of the pass that it was measured of.
            block: what was measured.

        Raises:
            AuditError: it cannot be written.
        """
        from gcaudit.store.blocks import pack_block

        content, raw = pack_block(block)
        self._db.put("blocks", (key, observation, block.role, block.seconds, content, digest_of(raw), raw))
        self._sound.add(key)

    def has_block(self, key: str) -> bool:
        """Tell whether a block is there and sound.

        Args:
            key: of its content.
        """
        if key not in self._sound and self.get_block(key, ()) is not None:
            self._sound.add(key)
        return key in self._sound

    def get_warnings(self, key: str) -> tuple[ReportWarning, ...] | None:
        """Look up what a report says.

        Args:
            key: of the cell.

        Returns:
            Its warnings; None when it is not there.
        """
        row = self._db.get("cells", key)
        report = None if row is None else self._report(row)
        return None if report is None else report.warnings

    def get_block_warnings(self, key: str) -> tuple[ReportWarning, ...]:
        """Look up what a block says.

        Args:
            key: of its content.

        Returns:
            Its warnings; none when it is not there.
        """
        row = self._db.get("blocks", key)
        return () if row is None else tuple(map(ReportWarning.model_validate, json.loads(row["content"])["warnings"]))

    def get_block(self, key: str, influences: Collection[str] | None = None) -> Block | None:
        """Look a block up.

        Args:
            key: of its content.
            influences: which to read, as `ROLE.METRIC`; None for all.

        Returns:
            The block, without draws; None when it is not there.
        """
        from gcaudit.store.blocks import unpack_block  # here, since reports are listed without arrays

        row = self._db.get("blocks", key, raw=True)
        if row is None:
            return None
        try:
            return unpack_block(row, influences)
        except Exception:  # a true digest of what is no block: another program wrote it
            self._db.mark_damaged("blocks", key)
            return None

    def put_report(
        self, report: Report, source_block: str, target_block: str | None, names: tuple[str, str, str | None] | None = None
    ) -> None:
        """Keep a report.

        Args:
            report: the report.
            source_block: key of the source's block.
            target_block: key of the target's block, or None.
            names: what model, source and target are called; None for what they were asked for by.

        Raises:
            AuditError: it cannot be written.
        """
        model, target = report.model, report.target
        called, source, looked_at = names or (model.spec, report.source.spec, None if target is None else target.spec)
        key = cell_key(source_block, target_block)
        told = (called, model.arch, model.sha256, source, looked_at)
        self._db.put("cells", (key, report.created, *told, source_block, target_block, report.to_json()))

    def get_names(self, key: str) -> tuple[str, str, str | None] | None:
        """Look up what a cell's model, source and target were called last.

        Args:
            key: of the cell.

        Returns:
            The names; None when it is not there.
        """
        row = self._db.get("cells", key)
        return None if row is None else (row["model"], row["source"], row["target"])

    def get_report(self, key: str, influences: Collection[str] | None = None) -> Report | None:
        """Look a report up, with the influences of its blocks.

        Args:
            key: of the cell.
            influences: which to read, as `ROLE.METRIC`; None for all.

        Returns:
            The report; None when it is not there.
        """
        row = self._db.get("cells", key)
        report = None if row is None else self._report(row)
        if row is None or report is None:
            return None
        names = (row["source_block"], row["target_block"])
        blocks = [block for name in names if name is not None and (block := self.get_block(name, influences)) is not None]
        found = {name: values for block in blocks for name, values in block.evidence.influences.items()}
        episodes = {name: values for block in blocks for name, values in block.evidence.episodes.items()}
        return report.with_evidence(ReportEvidence(found, {}, episodes))

    def _report(self, row: Mapping[str, Any]) -> Report | None:
        try:
            return Report.from_json(row["report"])
        except (GcauditError, ValueError, TypeError):
            self._db.mark_damaged("cells", row["key"])
            return None

    def put_failure(self, request: str, model: str, source: str, target: str | None, reason: str) -> None:
        """Keep why a cell could not be done.

        Args:
            request: key of what was asked.
            model: as it was named.
            source: as it was named.
            target: as it was named, or None.
            reason: one line.

        Raises:
            AuditError: it cannot be written.
        """
        self._db.put("failures", (request, _now(), model, source, target, reason))

    def drop_failure(self, request: str) -> None:
        """Forget that a cell once failed.

        Args:
            request: key of what was asked.
        """
        self._db.delete("failures", request)

    def get_model(self, question: str) -> dict[str, Any] | None:
        """Look up what a model file was found to be.

        Args:
            question: from `content_hash` of its place, size, times and how it is read.

        Returns:
            What `put_model` was given; None when it is not known.
        """
        row = self._db.get("models", question)
        return None if row is None else dict(json.loads(row["answer"]))

    def put_model(self, question: str, answer: Mapping[str, Any]) -> None:
        """Remember what a model file was found to be.

        Args:
            question: from `content_hash`.
            answer: anything that JSON can hold.
        """
        self._db.put("models", (question, json.dumps(answer)))

    def cells(self, *, failed: bool = True) -> list[Cell]:
        """List what is there and sound.

        Args:
            failed: also what could not be done.

        Returns:
            Cells, oldest first; their reports have no evidence.
        """
        rows = self._db.rows("cells")
        found = [cell_of(row, report, None) for row in rows if (report := self._report(row)) is not None]
        if failed:
            found += [cell_of(row, None, row["reason"]) for row in self._db.rows("failures")]
        return sorted(found, key=lambda cell: (cell.created, cell.key))

    def choose(self, *, failed: bool = False, model: str | None = None, older_than: int | None = None) -> list[str]:
        """Choose cells to remove; conditions are taken together.

        Args:
            failed: only those that failed.
            model: only models whose name, path or architecture matches this glob.
            older_than: only those older than so many days.

        Returns:
            Their keys.
        """
        limit = "" if older_than is None else _days_ago(older_than)
        return [
            cell.key
            for cell in self.cells()
            if (not failed or cell.report is None)
            and (older_than is None or cell.created < limit)
            and (
                model is None
                or fnmatch(cell.model, model)
                or (
                    cell.report is not None
                    and any(fnmatch(name, model) for name in (cell.report.model.spec, cell.report.model.arch))
                )
            )
        ]

    def prune(self, *, failed: bool = False, model: str | None = None, older_than: int | None = None) -> Pruned:
        """Remove cells, chosen as by `choose`; and what no cell needs any more, unless another process may be about to need it.

        Args:
            failed: only those that failed.
            model: only models whose name, path or architecture matches this glob.
            older_than: only those older than so many days.

        Returns:
            How many cells were removed, and whether blocks were left.

        Raises:
            AuditError: it cannot be written.
        """
        with self._db.alone() as alone:
            keys = self.choose(failed=failed, model=model, older_than=older_than)
            removed = sum(self._db.delete("cells", key) + self._db.delete("failures", key) for key in keys)
            if alone:
                self._remove_unneeded()
        return Pruned(removed, left=not alone)

    def _remove_unneeded(self) -> None:
        """Remove blocks and kept embeddings that no cell needs, and what is known of model files."""
        needed = {row[name] for row in self._db.rows("cells") for name in ("source_block", "target_block")}
        observations = set()
        for row in list(self._db.rows("blocks")):
            if row["key"] in needed:
                observations.add(row["observation"])
            else:
                self._db.delete("blocks", row["key"])
                self._sound.discard(row["key"])
        for row in list(self._db.rows("models")):
            self._db.delete("models", row["key"])
        for path in observations_folder(self.path).glob("*.safetensors"):
            if path.stem not in observations:
                path.unlink(missing_ok=True)


def _now() -> str:
    return _days_ago(0)


def _days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def damage_of(store: Store) -> str | None:
    """Say how much of a store was found damaged.

    Args:
        store: that has been read.

    Returns:
        One line; None when nothing was.
    """
    if not store.damaged:
        return None
    return f"{store.damaged} rows of {store.path} are damaged and were taken for missing; run gcaudit results repair --store {store.path}"


def observations_folder(store: Path) -> Path:
    """Name the folder of kept embeddings.

    Args:
        store: path of the store.

    Returns:
        It lies beside the store.
    """
    return store.with_name(f"{store.name}.embeddings")
