"""Loading a model: published, from a file, or a module; its embedding is taken once to see that it works."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gcaudit.bundled import bundled_path
from gcaudit.checkpoints import WEIGHT_SUFFIXES, Checkpoint, Hints, WeightSet, read_checkpoint
from gcaudit.encoders.architectures import Architecture, build_architecture, describe_module, known_names
from gcaudit.encoders.behaviour import behaviour_warnings, check_module
from gcaudit.encoders.causes import image_cause
from gcaudit.encoders.choosing import AUTO, FILE_ARGUMENTS, asked_for, build_said, contradiction, names_of, pick_set, two_families
from gcaudit.encoders.encoder import Encoder
from gcaudit.encoders.fit import Fit
from gcaudit.encoders.hub_folders import transformers_folder
from gcaudit.encoders.identification import behind, identified
from gcaudit.encoders.limits import at_most, room_for
from gcaudit.encoders.nodes import check_node, named_tap
from gcaudit.encoders.preprocessing import Preprocessing, override, preprocessing_from
from gcaudit.encoders.request import ModelRequest
from gcaudit.encoders.taps import Tap, captured, classifier_tap, dry_input, head_modules, main_output, pre_logits_tap
from gcaudit.encoders.transformers_models import EMBEDDING
from gcaudit.encoders.unfilled import Unfilled
from gcaudit.encoders.weights import Loading, load_weights, state_digest
from gcaudit.errors import ArchitectureError, CheckpointError, GcauditError, RequestError, one_line, printable, telling_paths
from gcaudit.report import ReportWarning, warn

_MOST_PIXELS = 2**22
"""Of an input that nobody has typed."""
_LARGEST_ARGUMENT = 2**16
"""Of what a file says of its own architecture."""
_LARGEST_MEAN = 3
"""No mean or standard deviation of pixels in [0, 1] is above it."""


def load_encoder(request: ModelRequest) -> Encoder:
    """Load a model.

    Args:
        request: which, and how.

    Returns:
        The encoder, on the CPU.

    Raises:
        GcauditError: the file, the architecture or their match is wrong.
    """
    if isinstance(request.spec, torch.jit.ScriptModule):
        raise RequestError(
            "expected a module of torch.nn, found a TorchScript program, whose layers cannot be looked into; pass its source"
        )
    if isinstance(request.spec, nn.Module):
        name = f"{type(request.spec).__module__}.{type(request.spec).__qualname__}"
        try:
            own = copy.deepcopy(request.spec)
        except Exception as error:  # a module may hold anything
            raise RequestError(f"expected a module that can be copied, found {type(error).__name__}: {one_line(error)}") from error
        return _finish(request, describe_module(name, own), None, None, [])
    if request.spec == "demo":
        return _from_checkpoint(request, read_checkpoint(bundled_path("demo-model")))
    if _is_published(request.spec):
        if request.arch is not None:
            raise RequestError(f"expected --arch with a file only, found it with {request.spec}; drop --arch")
        if request.spec.startswith("hf-hub:") and (folder := transformers_folder(request.spec)) is not None:
            return replace(load_encoder(replace(request, spec=folder)), spec=printable(request.spec))
        architecture = build_architecture(request.spec, request.arch_args, pretrained=True)
        return _finish(request, architecture, None, None, [])
    if request.ema and request.weights_key is not None:
        raise RequestError(f"expected --ema or --weights-key, found both; --weights-key {request.weights_key} alone says which")
    with telling_paths("a checkpoint", CheckpointError):
        _check_is_path(request.spec)
        checkpoint = read_checkpoint(request.spec, ema=request.ema, key=request.weights_key, choose=partial(pick_set, request))
    return _from_checkpoint(request, checkpoint)


def _is_published(spec: str) -> bool:
    return spec.startswith(("timm:", "hf-hub:", "torchvision:"))


def _check_is_path(spec: str) -> None:
    path = Path(spec)
    if not spec.strip():
        raise CheckpointError("expected a checkpoint, found an empty name; type a path, timm:NAME, torchvision:NAME or demo")
    if path.exists() or path.suffix in WEIGHT_SUFFIXES or spec.startswith((".", "/", "~")):
        return
    if spec.count("/") == 1 and not spec.endswith("/"):
        raise CheckpointError(
            f"expected a checkpoint, found no file {spec!r}; for a model of the hub type hf-hub:{spec}, for a file check the path"
        )
    readings = " or ".join(known_names(spec)) or f"timm:{spec} or torchvision:{spec}"
    raise CheckpointError(f"expected a checkpoint, found no file {spec!r}; for a published model type {readings}")


def _from_checkpoint(request: ModelRequest, checkpoint: Checkpoint) -> Encoder:
    hints = checkpoint.hints
    names = names_of(request, hints)
    if names and asked_for(request):
        return _as_asked(request, checkpoint, names[0])
    if hints.arch is None or request.arch == AUTO:
        shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items() if tensor.is_floating_point()}
        found = identified(behind(shapes, request.prefix or ""), str(checkpoint.path))
        other = contradiction(found.name, hints.arch)
        given = {"num_classes": found.classes} if found.classes and found.name.startswith("timm:") else {}
        request = replace(request, arch_args={**given, **request.arch_args})
        return _assemble(request, checkpoint, found.name, [*found.warnings, *other])
    if not names:
        raise ArchitectureError(
            f"{checkpoint.path}: expected an architecture of timm or torchvision, found {hints.arch!r} in {hints.source}; "
            "name yours with --arch FILE.py:FACTORY"
        )
    problem: GcauditError | None = None
    for name in names:
        try:
            return _assemble(request, checkpoint, name, two_families(checkpoint, names))
        except ArchitectureError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _as_asked(request: ModelRequest, checkpoint: Checkpoint, arch: str) -> Encoder:
    said = checkpoint.hints.arch
    try:
        return _assemble(request, checkpoint, arch, contradiction(arch, said))
    except ArchitectureError as error:
        if checkpoint.hints.config is None or said is None:
            raise
        raise ArchitectureError(
            f"{checkpoint.path}: this is a checkpoint of transformers ({printable(said.partition(':')[2][:80])}), whose names are not those of "
            f"{arch}: {error}; leave --arch out, pass a module from Python, or --arch FILE.py:FACTORY"
        ) from error


class _UnfilledError(Exception):
    """Parameters that the file has no values for need those that a network begins with."""


def _assemble(
    request: ModelRequest, checkpoint: Checkpoint, arch: str, given: Sequence[ReportWarning] = (), *, filled: bool = False
) -> Encoder:
    theirs = arch.startswith(("timm:", "hf-hub:"))  # the hints are timm's arguments
    hinted = {key: value for key, value in checkpoint.hints.arch_args.items() if key not in request.arch_args} if theirs else {}
    norm_eps = hinted.pop("bn_eps", None)  # not an argument of every architecture
    arguments = {key: value for key, value in hinted.items() if key not in FILE_ARGUMENTS} | dict(request.arch_args)
    if large := [key for key, value in hinted.items() if isinstance(value, int) and abs(value) > _LARGEST_ARGUMENT]:
        raise ArchitectureError(
            f"{checkpoint.path}: expected arguments of a network of up to {_LARGEST_ARGUMENT}, found {large[0]}={hinted[large[0]]}; "
            "pass --arch-arg to say another"
        )
    most = request.max_parameters
    if most is None and (request.arch in (None, AUTO) or hinted or arch.startswith("transformers:")):
        most = room_for(sum(tensor.numel() for tensor in checkpoint.tensors.values()))
    bare = not filled and arch.startswith(("timm:", "torchvision:"))
    with at_most(most, arch), Unfilled() if bare else nullcontext():
        architecture = build_said(checkpoint.hints, arch, arguments)
        if theirs and (side := _trained_size(architecture.module, checkpoint.hints)) and "img_size" not in arguments:
            architecture = build_architecture(arch, {**arguments, "img_size": side})
    if isinstance(norm_eps, float):
        for module in architecture.module.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.eps = norm_eps
    warnings = [*given, *_sets_of_weights(checkpoint)]
    unused = [] if theirs else [key for key in checkpoint.hints.arch_args if key not in request.arch_args]
    if unused:
        line = "{n} options of the script that trained it change the network and were not used ({names}); see --arch-arg"
        warnings.append(warn("unused-options", line, unused))
    hints = checkpoint.hints
    if hints.unread:
        line = "{n} options of the script that trained it change labels or pixels and were not used ({names})"
        warnings.append(warn("unused-options", line, hints.unread))
    if hints.disagreeing:
        told = ", ".join(f"{name} {printable(str(hints.preprocessing[name])[:80])}" for name in hints.disagreeing)
        warnings.append(warn("preprocessing", f"the checkpoint says its preprocessing twice and differently; taken was {told}"))
    config, origin, said = dict(architecture.config), "architecture", set(architecture.said)
    if checkpoint.hints.preprocessing:
        config |= checkpoint.hints.preprocessing
        origin = "checkpoint"
        said |= set(checkpoint.hints.preprocessing)
    try:
        return _finish(request, architecture, checkpoint, (config, origin, said), warnings, bare=bare)
    except _UnfilledError:
        return _assemble(request, checkpoint, arch, given, filled=True)


def _trained_size(module: nn.Module, hints: Hints) -> int | None:
    """Return the side of training's images where the file says it and the network at hand has position embeddings for another."""
    own = getattr(getattr(module, "patch_embed", None), "img_size", None)
    size = hints.preprocessing.get("input_size")
    if not isinstance(own, tuple) or not isinstance(size, list) or len(size) != 3 or size[1] != size[2]:
        return None
    side = size[1]
    return side if type(side) is int and side != own[0] and 0 < side <= math.isqrt(_MOST_PIXELS) else None


