"""Text of what Python prints."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def printed(value: Any, how: str) -> str:
    """Write a value as the command line does.

    All text for people is made on a floor above those whose values are printed, so it is found by its name when it is first asked for.

    Args:
        value: what is printed.
        how: the name of a function of `gcaudit.render` that makes text of it.

    Returns:
        The text, without the last line's end.
    """
    return str(getattr(import_module("gcaudit.render"), how)(value)).rstrip("\n")
