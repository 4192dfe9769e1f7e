"""Models of Hugging Face transformers, built of their configuration; no code of a folder is run.

The embedding is what the model's own classifier takes. A model without one gives what that of its family would take: the class token behind the last norm
(ViT, DeiT), or the pooled output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from gcaudit.encoders.architectures import Architecture
from gcaudit.errors import ArchitectureError, one_line, printable, shorten

_FAMILIES = ("ViT", "DeiT", "Swin", "Swinv2", "ConvNext", "ConvNextV2", "ResNet", "Dinov2", "Dinov2WithRegisters", "Beit")
CLASSIFIERS = frozenset(f"{family}ForImageClassification" for family in _FAMILIES)
"""Models with a classifier."""
POOLED = frozenset({*(f"{family}Model" for family in _FAMILIES), "SiglipVisionModel", "CLIPVisionModel"})
"""Models without one."""
_CLASS_TOKEN = frozenset({"ViTModel", "DeiTModel"})
"""Of these the pooler is left out, which their classifiers do not use."""
EMBEDDING = "embedding"
"""The layer whose output is the embedding of a model without a classifier."""
_OTHERS = re.compile(r"^_|implementation|auto_map|quantization|dtype|transformers_weights|custom_pipelines|name_or_path")
"""Keys that name code, files or kinds of numbers; the network is built in float32 of transformers' own code."""
_LARGEST, _LONGEST = 2**16, 50_000
"""Number, and length of a list or table, that a configuration may hold."""


def build_transformers(name: str, config: Mapping[str, Any]) -> Architecture:
    """Build a model of transformers.

    Args:
        name: `transformers:CLASS`.
        config: of `config.json`.

    Returns:
        The architecture.

    Raises:
        ArchitectureError: the class is not one of those that are known, or transformers is not installed.
    """
    kind = name.partition(":")[2]
    if kind not in CLASSIFIERS | POOLED:
        raise ArchitectureError(
            f"expected a model of transformers such as {shorten(sorted(CLASSIFIERS), 3)}, found {printable(kind[:80])}; "
            "pass a module from Python, or --arch FILE.py:FACTORY"
        )
    if config.get("quantization_config"):
        raise ArchitectureError(
            f"expected floating-point weights, found a quantised {kind}; pass the model from before quantisation"
        )
    try:
        library = import_module("transformers")
    except ImportError:
        raise ArchitectureError(
            f"expected the library of {kind}, found no transformers; type: pip install 'gcaudit[transformers]'"
        ) from None
    made: Any = getattr(library, kind)
    _check_sizes(kind, config)
    known_keys = made.config_class().to_dict().keys()
    own = {key: value for key, value in config.items() if key in known_keys and not _OTHERS.search(key)}
    options = {"add_pooling_layer": False} if kind in _CLASS_TOKEN else {}
    try:
        module = made(made.config_class.from_dict(own), **options)
    except Exception as error:  # a configuration may hold anything
        raise ArchitectureError(
            f"expected {kind} to be built of config.json: {type(error).__name__}: {one_line(error, 200)}"
        ) from error
    if kind in POOLED:
        module.add_module(EMBEDDING, nn.Identity())
        module.register_forward_hook(_class_token if kind in _CLASS_TOKEN else _pooled)
    size, channels = config.get("image_size"), config.get("num_channels", 3)
    known = {"input_size": (channels, size, size)} if isinstance(size, int) and isinstance(channels, int) else {}
    return Architecture(name, "custom", module.eval(), known, channels if isinstance(channels, int) else None, frozenset(known))


def _check_sizes(kind: str, value: Any) -> None:
    """Refuse numbers, lists and tables beyond all networks, of which plain Python would make something before any tensor is."""
    if isinstance(value, Mapping | list):
        if len(value) > _LONGEST:
            raise ArchitectureError(f"expected a configuration of {kind} with up to {_LONGEST} entries a list, found {len(value)}")
        for item in value.values() if isinstance(value, Mapping) else value:
            _check_sizes(kind, item)
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise ArchitectureError(f"expected a configuration of {kind} with numbers of up to {_LARGEST}, found {str(value)[:40]}")


def _class_token(module: nn.Module, _inputs: Any, output: Any) -> Tensor:
    embed: Callable[[Tensor], Tensor] = module.get_submodule(EMBEDDING)
    return embed(output.last_hidden_state[:, 0])


def _pooled(module: nn.Module, _inputs: Any, output: Any) -> Tensor:
    embed: Callable[[Tensor], Tensor] = module.get_submodule(EMBEDDING)
    return embed(output.pooler_output.flatten(1))
