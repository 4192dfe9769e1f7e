"""What is typed for an option, on the command line, in Python or in a file, as the value that an audit takes."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from gcaudit.audit.option import Option
from gcaudit.errors import RequestError

_EXAMPLES = {"wholes": "1,5,20", "numbers": "0.485,0.456,0.406"}
_WORDS = {"true": True, "false": False, "none": None}


def read_value(option: Option, value: Any) -> Any:
    """Turn what was typed into an option's value; what is no text and no list stays as it is, and is checked where it is used.

    Args:
        option: which.
        value: text, or a value of Python's or of YAML's.

    Returns:
        The value; lists become tuples.

    Raises:
        RequestError: text that cannot be read.
    """
    if option.kind == "pairs":
        return _pairs(option, [value] if isinstance(value, str) else value)
    if option.kind == "size":
        return _size(option, value)
    if option.kind in ("wholes", "numbers", "names"):
        return _several(option, value)
    if isinstance(value, str) and option.kind in ("whole", "number"):
        return _one(option, value)
    return value


def _one(option: Option, text: str) -> Any:
    if option.word and text.strip() == option.word:
        return None
    try:
        return int(text) if option.kind == "whole" else float(text)
    except ValueError:
        wanted = f"a number or '{option.word}'" if option.word else "a whole number" if option.kind == "whole" else "a number"
        raise RequestError(f"expected {option.flag} of {wanted}, found {text!r}") from None


def _several(option: Option, value: Any) -> Any:
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if option.kind == "names":
            return tuple(parts)
        try:
            found = tuple((int if option.kind == "wholes" else float)(part) for part in parts)
            if not found:
                raise ValueError
        except ValueError:
            raise RequestError(f"expected {option.flag} of numbers such as {_EXAMPLES[option.kind]}, found {value!r}") from None
        return found
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, int | float) else value


def _size(option: Option, value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = [int(side) for side in value.lower().replace(",", "x").split("x")]
        except ValueError:
            raise RequestError(f"expected {option.flag} such as 224 or 224x160, found {value!r}") from None
    if isinstance(value, int):
        value = (value,)
    if isinstance(value, Sequence) and all(isinstance(side, int) for side in value):
        if len(value) not in (1, 2) or min(value) < 1:
            raise RequestError(f"expected {option.flag} such as 224 or 224x160, found {'x'.join(map(str, value)) or 'nothing'!r}")
        return value[0], value[-1]
    return value


def _pairs(option: Option, pairs: Any) -> Any:
    """Read KEY=VALUE pairs; values are Python literals, or text."""
    if isinstance(pairs, Mapping) or not isinstance(pairs, list | tuple):
        return pairs
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = str(pair).partition("=")
        if not equals or not key.isidentifier():
            raise RequestError(f"expected {option.flag} KEY=VALUE such as in_chans=1, found {pair!r}")
        try:
            found[key] = _WORDS[value.lower()] if value.lower() in _WORDS else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found
