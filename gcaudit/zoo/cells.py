"""Many models on many data sets: what is missing in the store is measured, what is there is taken.

A cell is one model on one source and one target. Its two blocks are measured apart, so that a model looks at a source once for all targets, and a
new target costs no second look at the source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from gcaudit.audit import AuditSpec, Block, assemble_report, check_target, refuse_warnings, takes_held_out
from gcaudit.data import DataRequest, ImageSet, content_key, open_data
from gcaudit.errors import AuditError, DataError, GcauditError, RequestError, printable
from gcaudit.metrics import Role
from gcaudit.report import Report, ReportWarning
from gcaudit.store import (
    ModelIdentity,
    Store,
    block_key,
    cell_key,
    content_hash,
    model_question,
    observation_key,
    observations_folder,
)
from gcaudit.zoo.engine import Engine, Failure, Task, failure_of
from gcaudit.zoo.names import place_title
from gcaudit.zoo.waiting import MAX_WAIT_MINUTES, Patience, Say, say_nothing


@final
@dataclass(frozen=True)
class CellRequest:
    """One model on one source and one target.

    Attributes:
        model: its name, for people.
        source: the source's name.
        target: the target's name, or None.
        spec: what is asked.
    """

    model: str
    source: str
    target: str | None
    spec: AuditSpec

    @property
    def title(self) -> str:
        """Such as `resnet18: cifar10 -> dtd`."""
        return f"{self.model}: {place_title(self.source, self.target)}"

    @property
    def key(self) -> str:
        """Digest of what was asked, under which a failure is kept."""
        spec = self.spec
        options = {"model": spec.model.spec, "source": spec.source.spec, "target": spec.target.spec} | spec.to_options()
        options |= {"device": "auto", "workers": None}  # neither keeps a cell from being done
        asked = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return content_hash([self.model, self.source, self.target, f"AuditSpec({asked})"])


@final
@dataclass(frozen=True)
class CellResult:
    """What came of a cell.

    Attributes:
        request: the cell.
        report: with evidence; None when it failed.
        reason: why it failed, or None.
        fresh: whether any of it was measured just now.
    """

    request: CellRequest
    report: Report | None
    reason: str | None
    fresh: bool


@final
@dataclass
class _Plan:
    """A cell on its way: the keys of its blocks, or why it cannot be done."""

    request: CellRequest
    identity: ModelIdentity | None = None
    keys: dict[Role, str] | None = None
    target_images: ImageSet | None = None
    warnings: tuple[ReportWarning, ...] = ()
    said: tuple[ReportWarning, ...] = ()
    reason: str | None = None
    fresh: bool = False
    done: bool = False

    def refuse(self, warnings: Sequence[ReportWarning]) -> None:
        """Take warnings as a reason for which the cell cannot be done."""
        try:
            refuse_warnings(warnings)
        except RequestError as error:
            self.reason = str(error)


Note = Callable[[CellResult, int, int], None]
"""Told of a cell that is done or has failed, of how many there are by now, and of how many in all."""


def no_note(_result: CellResult, _done: int, _total: int) -> None:
    """Take no note of cells."""


@final
class _DataSets:
    """Data sets, each opened and named once."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[ImageSet, str, str] | Failure] = {}

    def find(self, request: DataRequest) -> tuple[ImageSet, str, str]:
        """Open a data set, name its content and take its fingerprint, or raise an error with the reason that this could not be done the first time."""
        name = repr(request)
        if name not in self._found:
            try:
                images = open_data(request)
                self._found[name] = images, *content_key(images)
            except Exception as error:
                self._found[name] = failure_of(error)
        found = self._found[name]
        if isinstance(found, Failure):
            raise DataError(found.reason)
        return found


