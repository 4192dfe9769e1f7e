"""What a measurement depends on, by content: the keys under which results are kept.

A model is the sha256 of its weights, its architecture, the layer and the preprocessing; a data set the digest of its classes, labels and encoded
images. To learn the first a model has to be loaded once; what was learned is remembered for the file's place, size, inode and times.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from gcaudit.audit import AuditSpec, model_block
from gcaudit.encoders import Encoder, ModelRequest
from gcaudit.metrics import Role
from gcaudit.report import SCHEMA, ModelBlock, ReportWarning
from gcaudit.store.cells import content_hash

OBSERVATION = "gcaudit.observation/3"
"""Version of what a pass keeps."""


@final
@dataclass(frozen=True)
class ModelIdentity:
    """What a model is.

    Attributes:
        model: its block of the report.
        warnings: what the report should say of it.
        code: digest of the file that `--arch FILE.py:FACTORY` names; empty for published architectures.
        said: digest of what the checkpoint says of its architecture, and of the library that builds it; empty where it says nothing.
    """

    model: ModelBlock
    warnings: tuple[ReportWarning, ...]
    code: str
    said: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "model": self.model.model_dump(mode="json"),
            "warnings": [warning.model_dump() for warning in self.warnings],
            "code": self.code,
            "said": self.said,
        }

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> ModelIdentity:
        """Read it back.

        Args:
            found: from `to_json`.
        """
        return ModelIdentity(
            ModelBlock.model_validate(found["model"]),
            tuple(map(ReportWarning.model_validate, found["warnings"])),
            found["code"],
            found.get("said", ""),
        )


def identify(encoder: Encoder, request: ModelRequest) -> ModelIdentity:
    """Say what a loaded model is.

    Args:
        encoder: the model.
        request: that it was loaded by.

    Returns:
        Its identity.
    """
    hints = None if encoder.checkpoint is None else encoder.checkpoint.hints
    said: list[Any] = (
        [] if hints is None else [*([hints.arch_args] if hints.arch_args else []), *([hints.config] if hints.config else [])]
    )
    if hints is not None and hints.config:
        said.append(version("transformers"))
    return ModelIdentity(model_block(encoder), encoder.warnings, _code_digest(request.arch), content_hash(said) if said else "")


def _code_digest(arch: str | None) -> str:
    """Digest the user's own code of an architecture."""
    if arch is None or arch.startswith(("timm:", "torchvision:", "hf-hub:")):
        return ""
    name = arch.rpartition(":")[0]
    path = Path(name)
    if path.suffix != ".py":
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return ""
        path = Path(found.origin) if found is not None and found.origin else path
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def model_question(request: ModelRequest) -> str | None:
    """Name a model as far as that is possible without reading it.

    Args:
        request: which, and how.

    Returns:
        A digest of the file's place, size, inode and times and of how it is read; None for what may change unseen: a module, and a model of
        the hub without its revision.
    """
    spec = request.spec
    if not isinstance(spec, str):
        return None
    if spec.startswith(("timm:", "torchvision:")) or spec == "demo":
        files: list[Any] = []
    elif spec.startswith("hf-hub:"):
        if "@" not in spec:
            return None
        files = []
    else:
        path = Path(spec)
        try:
            inside = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            states = [(str(p.resolve()), p.stat()) for p in inside]
        except OSError:
            return None
        files = [(name, s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for name, s in states]
        if not files:
            return None
    versions = [version(name) for name in ("gcaudit", "timm", "torch", "torchvision")]
    changes = {key: value for key, value in request.changes.items() if value is not None}
    arguments = {key: repr(value) for key, value in request.arch_args.items()}
    where = [request.weights_key, request.prefix]
    how = [request.arch, arguments, request.ema, *where, request.allow_missing, request.layer, changes]
    return content_hash([spec, files, versions, how, _code_digest(request.arch)])


def observation_key(identity: ModelIdentity, spec: AuditSpec, role: Role, data: str) -> str:
    """Name what a pass sees.

    Args:
        identity: of the model.
        spec: what is asked.
        role: of the data set.
        data: from `content_key`.

    Returns:
        64 hexadecimal digits.
    """
    model = identity.model
    preprocessing = model.preprocessing.model_dump(mode="json", exclude={"origin", "assumed", "input_space"})
    preprocessing["leaves_input_size"] = "crop_pct" in model.preprocessing.assumed
    run, passes, asked = spec.run, spec.pass_settings(role), spec.model
    settings: dict[str, Any] = {"precision": run.precision, "skip_bad_images": passes.skip_bad_images}
    settings |= {name: True for name in ("logit_gc", "flatness", "lipschitz") if getattr(passes, name)}
    energies = passes.gc_images != 0
    if energies or passes.flatness:
        settings |= {"seed": run.seed}
    if energies or passes.lipschitz:
        settings |= {"input_space": run.input_space}
    if energies:
        settings |= {"gc": run.estimator, "vectors": run.vectors}
        settings |= {"gc_images": passes.gc_images, "gc_rtol": passes.gc_rtol}
    # the user's own code is named by its content, wherever it lies
    arch = model.arch.rpartition(":")[2] if identity.code else model.arch
    where = [asked.weights_key, asked.prefix]
    how = [{key: repr(value) for key, value in asked.arch_args.items()}, asked.ema, *where, asked.allow_missing]
    weights = [model.sha256, model.container, arch, identity.code, how, *([identity.said] if identity.said else [])]
    return content_hash([SCHEMA, OBSERVATION, weights, model.layer, model.embedding, preprocessing, data, energies, settings])


def block_key(observation: str, spec: AuditSpec, role: Role, held_out: str | None = None) -> str:
    """Name what is measured of a pass.

    Args:
        observation: from `observation_key`.
        spec: what is asked.
        role: of the data set.
        held_out: from `content_key`, of images of the source's classes; None for none.

    Returns:
        64 hexadecimal digits.
    """
    metrics = spec.chosen_metrics(role)
    probe = None
    if any(metric.has_shots for metric in metrics):
        asked = spec.probe
        probe = [asked.n_way, asked.n_shot, asked.n_query, asked.episodes, asked.ridge, asked.seed]
    names = [metric.name for metric in metrics]
    across = (
        [metric.name for metric in spec.across] if role == "target" else []
    )  # which the report of both has, and is kept under their keys
    further = [*(["summary", *across] if spec.across else []), *([held_out] if held_out else [])]
    return content_hash([observation, role, names, probe, *further])
