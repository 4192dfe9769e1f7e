"""Fit the tensors of a checkpoint to a module."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from gcaudit.checkpoints import WRAPPERS
from gcaudit.encoders.causes import spare_cause, weights_cause
from gcaudit.encoders.fit import Fit
from gcaudit.errors import ArchitectureError, shorten
from gcaudit.report import ReportWarning, warn

_MAX_NESTING = 6
_COUNTERS = ("n_averaged", "num_batches_tracked")
_MOST_MISSING = 0.05
"""A backbone that lacks more of its numbers than this is no longer the one that was trained."""


def best_prefix(names: Iterable[str], expected: Iterable[str]) -> str:
    """Find the wrapper prefix that makes most names fit.

    Args:
        names: the checkpoint's keys.
        expected: the module's keys.

    Returns:
        A chain of `WRAPPERS`, the shortest among equally good ones, often empty.
    """
    given, wanted = set(names), set(expected)
    chains, frontier = [""], [""]
    for _ in range(_MAX_NESTING):
        frontier = [c + p for c in frontier for p in WRAPPERS if any(name.startswith(c + p) for name in given)]
        chains += frontier
    return max(chains, key=lambda chain: (sum(chain + name in given for name in wanted), -len(chain)))


def fit_weights(module: nn.Module, tensors: Mapping[str, Tensor], head: tuple[str, ...]) -> Fit:
    """Match tensors to a module, without changing either.

    Args:
        module: the architecture.
        tensors: the checkpoint's tensors.
        head: names of the classifier's modules, which may differ or be absent.

    Returns:
        The match.
    """
    expected = module.state_dict()
    prefix = best_prefix(tensors, expected)
    of_head = tuple(f"{name}." for name in head)
    matched: dict[str, Tensor] = {}
    unexpected: list[str] = []
    head_left: list[str] = []
    misshapen: dict[str, tuple[Tensor, Tensor]] = {}
    resized = False
    for full, tensor in tensors.items():
        name = full.removeprefix(prefix) if full.startswith(prefix) else None
        target = expected.get(name) if name is not None else None
        if name is None or target is None:
            if not _is_counter(full, tensor):
                (head_left if (name or full).startswith(of_head or ("\0",)) else unexpected).append(full)
        elif target.shape == tensor.shape:
            matched[name] = tensor
        elif of_head and name.startswith(of_head):
            resized = resized or tensor.shape[1:] == target.shape[1:]
            head_left.append(full)
        else:
            misshapen[full] = tensor, target
    ignorable = tuple(name for name in expected if name.rpartition(".")[2] in _COUNTERS)
    absent = [name for name in expected if name not in matched and name not in ignorable]
    bad = {name.removeprefix(prefix) for name in misshapen}
    missing = [name for name in absent if not name.startswith(of_head or ("\0",)) and name not in bad]
    head_absent = of_head and any(name.startswith(of_head) for name in absent)
    state = "resized" if resized else "absent" if head_absent else "fits"
    return Fit(prefix, matched, tuple(missing), tuple(unexpected), misshapen, state, tuple(head_left))


def _is_counter(name: str, tensor: Tensor) -> bool:
    """Tell a count of steps, such as torch's AveragedModel keeps beside the weights."""
    return tensor.ndim == 0 and name.rpartition(".")[2] in _COUNTERS


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


def load_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], head: tuple[str, ...], allow_missing: bool
) -> tuple[Fit, list[ReportWarning]]:
    """Put tensors into a module.

    Args:
        module: changed in place.
        tensors: the checkpoint's tensors.
        head: names of the classifier's modules.
        allow_missing: make missing and unexpected keys a warning.

    Returns:
        The match, and warnings.

    Raises:
        ArchitectureError: the tensors do not fit.
    """
    fit = fit_weights(module, tensors, head)
    if fit.head == "resized":
        resize_head(module, tensors, fit.prefix, head)
        fit = fit_weights(module, tensors, head)
        fit = replace(fit, head="absent") if fit.head == "resized" else fit  # not a Linear: the embedding alone is there
    _check_numbers(module, fit)
    lost = _share(module, fit.missing)
    hopeless = bool(fit.misshapen) or lost > _MOST_MISSING
    if not fit.complete and (hopeless or not allow_missing):
        shapes = [f"{name} {tuple(found.shape)}, expected {tuple(own.shape)}" for name, (found, own) in fit.misshapen.items()]
        problems = [
            f"{kind}: {shorten(names)}"
            for kind, names in (("wrong shape", shapes), ("missing", fit.missing), ("unexpected", fit.unexpected))
            if names
        ]
        cause = weights_cause(fit, lost) if hopeless else spare_cause(fit)
        raise ArchitectureError(f"expected weights that fit the architecture, found {'; '.join(problems)}; {cause}")
    module.load_state_dict(dict(fit.tensors), strict=False)
    found = []
    if fit.head_left:
        found.append(
            warn("weights", "tensors of the head that have no place in the network's are left out: {names}", fit.head_left)
        )
    if fit.missing:
        found.append(warn("weights", "tensors that are not in the file are left at random: {names}", fit.missing))
    if fit.unexpected:
        found.append(warn("weights", "tensors of the file that have no place in the network are left out: {names}", fit.unexpected))
    return fit, found


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