@final
class Scheduler:
    """Has an engine measure what a store lacks."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        *,
        refresh: bool = False,
        keep: bool = False,
        strict: bool = False,
        influences: Collection[str] | None = None,
        max_wait: float = MAX_WAIT_MINUTES,
        say: Say = say_nothing,
    ) -> None:
        """Make ready.

        Args:
            store: where results are kept.
            engine: that does the work.
            refresh: measure again what is there.
            keep: keep embeddings.
            strict: let cells fail whose reports would have warnings.
            influences: which the reports are given, as `ROLE.METRIC`; None for all, which takes much memory where cells are many.
            max_wait: minutes to wait for other processes without any of their blocks coming.
            say: told for whom it waits.
        """
        self._store, self._engine = store, engine
        self._refresh, self._keep, self._strict, self._influences = refresh, keep, strict, influences
        self._patience = Patience(store.claims, max_wait, say)
        self._fresh: set[str] = set()
        self._observations: dict[str, str] = {}
        self._fingerprints: dict[str, str] = {}

    def run(self, requests: Sequence[CellRequest], note: Note = no_note) -> list[CellResult]:
        """Measure what is missing.

        Args:
            requests: the cells.
            note: told of each cell as it is done or has failed, and of how many of how many are.

        Returns:
            What came of each, in the order given.
        """
        plans = [_Plan(request) for request in requests]
        self._name_models(plans)
        self._name_blocks(plans)
        total = len(plans)

        users: dict[str, list[_Plan]] = {}
        for plan in plans:
            for key in (plan.keys or {}).values():
                users.setdefault(key, []).append(plan)
        done = 0

        def settle(some: Sequence[_Plan]) -> None:
            nonlocal done
            for plan in some:
                if not plan.done and self._settle(plan):
                    done += 1
                    note(self._result(plan), done, total)

        settle(plans)
        for task, outcome in self._engine.run(self._missing(users)):
            if isinstance(outcome, Failure):
                for plan in users[task.key]:
                    plan.reason = plan.reason or outcome.reason
            elif isinstance(outcome, Block):
                self._store.put_block(task.key, self._observations[task.key], outcome)
                self._fresh.add(task.key)
            self._store.claims.release(task.key)
            settle(users[task.key])
        settle(plans)
        return [self._result(plan) for plan in plans]

    def _name_models(self, plans: list[_Plan]) -> None:
        """Find out what the models are, each once; those that are known from before are not loaded."""
        waiting: dict[str, list[_Plan]] = {}
        for plan in plans:
            waiting.setdefault(repr(plan.request.spec.model), []).append(plan)
        unknown: list[Task] = []
        questions: dict[str, str | None] = {}
        for name, group in waiting.items():
            request = group[0].request
            questions[name] = question = model_question(request.spec.model)
            known = None if question is None or self._refresh else self._store.get_model(question)
            if known is None:
                unknown.append(Task(name, request.spec, None, request.model))
            for plan in group:
                plan.identity = None if known is None else ModelIdentity.from_json(known)
        for task, outcome in self._engine.run(iter(unknown)):
            for plan in waiting[task.key]:
                if isinstance(outcome, ModelIdentity):
                    plan.identity = outcome
                elif isinstance(outcome, Failure):
                    plan.reason = outcome.reason
            question = questions[task.key]
            if isinstance(outcome, ModelIdentity) and question is not None:
                self._store.put_model(question, outcome.to_json())

    def _name_blocks(self, plans: list[_Plan]) -> None:
        data = _DataSets()
        for plan in plans:
            if plan.identity is None:
                continue
            spec, keys = plan.request.spec, {}
            try:
                for role in plan.request.spec.roles:
                    images, content, fingerprint = data.find(spec.data_request(role))
                    seen = observation_key(plan.identity, spec, role, content)
                    held_out = data.find(spec.held_out)[1] if takes_held_out(spec, role) else None
                    keys[role] = block_key(seen, spec, role, held_out)
                    self._observations[keys[role]] = seen
                    self._fingerprints[keys[role]] = fingerprint
                    plan.warnings += tuple(warning.about(role) for warning in images.warnings)
                    if role == "target":
                        plan.warnings += check_target(spec, images)
                        plan.target_images = images
                plan.warnings += plan.identity.warnings
                plan.keys = keys
                if self._strict:
                    known = (
                        []
                        if self._refresh
                        else [warning for key in keys.values() for warning in self._store.get_block_warnings(key)]
                    )
                    plan.refuse((*plan.warnings, *known))
            except GcauditError as error:
                plan.reason = str(error)

    def _missing(self, users: dict[str, list[_Plan]]) -> Iterator[Task | None]:
        """List what has to be measured; what another process has under way comes last, if it is still missing then.

        It never waits: it yields None instead, so that results under way can come in, and two processes never wait for each other.
        """
        later = []
        claims = self._store.claims
        for key, group in users.items():
            if not self._needed(key, group):
                continue
            if not claims.claim(key):
                later.append(key)
            elif self._needed(key, group):  # it may have come while the claim was made
                yield self._task(key, group[0])
            else:
                claims.release(key)
        while later:
            claimed = [key for key in later if claims.claim(key)]
            if not claimed:
                if (reason := self._patience.lose(later)) is not None:
                    for plan in (plan for key in later for plan in users[key]):
                        plan.reason = plan.reason or reason
                    return
                yield None
            for key in claimed:
                later.remove(key)
                if self._needed(key, users[key]):
                    yield self._task(key, users[key][0])
                else:
                    claims.release(key)

    def _needed(self, key: str, group: list[_Plan]) -> bool:
        if all(plan.reason is not None for plan in group) or key in self._fresh:
            return False
        return self._refresh or not self._store.has_block(key)

    def _task(self, key: str, plan: _Plan) -> Task:
        role: Role = next(role for role, name in (plan.keys or {}).items() if name == key)
        data = plan.request.source if role == "source" else plan.request.target
        path = observations_folder(self._store.path) / f"{self._observations[key]}.safetensors"
        reuse = path.is_file() and not self._refresh
        return Task(
            key,
            plan.request.spec,
            role,
            f"{plan.request.model}: {role} {data}",
            path,
            reuse=reuse,
            keep=self._keep,
            sha256=None if plan.identity is None else plan.identity.model.sha256,
            fingerprint=self._fingerprints[key],
        )

    def _settle(self, plan: _Plan) -> bool:
        """Put a cell's report together if its blocks are there; tell whether the cell is at its end."""
        request, keys = plan.request, plan.keys
        if plan.reason is not None:
            self._store.put_failure(request.key, request.model, request.source, request.target, plan.reason)
            plan.done = True
            return True
        assert keys is not None
        assert plan.identity is not None
        ready = all(key in self._fresh or (not self._refresh and self._store.has_block(key)) for key in keys.values())
        if not ready:
            return False
        plan.fresh = any(key in self._fresh for key in keys.values())
        key = cell_key(keys["source"], keys.get("target"))
        stored = None if plan.fresh else self._store.get_warnings(key)
        try:
            report = self._assemble(plan, plan.identity, keys) if stored is None else None
        except AuditError as error:
            plan.reason = str(error)
            return self._settle(plan)
        plan.said = self._said(plan, keys, stored or ()) if report is None else report.warnings
        if self._strict and plan.said:
            plan.refuse(plan.said)
            return self._settle(plan)
        names = (request.model, request.source, request.target)
        known = plan.said == stored and self._store.get_names(key) == names
        if report is None and not known and (before := self._store.get_report(key, ())) is not None:
            report = before.model_copy(update={"warnings": plan.said})
        if report is not None:
            self._store.put_report(report, keys["source"], keys.get("target"), names)
        self._store.drop_failure(request.key)
        plan.done = True
        return True

    def _said(self, plan: _Plan, keys: Mapping[Role, str], stored: Sequence[ReportWarning]) -> tuple[ReportWarning, ...]:
        """Say of a stored report what it would say today: more may be left out than before, and data of other names have the same content."""
        blocks = [warning for key in keys.values() for warning in self._store.get_block_warnings(key)]
        shared = [warning for warning in stored if warning.kind == "shared"]
        return tuple(dict.fromkeys((*plan.warnings, *blocks, *shared)))

    def _assemble(self, plan: _Plan, identity: ModelIdentity, keys: Mapping[Role, str]) -> Report:
        spec = plan.request.spec
        blocks = [block for key in keys.values() if (block := self._store.get_block(key)) is not None]
        if len(blocks) < len(keys):  # a report of the others would be taken for one of all
            raise AuditError(
                f"{self._store.path}: expected what was measured of {plan.request.title}, found it damaged; run it again"
            )
        preprocessing = identity.model.preprocessing.model_copy(update={"input_space": spec.run.input_space})
        names = {"spec": printable(str(spec.model.spec)), "preprocessing": preprocessing}
        return assemble_report(
            spec,
            identity.model.model_copy(update=names),
            *blocks,
            warnings=plan.warnings,
            seconds=sum(block.seconds for block in blocks),
            target_images=plan.target_images,
        )

    def _result(self, plan: _Plan) -> CellResult:
        if plan.reason is not None or plan.keys is None:
            return CellResult(plan.request, None, plan.reason or "it was not reached", fresh=False)
        report = self._store.get_report(cell_key(plan.keys["source"], plan.keys.get("target")), self._influences)
        if report is None and plan.done and plan.identity is not None:  # pruned a moment ago
            try:
                report = self._assemble(plan, plan.identity, plan.keys)
            except AuditError as error:
                return CellResult(plan.request, None, str(error), fresh=plan.fresh)
        report = report and report.model_copy(update={"warnings": plan.said})  # cells of equal content share what is stored
        return CellResult(plan.request, report, None if report else "it was not reached", fresh=plan.fresh)
