"""Where the bundled files lie."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def bundled_path(name: str) -> Path:
    """Find a file that comes with the package.

    Args:
        name: of a file or folder of the package `gcaudit.bundled`.

    Returns:
        Its path.
    """
    return Path(str(resources.files("gcaudit.bundled") / name))
