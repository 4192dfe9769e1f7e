"""Blocks <-> what a row holds of them: JSON, and arrays as an .npz archive."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gcaudit.audit import Block
from gcaudit.files import read_arrays
from gcaudit.geometry import ClassSummary
from gcaudit.report import DataBlock, ReportEvidence, ReportWarning

_MOST_ARRAY_BYTES = 2**30
_KEPT = ("influence", "episodes")
_SUMMARY = ("means", "counts", "variances", "complexities")


def pack_block(block: Block) -> tuple[str, bytes]:
    """Write a block; influences are kept in single precision, draws are not.

    Args:
        block: what was measured.

    Returns:
        JSON, and the bytes of its arrays.
    """
    content = {
        "data": block.data.model_dump(mode="json"),
        "family": block.family,
        "warnings": [warning.model_dump() for warning in block.warnings],
        "used": dict(block.used),
        "decode_seconds": block.decode_seconds,
    }
    arrays = {f"influence/{name}": values.astype(np.float32) for name, values in block.evidence.influences.items()}
    arrays |= {f"episodes/{name}": values.astype(np.float32) for name, values in block.evidence.episodes.items()}
    if block.summary is not None:
        content["summary"] = {"names": block.summary.names, "reason": block.summary.reason}
        parts = {name: getattr(block.summary, name) for name in _SUMMARY}
        arrays |= {f"summary/{name}": values.numpy() for name, values in parts.items() if values is not None}
    buffer = io.BytesIO()
    np.savez(buffer, digests=block.digests, perceptual=block.perceptual, **arrays)  # type: ignore[arg-type]
    return json.dumps(content), buffer.getvalue()


def unpack_block(row: Mapping[str, Any], influences: Collection[str] | None) -> Block:
    """Make a block of its row.

    Args:
        row: its columns by name.
        influences: which to read, as `ROLE.METRIC`; None for all.

    Returns:
        The block, without draws.

    Raises:
        Exception: the row is no block; there are many ways.
    """
    content = json.loads(row["content"])

    def wanted(name: str) -> bool:
        lead, slash, metric = name.partition("/")
        return not slash or lead not in _KEPT or influences is None or metric in influences

    arrays = read_arrays(io.BytesIO(row["arrays"]), _MOST_ARRAY_BYTES, wanted)
    found: dict[str, dict[str, NDArray[np.float64]]] = {lead: {} for lead in _KEPT}
    for name, values in arrays.items():
        lead, slash, metric = name.partition("/")
        if slash and lead in found:
            found[lead][metric] = values.astype(np.float64)
    return Block(
        role=row["role"],
        data=DataBlock.model_validate(content["data"]),
        evidence=ReportEvidence(found["influence"], {}, found["episodes"]),
        digests=arrays["digests"],
        perceptual=arrays["perceptual"],
        family=content["family"],
        warnings=tuple(ReportWarning.model_validate(entry) for entry in content["warnings"]),
        used=content["used"],
        seconds=row["seconds"],
        decode_seconds=content.get("decode_seconds", 0.0),
        summary=_summary(content.get("summary"), arrays),
    )


def _summary(said: Mapping[str, Any] | None, arrays: Mapping[str, NDArray[Any]]) -> ClassSummary | None:
    if said is None:
        return None
    parts: dict[str, Any] = {name: arrays.get(f"summary/{name}") for name in _SUMMARY}
    tensors = {name: None if values is None else torch.from_numpy(values.copy()) for name, values in parts.items()}
    return ClassSummary(tuple(said["names"]), reason=said["reason"], **tensors)  # type: ignore[arg-type]
