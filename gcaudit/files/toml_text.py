"""One table of a TOML file of unknown origin."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any


def toml_table(text: str, names: Sequence[str]) -> Any:
    """Read one table.

    Args:
        text: of the file.
        names: of the table, from the outermost in, such as `("tool", "gcaudit", "gate")`.

    Returns:
        What stands there; None when there is no such table.

    Raises:
        ValueError: it is no TOML.
    """
    try:
        found: Any = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found