def _sets_of_weights(checkpoint: Checkpoint) -> list[ReportWarning]:
    files = []
    if checkpoint.other_files:
        files.append(warn("weights", "further weight files of the folder were not taken: {names}", checkpoint.other_files))
    if checkpoint.skipped:
        files.append(warn("weights", "values in the file that are no tensors were not read: {names}", checkpoint.skipped))
    if not checkpoint.other_containers:
        return files
    taken = f"under {checkpoint.container!r}" if checkpoint.container else "of the file itself"
    averaged = any(WeightSet(name, {}).averaged for name in checkpoint.other_containers)
    hint = "; --ema takes the averaged ones, --weights-key another" if averaged else "; --weights-key takes another"
    return [
        *files,
        warn(
            "averaged-weights",
            f"the weights {taken} were taken, of {{n}} more sets there ({{names}}){hint}",
            checkpoint.other_containers,
        ),
    ]


def _finish(
    request: ModelRequest,
    architecture: Architecture,
    checkpoint: Checkpoint | None,
    config: tuple[Mapping[str, Any], str, set[str]] | None,
    warnings: Sequence[ReportWarning],
    *,
    bare: bool = False,
) -> Encoder:
    keys, origin, said = config or (architecture.config, "architecture", set(architecture.said))
    preprocessing = override(preprocessing_from(keys, origin, architecture.channels, said), request.changes)
    _, height, width = preprocessing.input_size
    if height * width > _MOST_PIXELS and request.changes.get("input_size") is None:
        raise RequestError(
            f"expected an input of up to {_MOST_PIXELS} pixels, found {width} x {height}; pass --input-size to go on with it"
        )
    module = architecture.module
    if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise ArchitectureError(
            f"expected {architecture.name} to have parameters whose sizes are known, found lazy ones; run the module once on an image first"
        )
    if set(preprocessing.assumed) & {"input_size", "mean", "std"}:
        warnings = [*warnings, warn("preprocessing", _assumption(preprocessing, architecture.doubt))]
    if max(map(abs, (*preprocessing.mean, *preprocessing.std))) > _LARGEST_MEAN:
        line = f"mean {preprocessing.mean[0]:g} and std {preprocessing.std[0]:g} look like those of pixels from 0 to 255, of [0, 1] is expected; divide by 255"
        warnings = [*warnings, warn("preprocessing", line)]
    module.requires_grad_(False)
    try:
        with torch.no_grad():
            blank = dry_input(preprocessing.input_size, module)
            tap = _choose_tap(request, architecture, blank)
            head = _head_of(architecture, tap, blank)
            head_fits = True
            if checkpoint is not None:
                how = Loading(request.allow_missing, request.prefix, checkpoint.versions, bare, partial(_unused, module, blank))
                fit, notes = load_weights(module, checkpoint.tensors, head, how)
                warnings, head_fits = [*warnings, *notes], fit.head != "absent"
                if bare:
                    _fill_rest(module, fit)
                module.requires_grad_(False).eval()
            noise = torch.rand(blank.shape, generator=torch.Generator().manual_seed(0)).to(blank)
            image = preprocessing.normalize(noise)
            check_node(module, tap, image)
            embedding, logits, tap = _try_tap(module, tap, image, bool(head))
            logits = logits if head_fits else None
            linear = tap.at_head and _is_linear_head(module, tap, embedding, logits)
        check_module(module, architecture.name)
        warnings = [*warnings, *behaviour_warnings(module, tap, image, embedding)]
    except (GcauditError, _UnfilledError):
        raise
    except Exception as error:  # a network given another input than it was made for may raise anything
        size = "x".join(str(n) for n in preprocessing.input_size)
        text = one_line(error)
        default = preprocessing_from(keys, origin, architecture.channels, said).input_size
        cause = image_cause(preprocessing.input_size, error, default, lambda other: _takes(module, other))
        raise ArchitectureError(
            f"expected {architecture.name} to take one {size} image, found {type(error).__name__}: {text}; {cause}"
        ) from error
    classifies = isinstance(logits, Tensor) and logits.ndim == 2 and getattr(module, "num_classes", 1) != 0
    return Encoder(
        module=module,
        tap=tap,
        dim=embedding.shape[1],
        head_outputs=logits.shape[1] if logits is not None and classifies else None,
        linear_head=linear,
        preprocessing=preprocessing,
        spec=printable(architecture.name if isinstance(request.spec, nn.Module) else request.spec),
        arch=architecture.name,
        sha256=checkpoint.sha256 if checkpoint is not None else state_digest(module),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        checkpoint=None if checkpoint is None else replace(checkpoint, tensors={}),  # the network has them
        warnings=tuple(warnings),
    )


