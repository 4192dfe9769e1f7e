"""What the configuration files of a model folder say: timm's and Hugging Face transformers'."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gcaudit.checkpoints.hints import Hints, agreed_preprocessing, arguments_in, plain_dict, short_text
from gcaudit.errors import CheckpointError, one_line
from gcaudit.files import read_text

_MOST_CONFIG_BYTES = 2**26
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Of Pillow, by number."""
_USUAL_RESCALE, _NEAR = 1 / 255, 1e-3
_LARGEST_EDGE = 2**16
_SHORT_EDGE, _SHORT_SHARE = 384, 224 / 256
"""ConvNeXt's processor resizes to edges below this by the share and crops, and stretches to larger ones."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: of the file.

    Returns:
        The object.

    Raises:
        CheckpointError: it is something else, or too large.
    """
    try:
        content = json.loads(read_text(path, _MOST_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content


def config_hints(folder: Path) -> Hints:
    """Read `config.json`, and of transformers also `preprocessor_config.json`.

    Args:
        folder: of a model.

    Returns:
        What they say; nothing where there is no such file.

    Raises:
        CheckpointError: a file is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        return Hints()
    config = read_json(path)
    if short_text(config.get("architecture")) is None and short_text(config.get("model_type")) is not None:
        return _of_transformers(folder, config)
    arch = short_text(config.get("architecture"))
    nested = config.get("pretrained_cfg")
    preprocessing, disagreeing = agreed_preprocessing([plain_dict(nested), config])
    arch_args, unread = arguments_in(config.get("model_args"))
    return Hints(arch, arch_args, preprocessing, "config.json" if arch else None, unread, disagreeing)


def _of_transformers(folder: Path, config: Mapping[str, Any]) -> Hints:
    classes = config.get("architectures")
    named = short_text(classes[0]) if isinstance(classes, list) and classes else None
    path = folder / "preprocessor_config.json"
    said = transformers_preprocessing(read_json(path)) if path.is_file() else {}
    return Hints(f"transformers:{named or config['model_type']}", {}, said, "config.json", config=config)


def transformers_preprocessing(said: Mapping[str, Any]) -> dict[str, Any]:
    """Read an image processor's configuration with timm's keys.

    Args:
        said: of `preprocessor_config.json`.

    Returns:
        What is said; a resize to both sides without a crop stretches, as the processor does.

    Raises:
        CheckpointError: pixels are scaled in a way that mean and std cannot say.
    """
    found: dict[str, Any] = {}
    if said.get("do_normalize", True):
        for theirs, ours in (("image_mean", "mean"), ("image_std", "std")):
            if isinstance(said.get(theirs), list):
                found[ours] = said[theirs]
    else:
        found |= {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    scale = said.get("rescale_factor", _USUAL_RESCALE)
    usual = isinstance(scale, float) and abs(scale / _USUAL_RESCALE - 1) <= _NEAR
    if not usual or not said.get("do_rescale", True):
        raise CheckpointError(f"expected pixels divided by 255, found rescale_factor {scale!r} in preprocessor_config.json")
    resample = said.get("resample")
    if type(resample) is int and 0 <= resample < len(_RESAMPLE):
        found["interpolation"] = _RESAMPLE[resample]
    return found | _sizes(said)


def _sizes(said: Mapping[str, Any]) -> dict[str, Any]:
    """Read resize and crop; what timm's terms have no words for is left to be assumed, and told."""
    size, crop = (_edges(said.get(name)) for name in ("size", "crop_size"))
    table = said.get("size")
    shortest = _edges(table.get("shortest_edge")) if isinstance(table, Mapping) else None
    kind = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "")
    cropped = bool(said.get("do_center_crop", crop is not None)) and crop is not None
    taken = crop if cropped else shortest or size
    if taken is None:
        return {}
    found: dict[str, Any] = {"input_size": [3, *taken]}
    if not said.get("do_resize", True):
        return found
    if kind.startswith("ConvNext") and not cropped:
        share = said.get("crop_pct", _SHORT_SHARE)
        edge = taken[0]
        if edge >= _SHORT_EDGE:
            return found | {"crop_pct": 1.0, "crop_mode": "squash"}
        return found | ({"crop_pct": share, "crop_mode": "center"} if isinstance(share, float) and 0 < share <= 1 else {})
    if cropped:
        # a resize to both sides stretches, and then a crop: DeiT's, which is not timm's
        resized = shortest[0] if shortest else table if isinstance(table, int) and "CLIP" in kind else None
        return found | ({"crop_pct": min(taken) / resized, "crop_mode": "center"} if isinstance(resized, int) else {})
    return found | ({"crop_pct": 1.0, "crop_mode": "squash"} if shortest is None else {})


def _edges(value: Any) -> tuple[int, int] | None:
    """Read a number, or height and width."""
    if isinstance(value, Mapping):
        value = (value.get("height"), value.get("width"))
    edges = value if isinstance(value, tuple) else (value, value)
    return edges if all(type(edge) is int and 0 < edge <= _LARGEST_EDGE for edge in edges) else None
