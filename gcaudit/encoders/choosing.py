"""Which architecture a checkpoint's weights are put into, and which of its sets of weights: by what was asked for, by what the file says, by names and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch

from gcaudit.checkpoints import Checkpoint, Hints, WeightSet
from gcaudit.encoders.architectures import Architecture, build_architecture, default_config, known_names
from gcaudit.encoders.identification import network_set
from gcaudit.encoders.limits import at_most, room_for
from gcaudit.encoders.placing import best_set, shapes_of
from gcaudit.encoders.preprocessing import PARTS, preprocessing_from
from gcaudit.encoders.request import ModelRequest
from gcaudit.encoders.transformers_models import build_transformers
from gcaudit.errors import ArchitectureError, printable
from gcaudit.report import ReportWarning, warn

# with these timm reads further files: a checkpoint may not ask for that
FILE_ARGUMENTS = {"pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
AUTO = "auto"


def asked_for(request: ModelRequest) -> bool:
    """Tell whether the user has named an architecture."""
    return request.arch not in (None, AUTO)


def names_of(request: ModelRequest, hints: Hints) -> list[str]:
    """List what the architecture may be called, by what was asked for or else by what the file says; none where neither says it."""
    if request.arch is not None:
        return [request.arch] if asked_for(request) else []
    if hints.arch is None:
        return []
    # a file may never name the user's own code, nor transformers' without the configuration that goes with it
    theirs = ("timm:", "torchvision:") if hints.config is None else ("timm:", "torchvision:", "transformers:")
    return [hints.arch] if hints.arch.startswith(theirs) else known_names(hints.arch)


def pick_set(request: ModelRequest, sets: Sequence[WeightSet], hints: Hints) -> WeightSet:
    """Take the set of weights that fits the architecture best, or that is one's where none is named."""
    names = names_of(request, hints)
    start = request.prefix or ""
    if not names:
        return network_set(sets, start)
    arguments = {**_hinted(hints, names[0]), **request.arch_args}
    most = room_for(sum(one.numbers for one in sets)) if request.max_parameters is None else request.max_parameters
    ours = names[0].startswith(("timm:", "torchvision:"))
    for device in ("meta", "cpu") if ours else ("cpu",):
        with suppress(ArchitectureError), at_most(most, names[0]), torch.device(device):  # not every one can be built on meta
            return best_set(sets, shapes_of(build_said(hints, names[0], arguments).module), start)
    return sets[0]  # what is wrong with the architecture is told when it is built for good


def _hinted(hints: Hints, arch: str) -> dict[str, Any]:
    """Return the arguments that a file has for an architecture of timm."""
    if not arch.startswith(("timm:", "hf-hub:")):
        return {}
    return {key: value for key, value in hints.arch_args.items() if key not in FILE_ARGUMENTS and key != "bn_eps"}


def build_said(hints: Hints, arch: str, arguments: Mapping[str, Any]) -> Architecture:
    """Build an architecture, one of transformers of the configuration that lies beside the weights."""
    if arch.startswith("transformers:"):
        if hints.config is None:
            raise ArchitectureError(f"expected a folder with config.json for {printable(arch[:80])}, found none; name the folder")
        return build_transformers(arch, {**hints.config, **arguments})
    return build_architecture(arch, arguments)


def contradiction(asked: str, said: str | None) -> list[ReportWarning]:
    """Tell that the checkpoint names another architecture than the one that was asked for."""
    if said is None or _base_name(asked) == _base_name(said):
        return []
    return [
        warn(
            "architecture",
            f"{asked} was asked for and the checkpoint names {printable(said[:80])}; leave --arch out to take that one",
        )
    ]


def _base_name(name: str) -> str:
    """Drop the library and the tag of the weights."""
    return name.rpartition(":")[2].partition(".")[0].rpartition("/")[2]


def two_families(checkpoint: Checkpoint, names: Sequence[str]) -> list[ReportWarning]:
    """Tell that timm and torchvision both know a bare name and prepare pictures for it in other ways."""
    if len(names) < 2 or set(checkpoint.hints.preprocessing) >= set(PARTS):
        return []
    found = [preprocessing_from(default_config(name), name) for name in names]
    others = [part for part in PARTS if getattr(found[0], part) != getattr(found[1], part)]
    told = [part for part in others if part not in checkpoint.hints.preprocessing]
    if not told:
        return []
    values = "; ".join(f"{part}: {' or '.join(str(getattr(one, part)) for one in found)}" for part in told)
    return [
        warn(
            "architecture",
            f"{' and '.join(names)} prepare pictures in other ways ({values}), and {names[0]} was taken; name yours with --arch",
        )
    ]