def _fill_rest(module: nn.Module, fit: Fit) -> None:
    """Give parameters that the file has no values for zeros, where none of them has a say in the embedding."""
    if fit.missing:
        raise _UnfilledError
    for name, parameter in module.named_parameters():
        if name not in fit.tensors:
            parameter.zero_()


def _unused(module: nn.Module, blank: Tensor, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of some parameters and buffers that have no say in eval mode: the output is the same whatever they are."""
    held = dict(module.state_dict(keep_vars=True))
    asked = [name for name in names if held[name].is_floating_point()]

    def output() -> Tensor | None:
        try:
            found = main_output(module.eval()(blank))
        except Exception:  # it may refuse in any way
            return None
        return found if isinstance(found, Tensor) else None

    kept = {name: held[name].detach().clone() for name in asked}
    before = output()
    for name in asked:
        held[name].detach().fill_(torch.nan)
    after = output()
    for name in asked:
        held[name].detach().copy_(kept[name])
    same = before is not None and after is not None and bool(before.isfinite().all()) and torch.equal(before, after)
    return tuple(asked) if same else ()


def _takes(module: nn.Module, size: tuple[int, int, int]) -> bool:
    try:
        with torch.no_grad():
            module(torch.rand(1, *size).to(dry_input((1, 1, 1), module)))
    except Exception:  # it may refuse in any way
        return False
    return True


def _try_tap(module: nn.Module, tap: Tap, inputs: Tensor, head: bool) -> tuple[Tensor, Tensor | None, Tap]:
    """Run a network, and see whether timm's pre-logits are what goes into the classifier."""
    if not head or tap.side != "pre_logits" or tap.layer not in dict(module.named_modules()):
        return *tap(module, inputs, logits=head), tap
    with captured(module, tap.layer, "input") as given:
        embedding, logits = tap(module, inputs, logits=True)
    meets = bool(given) and given[-1].numel() == embedding.numel() and torch.allclose(given[-1].flatten(1), embedding, rtol=1e-3)
    return embedding, logits, replace(tap, meets_layer=meets)


def _is_linear_head(module: nn.Module, tap: Tap, embedding: Tensor, logits: Tensor | None) -> bool:
    """Tell whether logits = W z + b: a norm or a second head may stand between embedding and logits."""
    head = dict(module.named_modules()).get(tap.layer)
    if not isinstance(head, nn.Linear | nn.Conv2d) or logits is None:
        return False
    weight = head.weight.flatten(1)
    if weight.shape != (logits.shape[-1], embedding.shape[1]):
        return False
    return bool(torch.allclose(nn.functional.linear(embedding, weight, head.bias), logits, rtol=1e-3, atol=1e-4))


def _head_of(architecture: Architecture, tap: Tap, blank: Tensor) -> tuple[str, ...]:
    """Name the modules of the classifier, which a checkpoint may lack or have in another size."""
    if tap.at_head:
        return head_modules(architecture.module, tap)
    if architecture.family == "timm":
        return head_modules(architecture.module, pre_logits_tap(architecture.module))
    try:
        return head_modules(architecture.module, classifier_tap(architecture.module, blank))
    except ArchitectureError:
        return ()


def _choose_tap(request: ModelRequest, architecture: Architecture, blank: Tensor) -> Tap:
    if request.layer is not None:
        return named_tap(architecture.module, request.layer, blank)
    if architecture.name.startswith("transformers:") and hasattr(architecture.module, EMBEDDING):
        return named_tap(architecture.module, EMBEDDING, blank)
    if architecture.family == "timm":
        return pre_logits_tap(architecture.module)
    return classifier_tap(architecture.module, blank)


def _assumption(preprocessing: Preprocessing, doubt: str) -> str:
    """Say what was assumed. Crop and interpolation matter to pictures of other sizes only, and are told when there are any."""
    values = {
        "input_size": f"input {'x'.join(str(n) for n in preprocessing.input_size)}",
        "mean": f"mean {', '.join(f'{value:g}' for value in preprocessing.mean)}",
        "std": f"std {', '.join(f'{value:g}' for value in preprocessing.std)}",
    }
    parts = [part for part in values if part in preprocessing.assumed]
    options = [f"--{part.replace('_', '-')}" for part in parts]
    listed = " and ".join((", ".join(options[:-1]), options[-1])) if len(options) > 1 else options[0]
    hint = f"if training used {'others' if len(parts) > 1 else 'another'}, pass {listed}"
    return f"preprocessing was assumed: {', '.join(values[part] for part in parts)}; {doubt + '; ' if doubt else ''}{hint}"
