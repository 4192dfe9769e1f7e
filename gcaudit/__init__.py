"""gcaudit: audit pre-trained vision checkpoints for transfer.

    gcaudit.score(model, source=..., target=...) -> Report
    gcaudit.measure(embeddings, labels) -> {metric: Estimate}
    gcaudit.energies(embed, images) -> energies of the images
    gcaudit.compare(models, sources, targets) -> Ranked
    gcaudit.gate(report, rules, baseline) -> GateResult

Names are imported when they are first used, so that `gcaudit --help` need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcaudit.audit import run_audit, score
    from gcaudit.errors import GcauditError
    from gcaudit.gates import gate
    from gcaudit.geometry.estimate import Estimate
    from gcaudit.geometry.jacobian import energies
    from gcaudit.geometry.ridge import ProbeSettings
    from gcaudit.metrics import METRICS, measure
    from gcaudit.rank_zoo import Ranked, RankRequest, compare
    from gcaudit.report.schema import Report
    from gcaudit.spec import AuditSpec

_HOMES = {
    "AuditSpec": "gcaudit.spec",
    "Estimate": "gcaudit.geometry.estimate",
    "GcauditError": "gcaudit.errors",
    "METRICS": "gcaudit.metrics",
    "ProbeSettings": "gcaudit.geometry.ridge",
    "RankRequest": "gcaudit.rank_zoo",
    "Ranked": "gcaudit.rank_zoo",
    "Report": "gcaudit.report.schema",
    "compare": "gcaudit.rank_zoo",
    "energies": "gcaudit.geometry.jacobian",
    "gate": "gcaudit.gates",
    "measure": "gcaudit.metrics",
    "run_audit": "gcaudit.audit",
    "score": "gcaudit.audit",
}

__all__ = [
    "METRICS",
    "AuditSpec",
    "Estimate",
    "GcauditError",
    "ProbeSettings",
    "RankRequest",
    "Ranked",
    "Report",
    "compare",
    "energies",
    "gate",
    "measure",
    "run_audit",
    "score",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gcaudit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
