"""YAML of unknown origin as plain values."""

from __future__ import annotations

from typing import Any

import yaml


class _PlainLoader(yaml.SafeLoader):
    """Knows no aliases: ten lines of them stand for a billion entries."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not taken", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice: YAML forbids it, and which of the two was meant nobody knows."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"line {line}: expected each key once, found {key.value!r} again"
                )
            if name is not None:
                seen.add(name)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """Read YAML; nothing is built but plain values, and aliases are not taken.

    Args:
        text: of a bounded length.

    Returns:
        What it holds.

    Raises:
        ValueError: it is no such YAML.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - it is a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from None
