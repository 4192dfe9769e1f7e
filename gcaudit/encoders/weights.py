"""Fit the tensors of a checkpoint to a module."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from gcaudit.encoders.causes import spare_cause, weights_cause
from gcaudit.encoders.fingerprint import in_head
from gcaudit.encoders.fit import Fit
from gcaudit.encoders.placing import as_good, places, shapes_of
from gcaudit.encoders.renaming import dropped, renamings, resampled
from gcaudit.encoders.unfilled import take_over
from gcaudit.errors import ArchitectureError, shorten
from gcaudit.report import ReportWarning, warn

_COUNTERS = ("n_averaged", "num_batches_tracked")
_MOST_MISSING = 0.05
"""A backbone that lacks more of its numbers than this is no longer the one that was trained."""
_TRAINING = re.compile(
    r"(AuxLogits|aux\d?|aux_classifier|aux_head|decoder\w*|mask_token|queue\w*|projector|projection_head|predictor|prototypes|pooler)(\.|$)"
)
"""Modules that serve training alone: auxiliary heads, decoders of masked images, what compares images, poolers that no classifier uses."""


def fit_weights(module: nn.Module, tensors: Mapping[str, Tensor], head: tuple[str, ...], prefix: str | None = None) -> Fit:
    """Match tensors to a module, without changing either.

    Args:
        module: the architecture.
        tensors: the checkpoint's tensors.
        head: names of the classifier's modules, which may differ or be absent.
        prefix: before the network's names; None looks for it.

    Returns:
        The match.
    """
    expected = module.state_dict()
    others: tuple[str, ...] = ()
    if prefix is None:
        of_backbone = {name: tensor.shape for name, tensor in expected.items() if not in_head(name, head)}
        found = places({name: tensor.shape for name, tensor in tensors.items()}, of_backbone or shapes_of(module))
        prefix = found[0].prefix if found else ""
        others = tuple(place.prefix for place in as_good(found)[1:])
    matched: dict[str, Tensor] = {}
    unexpected: list[str] = []
    head_left: list[str] = []
    outside: list[str] = []
    misshapen: dict[str, tuple[Tensor, Tensor]] = {}
    resized = False
    for full, tensor in tensors.items():
        name = full.removeprefix(prefix) if full.startswith(prefix) else None
        target = expected.get(name) if name is not None else None
        if name is None or target is None:
            if _is_counter(full, tensor):
                continue
            left = head_left if in_head(name or full, head) else outside if name is None or _TRAINING.match(name) else unexpected
            left.append(full)
        elif target.shape == tensor.shape:
            matched[name] = tensor
        elif in_head(name, head):
            resized = resized or tensor.shape[1:] == target.shape[1:]
            head_left.append(full)
        else:
            misshapen[full] = tensor, target
    ignorable = tuple(name for name in expected if name.rpartition(".")[2] in _COUNTERS)
    absent = [name for name in expected if name not in matched and name not in ignorable]
    bad = {name.removeprefix(prefix) for name in misshapen}
    missing = [name for name in absent if not in_head(name, head) and name not in bad]
    head_absent = any(in_head(name, head) for name in absent)
    state = "resized" if resized else "absent" if head_absent else "fits"
    return Fit(
        prefix, matched, tuple(missing), tuple(unexpected), misshapen, state, tuple(head_left), tuple(outside), prefixes=others
    )


def _is_counter(name: str, tensor: Tensor) -> bool:
    """Tell a count of steps, such as torch's AveragedModel keeps beside the weights."""
    whole = not tensor.is_floating_point() and not tensor.is_complex()
    return tensor.numel() <= 1 and (whole or name.rpartition(".")[2] in _COUNTERS)


def resize_head(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, head: tuple[str, ...]) -> None:
    """Give Linear classifiers the number of classes that the checkpoint has.

    Args:
        module: changed in place.
        tensors: the checkpoint's tensors.
        prefix: stripped from their keys.
        head: names of the classifier's modules.
    """
    for name in head:
        old = dict(module.named_modules()).get(name)
        weight = tensors.get(f"{prefix}{name}.weight")
        if type(old) is nn.Linear and weight is not None and weight.shape[1:] == old.weight.shape[1:]:
            parent, _, leaf = name.rpartition(".")
            bias = f"{prefix}{name}.bias" in tensors
            setattr(module.get_submodule(parent), leaf, nn.Linear(old.in_features, len(weight), bias=bias))


@final
@dataclass(frozen=True)
class Loading:
    """How weights are to be put into a network.

    Attributes:
        allow_missing: make missing and unexpected keys a warning.
        prefix: before the network's names; None looks for it.
        versions: of modules by name, as the file has them; None takes those of the network at hand.
        take_over: the tensors become the network's own without a copy: for networks that hold no other references to theirs.
        unused: of names of parameters of a network whose others are loaded, those that have no say in eval mode.
    """

    allow_missing: bool = False
    prefix: str | None = None
    versions: Mapping[str, int] | None = None
    take_over: bool = False
    unused: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda _names: ()


