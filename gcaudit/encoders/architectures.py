"""From the name of an architecture to a module: timm, torchvision, or the user's own factory."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, final

import timm
import torch
import torchvision
from timm.data.config import resolve_data_config
from torch import nn

from gcaudit.data import prepare_hub
from gcaudit.encoders.preprocessing import crop_share
from gcaudit.encoders.taps import dry_input
from gcaudit.errors import ArchitectureError, AuditError, GcauditError, one_line, printable, shorten
from gcaudit.files import deepest, is_outage

Family = Literal["timm", "torchvision", "custom"]


@final
@dataclass(frozen=True)
class Architecture:
    """A module that has been built, and what is known of its input.

    Attributes:
        name: `timm:NAME`, `torchvision:NAME`, or the factory as typed.
        family: who made it.
        module: in eval mode, on the CPU.
        config: timm's preprocessing keys, as far as they are known.
        channels: input channels where they are known.
        said: keys of `config` that published weights, a tag that was typed, or the user's own code say; others are an architecture's
            default, which a file with weights may have been trained without.
        doubt: why the preprocessing may be another, or empty.
    """

    name: str
    family: Family
    module: nn.Module
    config: Mapping[str, Any]
    channels: int | None
    said: frozenset[str] = frozenset()
    doubt: str = ""


def build_architecture(name: str, arguments: Mapping[str, Any], *, pretrained: bool = False) -> Architecture:
    """Build an architecture.

    Args:
        name: `timm:NAME[.TAG]`, `hf-hub:ORG/REPO[@REV]`, `torchvision:NAME[:WEIGHTS]`, `FILE.py:FACTORY` or
            `package.module:FACTORY`; the last two run the user's own code.
        arguments: keyword arguments of the model.
        pretrained: load its published weights (through timm's and torchvision's own caches).

    Returns:
        The architecture.

    Raises:
        ArchitectureError: unknown name, arguments it does not take, weights that cannot be had.
    """
    prefix, _, rest = name.partition(":")
    if prefix == "timm" and rest:
        return _build_timm(name, rest, arguments, pretrained)
    if prefix == "hf-hub" and rest:
        return _build_timm(name, name, arguments, pretrained)
    if prefix == "torchvision" and rest:
        return _build_torchvision(name, rest, arguments, pretrained)
    if rest and not rest.startswith(("/", "\\")):
        return _build_custom(name, arguments)
    raise ArchitectureError(
        f"expected --arch timm:NAME, torchvision:NAME, FILE.py:FACTORY or package.module:FACTORY, found {name!r}; "
        f"did you mean timm:{name} or torchvision:{name}?"
    )


def known_names(bare: str) -> list[str]:
    """Find the architectures a bare name may mean, timm's first.

    Args:
        bare: a name without prefix, as training scripts write into checkpoints.

    Returns:
        None, one or two of `timm:NAME` and `torchvision:NAME`.
    """
    found = [f"timm:{bare}"] if timm.is_model(bare.partition(".")[0]) else []
    return found + ([f"torchvision:{bare}"] if bare in torchvision.models.list_models(module=torchvision.models) else [])


def published_names(pattern: str) -> list[str]:
    """List models with published weights.

    Args:
        pattern: a glob after `timm:` or `torchvision:`.

    Returns:
        Names with their prefix, sorted.
    """
    family, _, glob = pattern.partition(":")
    if family == "timm":
        return sorted(f"timm:{name}" for name in timm.list_pretrained(glob))
    names = torchvision.models.list_models(module=torchvision.models, include=glob)
    return sorted(f"torchvision:{name}" for name in names if len(torchvision.models.get_model_weights(name)))


def unfetched(name: str, error: Exception) -> ArchitectureError | AuditError:
    """Say that published weights cannot be had.

    Args:
        name: of the model.
        error: what the hub's client, the network or the library raised.

    Returns:
        The error to raise: an `AuditError` where another try may succeed.
    """
    cause = deepest(error)
    text = f"expected to fetch the published weights of {name}, found {type(cause).__name__}: {one_line(cause, 200)}"
    if is_outage(error):
        return AuditError(f"{text}; try again, or with no network fetch the file elsewhere and pass its path with --arch")
    return ArchitectureError(f"{text}; check the name, or fetch the file elsewhere and pass its path with --arch")


def _rejected(name: str, arguments: Mapping[str, Any], error: BaseException) -> ArchitectureError:
    given = ", ".join(f"{key}={printable(repr(value)[:80])}" for key, value in arguments.items()) or "no arguments"
    text = one_line(error, 200)
    return ArchitectureError(f"expected {name} to be built from {given}: {type(error).__name__}: {text}; see --arch-arg")


def _build_timm(name: str, model: str, arguments: Mapping[str, Any], pretrained: bool) -> Architecture:
    on_hub = name.startswith("hf-hub:")
    base, _, tag = model.partition(".")
    if not on_hub and not timm.is_model(base):
        raise _unknown(name, model, timm.list_models(), "timm")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")] if tag and pretrained else []
    if tag and pretrained and not on_hub and tag not in tags:
        raise ArchitectureError(f"expected weights of timm's {base} ({shorten(tags, 12) or 'it has none'}), found {tag!r}")
    if pretrained or on_hub:
        prepare_hub()
    try:
        module = timm.create_model(model, pretrained=pretrained, **arguments)
    except ArchitectureError:  # it is larger than may be
        raise
    except Exception as error:  # timm, the hub client and the network raise many kinds
        raise unfetched(name, error) if pretrained or on_hub else _rejected(name, arguments, error) from error
    size = arguments.get("img_size")
    channels = arguments.get("in_chans")
    chosen = {"img_size": size} if isinstance(size, int) else {}
    config: dict[str, Any] = resolve_data_config(  # type: ignore[no-untyped-call]
        chosen, pretrained_cfg=getattr(module, "pretrained_cfg", None) or {}, model=module
    )
    known = {key: value for key, value in config.items() if value is not None}
    settled = pretrained or on_hub or bool(tag)
    said = frozenset(known) if settled else frozenset({"input_size"} if chosen else ())
    doubt = "" if settled else _timm_doubt(base)
    return Architecture(name, "timm", module.eval(), known, channels if isinstance(channels, int) else None, said, doubt)


def _timm_doubt(base: str) -> str:
    """Say that timm's published weights of an architecture differ in mean or std, where they do."""
    by_mean: dict[tuple[float, ...], list[str]] = {}
    for known in timm.list_pretrained(f"{base}.*"):
        config = timm.get_pretrained_cfg(known)
        if config is not None:
            by_mean.setdefault((*config.mean, *config.std), []).append(known.partition(".")[2])
    if len(by_mean) < 2:
        return ""
    told = " or ".join(f"{numbers[0]:g} ({shorten(tags, 2)})" for numbers, tags in by_mean.items())
    return f"timm's weights of {base} have mean {told}, so name yours, such as --arch timm:{base}.{next(iter(by_mean.values()))[0]}"


