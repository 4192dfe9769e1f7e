"""The schema of a YAML file of models, with the short forms that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcaudit.zoo.zoo_text import FileEntry

ZOO_EXAMPLE: Mapping[str, Any] = {
    "models": [
        "timm:resnet*",
        {"model": "weights/resnet20.th", "name": "ResNet-20", "arch": "nets.py:resnet20", "mean": [0.485, 0.456, 0.406]},
    ],
    "sources": [{"data": "cifar10", "split": "test", "max-images": 2000}],
    "targets": ["cifar-fs", "photos/"],
    "settings": {"metrics": ["all"], "n-shot": [1, 5]},
}
"""A file that is well formed."""
_SHORT = {"ModelEntry": "the model alone", "DataEntry": "the data set alone"}


def zoo_schema() -> dict[str, Any]:
    """Make the schema of a YAML file of models.

    Returns:
        A JSON schema: a text may stand for a model or a data set of no options, and one value for a list of one.
    """
    schema = FileEntry.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for name, entry in definitions.items():
        properties = {key: _with_short_form(value) for key, value in entry["properties"].items()}
        entry["properties"] = properties
        if name in _SHORT:
            definitions[name] = {"anyOf": [{"type": "string", "description": _SHORT[name]}, entry]}
    for role in ("source", "target"):
        one = {"$ref": "#/$defs/DataEntry"}
        several = schema["properties"][f"{role}s"]
        schema["properties"][f"{role}s"] = {"anyOf": [one, several], "description": f"data sets in the role of {role}"}
        schema["properties"][role] = {"anyOf": [one, several], "description": f"the same as {role}s"}
    return schema


def _with_short_form(value: dict[str, Any]) -> dict[str, Any]:
    """Let one item, or text with commas, stand for a list of them."""
    lists = [part for part in value.get("anyOf", ()) if part.get("type") == "array"]
    if not lists:
        return value
    item = lists[0].get("items", {})
    return {**value, "anyOf": [*value["anyOf"], item, *([] if item.get("type") == "string" else [{"type": "string"}])]}
