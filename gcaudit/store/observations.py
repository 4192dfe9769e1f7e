"""Observations kept on disk as safetensors, mapped into memory when read: a new metric then costs no forward pass."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gcaudit.errors import AuditError, one_line
from gcaudit.geometry import ClassMoments, Evidence, Flatness, LogitEnergies, Rows
from gcaudit.passes import Observation
from gcaudit.report import ReportWarning
from gcaudit.store.identity import OBSERVATION

_OPTIONAL = ("energies", "energy_rows", "predictions", "logits", "head_weight")
_REASONS = ("predictions_reason", "logits_reason", "head_reason", "flatness_reason", "lipschitz_reason")
_WORDS = ("fingerprint", "estimator", "vectors", "lipschitz", *_REASONS)


def _whole(rows: Rows) -> Tensor:
    found = rows if isinstance(rows, Tensor) else rows[slice(None)]
    return found.contiguous()


def _digest(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> str:
    state = hashlib.blake2b(json.dumps(dict(said), sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def save_observation(path: Path, observation: Observation, used: Mapping[str, Any]) -> None:
    """Write an observation so that it is there whole or not at all.

    Args:
        path: of the file; its folder is made.
        observation: of a pass.
        used: how the pass was run.

    Raises:
        AuditError: it cannot be written.
    """
    evidence = observation.evidence
    tensors = {
        "embeddings": _whole(evidence.embeddings),
        "labels": evidence.labels,
        "digests": observation.digests,
        "perceptual": _whole(observation.perceptual),
        "moments.counts": evidence.moments.counts,
        "moments.means": evidence.moments.means,
        "moments.squares": evidence.moments.squares,
    }
    optional = {name: getattr(evidence, name) for name in _OPTIONAL}
    tensors |= {name: _whole(values) for name, values in optional.items() if values is not None}
    words = {name: getattr(evidence, name) for name in _WORDS} | {"class_names": evidence.class_names}
    words |= {name: getattr(observation, name) for name in ("seconds", "device", "batch_size", "left_alone", "decode_seconds")}
    words["flatness"] = None if evidence.flatness is None else evidence.flatness.to_json()
    if (logits := evidence.logit_energies) is not None:
        tensors["logit_energies"] = logits.values
        words["logit_energies"] = (logits.estimator, logits.vectors)
    words["warnings"] = [warning.model_dump() for warning in observation.warnings]
    handle, temporary = -1, Path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".gcaudit-")
        os.close(handle)
        temporary = Path(name)
        said = {"format": OBSERVATION, "observation": json.dumps(words), "used": json.dumps(dict(used))}
        save_file(tensors, temporary, metadata={**said, "digest": _digest(tensors, said)})
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        if handle >= 0:
            temporary.unlink(missing_ok=True)
        raise AuditError(f"expected to keep embeddings in {path}: {one_line(error)}; leave --keep-embeddings out") from error


def load_observation(path: Path) -> tuple[Observation, dict[str, Any]] | None:
    """Read an observation back; its embeddings stay in the file until they are needed.

    Args:
        path: of the file.

    Returns:
        What was written; None when there is no such file, or it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            digest = metadata.pop("digest", "")
            if metadata.get("format") != OBSERVATION:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if _digest(tensors, metadata) != digest:
            return None
        words = json.loads(metadata["observation"])
        moments = ClassMoments(*tensors["moments.means"].shape)
        moments.counts, moments.means, moments.squares = (tensors[f"moments.{name}"] for name in ("counts", "means", "squares"))
        rest: dict[str, Any] = {name: tensors.get(name) for name in _OPTIONAL} | {name: words[name] for name in _WORDS}
        logits = words.get("logit_energies")
        evidence = Evidence(
            logit_energies=None if logits is None else LogitEnergies(tensors["logit_energies"], *logits),
            flatness=None if words["flatness"] is None else Flatness.from_json(words["flatness"]),
            embeddings=tensors["embeddings"],
            labels=tensors["labels"],
            class_names=tuple(words["class_names"]),
            moments=moments,
            **rest,
        )
        observation = Observation(
            evidence=evidence,
            digests=tensors["digests"],
            perceptual=tensors["perceptual"],
            warnings=tuple(ReportWarning.model_validate(entry) for entry in words["warnings"]),
            seconds=words["seconds"],
            device=words["device"],
            batch_size=words["batch_size"],
            left_alone=words.get("left_alone", 0),
            decode_seconds=words.get("decode_seconds", 0.0),
        )
        return observation, json.loads(metadata["used"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