def _build_torchvision(name: str, rest: str, arguments: Mapping[str, Any], pretrained: bool) -> Architecture:
    model, _, which = rest.partition(":")
    names = torchvision.models.list_models(module=torchvision.models)
    if model not in names:
        raise _unknown(name, model, names, "torchvision")
    options = torchvision.models.get_model_weights(model)
    try:
        weights = options[which] if which else options["DEFAULT"]
    except KeyError:
        known = ", ".join(option.name for option in options)
        raise ArchitectureError(f"expected weights of torchvision's {model} ({known}), found {which!r}") from None
    config, chosen = _preset(weights), {}
    crop = config["input_size"][1]
    if model.startswith("vit_") and not pretrained:  # their position embedding has one input size, that of the weights
        crop = arguments.get("image_size", crop)
        chosen = {"image_size": crop}
    elif model in ("googlenet", "inception_v3") and not pretrained:
        chosen = {"init_weights": False}
    try:
        module = torchvision.models.get_model(model, weights=weights if pretrained else None, **{**chosen, **arguments})
    except ArchitectureError:  # it is larger than may be
        raise
    except Exception as error:  # torch.hub and the network raise many kinds
        raise unfetched(name, error) if pretrained else _rejected(name, arguments, error) from error
    config |= {"input_size": (3, crop, crop)}
    presets = {
        (tuple(p.crop_size), tuple(p.resize_size), tuple(p.mean), p.interpolation) for p in (o.transforms() for o in options)
    }
    doubt = ""
    if not pretrained and not which and len(presets) > 1:
        others = " or ".join(f"--arch {name}:{option.name}" for option in options)
        doubt = f"torchvision's weights of {model} differ in it, so name yours: {others}"
    said = frozenset(config) if pretrained or which else frozenset[str]()
    return Architecture(name, "torchvision", module.eval(), config, None, said, doubt)