def load_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], head: tuple[str, ...], how: Loading
) -> tuple[Fit, list[ReportWarning]]:
    """Put tensors into a module.

    Args:
        module: changed in place.
        tensors: the checkpoint's tensors.
        head: names of the classifier's modules.
        how: what is allowed, and what is known.

    Returns:
        The match, and warnings.

    Raises:
        ArchitectureError: the tensors do not fit.
    """
    notes: list[ReportWarning] = []
    fit = fit_weights(module, tensors, head, how.prefix)
    if not fit.complete:
        fit, tensors, notes = _converted(module, tensors, head, fit, how.prefix)
    if fit.head == "resized":
        resize_head(module, tensors, fit.prefix, head)
        fit = fit_weights(module, tensors, head, fit.prefix)
        fit = replace(fit, head="absent") if fit.head == "resized" else fit  # not a Linear: the embedding alone is there
    _check_numbers(module, fit)
    if fit.missing:
        _put(module, fit, how)
        spare = how.unused(fit.missing)
        fit = replace(fit, missing=tuple(name for name in fit.missing if name not in spare))
        if spare:
            notes.append(warn("weights", "modules that are used in training alone are not in the file: {names}", spare))
    lost = _share(module, fit.missing)
    hopeless = bool(fit.misshapen) or lost > _MOST_MISSING
    if not fit.complete and (hopeless or not how.allow_missing):
        shapes = [f"{name} {tuple(found.shape)}, expected {tuple(own.shape)}" for name, (found, own) in fit.misshapen.items()]
        problems = [
            f"{kind}: {shorten(names)}"
            for kind, names in (("wrong shape", shapes), ("missing", fit.missing), ("unexpected", fit.unexpected))
            if names
        ]
        cause = weights_cause(fit, lost) if hopeless else spare_cause(fit)
        raise ArchitectureError(f"expected weights that fit the architecture, found {'; '.join(problems)}; {cause}")
    _put(module, fit, how)
    return fit, notes + _notes(fit)


def _converted(
    module: nn.Module, tensors: Mapping[str, Tensor], head: tuple[str, ...], fit: Fit, prefix: str | None
) -> tuple[Fit, Mapping[str, Tensor], list[ReportWarning]]:
    """Try the libraries' own conversions, of the names as they are and of those behind the prefix."""
    inner = {name.removeprefix(fit.prefix): tensor for name, tensor in tensors.items() if name.startswith(fit.prefix)}
    best: tuple[Fit, Mapping[str, Tensor], list[ReportWarning]] = (fit, tensors, [])
    for given in [inner] if prefix is not None else [tensors, inner] if fit.prefix else [tensors]:
        for library, found in renamings(module, given):
            other = fit_weights(module, found, head)
            if other.complete or other.better_than(best[0]):
                best = other, found, _conversion_notes(library, fit.prefix, given, found, other)
            if other.complete:
                return best
    return best


def _conversion_notes(
    library: str, prefix: str, given: Mapping[str, Tensor], found: Mapping[str, Tensor], fit: Fit
) -> list[ReportWarning]:
    moved = [name for name in fit.tensors if name not in given and prefix + name not in given]
    notes = [warn("weights", f"names of {{n}} tensors were converted as {library} does: {{names}}", moved)] if moved else []
    if left := dropped(given, found) if library == "timm" else []:
        notes.append(warn("weights", "tensors that have no place in timm's architecture are left out: {names}", left))
    if grids := resampled(given, found):
        line = (
            "position embeddings were resampled to the network's grid: {names}; --arch-arg img_size=N builds it for the training's"
        )
        notes.append(warn("weights", line, grids))
    return notes


def _put(module: nn.Module, fit: Fit, how: Loading) -> None:
    """Load, with the versions that modules convert older tensors by."""
    versions = how.versions
    state = OrderedDict(take_over(module, dict(fit.tensors)) if how.take_over else fit.tensors)
    own = {name: dict(said) for name, said in getattr(module.state_dict(), "_metadata", {}).items()}
    if versions is not None:
        start = fit.prefix
        told = {name[len(start) :]: number for name, number in versions.items() if name.startswith(start)}
        told |= {"": versions[start[:-1]]} if start and start[:-1] in versions else {}
        own = {name: {"version": told[name]} if name in told else said for name, said in own.items()}
    state._metadata = own  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=False, assign=how.take_over)


def _notes(fit: Fit) -> list[ReportWarning]:
    found = []
    if fit.prefixes:
        told = [f"{prefix or 'no prefix'}" for prefix in fit.prefixes]
        line = (
            f"the names behind {fit.prefix or 'no prefix'} were taken, those behind {{names}} fit as well; --prefix takes another"
        )
        found.append(warn("weights", line, told))
    if fit.outside:
        found.append(warn("weights", "tensors of other networks and of training are left out: {names}", fit.outside))
    if fit.head_left:
        found.append(
            warn("weights", "tensors of the head that have no place in the network's are left out: {names}", fit.head_left)
        )
    if fit.missing:
        found.append(warn("weights", "tensors that are not in the file are left at random: {names}", fit.missing))
    if fit.unexpected:
        found.append(warn("weights", "tensors of the file that have no place in the network are left out: {names}", fit.unexpected))
    return found


def _check_numbers(module: nn.Module, fit: Fit) -> None:
    """Refuse integers, float8 and complex numbers where the network has floats: they are weights only together with scales kept elsewhere."""
    expected = module.state_dict()
    odd = {
        name: str(tensor.dtype).removeprefix("torch.")
        for name, tensor in fit.tensors.items()
        if expected[name].is_floating_point() and not (tensor.is_floating_point() and tensor.element_size() > 1)
    }
    if odd:
        kinds = ", ".join(sorted(set(odd.values())))
        raise ArchitectureError(
            f"expected floating-point weights, found {kinds} in {len(odd)} tensors ({shorten(list(odd), 3)}): quantised or packed weights; "
            "pass the checkpoint from before quantisation, or a module from Python"
        )


def _share(module: nn.Module, names: Iterable[str]) -> float:
    """Return what part of the network's numbers some tensors hold."""
    expected = module.state_dict()
    whole = sum(int(tensor.numel()) for tensor in expected.values())
    return sum(int(expected[name].numel()) for name in names) / max(1, whole)


def state_digest(module: nn.Module) -> str:
    """Digest the weights of a module, for models that are no file.

    Args:
        module: any module.

    Returns:
        SHA-256 in hex over names, types, shapes and bytes.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