def _preset(weights: Any) -> dict[str, Any]:
    """Write the preprocessing of published weights of torchvision with timm's keys."""
    preset = weights.transforms()
    crop, resize = int(preset.crop_size[0]), int(preset.resize_size[0])
    return {
        "input_size": (3, crop, crop),
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "interpolation": preset.interpolation.value,
        "crop_pct": crop_share(resize, crop),
    }


def default_config(name: str) -> Mapping[str, Any]:
    """Return the preprocessing that goes with an architecture, without building it.

    Args:
        name: `timm:NAME` or `torchvision:NAME`, which exists.

    Returns:
        timm's keys.
    """
    family, _, model = name.partition(":")
    if family == "torchvision":
        return _preset(torchvision.models.get_model_weights(model)["DEFAULT"])
    config = timm.get_pretrained_cfg(model)
    found: dict[str, Any] = resolve_data_config({}, pretrained_cfg=config.to_dict() if config else {})  # type: ignore[no-untyped-call]
    return found


def _unknown(name: str, model: str, names: list[str], family: str) -> ArchitectureError:
    close = get_close_matches(model.partition(".")[0], names, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else f"see {family}'s list_models()"
    return ArchitectureError(f"expected a model of {family}, found {name!r}; {hint}")


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise ArchitectureError(f"expected the factory's file at {path}, found none; check --arch")
    # a name of its own: a file called random.py or timm.py must not take the place of that module
    spec = importlib.util.spec_from_file_location(f"_gcaudit_arch_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "a name that ends in .py has a loader"  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(path.parent) not in sys.path:  # files beside it, as when it is run by itself
        sys.path.append(str(path.parent))
    spec.loader.exec_module(module)
    return module


def _build_custom(name: str, arguments: Mapping[str, Any]) -> Architecture:
    where, _, factory_name = name.rpartition(":")
    try:
        module = _import_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except GcauditError:
        raise
    except ModuleNotFoundError as error:
        raise ArchitectureError(f"expected to import {where!r} for --arch {name}: {one_line(error)}; is it installed?") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ArchitectureError(f"expected to import {where!r}: {type(error).__name__}: {one_line(error)}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise ArchitectureError(f"expected a function {factory_name!r} in {where}, found {shorten(own) or 'no functions'}")
    try:
        built = factory(**arguments)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise _rejected(name, arguments, error) from error
    if not isinstance(built, nn.Module):
        raise ArchitectureError(f"expected {name} to return a torch.nn.Module, found a {type(built).__name__}")
    return describe_module(name, built)


def _takes(module: nn.Module, size: tuple[int, ...]) -> bool:
    try:
        with torch.no_grad():
            module.eval()(dry_input((size[0], size[1], size[2]), module))
    except Exception:  # a network given another input than it was made for may raise anything
        return False
    return True


def describe_module(name: str, module: nn.Module) -> Architecture:
    """Describe a module made elsewhere; timm's own are recognised.

    Args:
        name: what to call it.
        module: the module; an attribute `pretrained_cfg` (timm's convention) says its preprocessing.

    Returns:
        The architecture.
    """
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None) or {}
    keys = dict(config) if isinstance(config, Mapping) else {}
    is_timm = hasattr(module, "forward_head") and hasattr(module, "forward_features") and hasattr(module, "num_features")
    known = {key: value for key, value in keys.items() if value is not None}
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    channels = first.in_channels if first is not None and first.groups == 1 else None
    size = known.get("input_size")
    if channels is not None and isinstance(size, list | tuple) and len(size) == 3 and channels != size[0]:
        # the network may fold pixels into channels before its first convolution: what it takes is found out by trying
        channels = channels if _takes(module, (channels, *size[1:])) else None
    return Architecture(name, "timm" if is_timm else "custom", module.eval(), known, channels, frozenset(known))
