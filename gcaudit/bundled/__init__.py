"""Files that come with the package: what `gcaudit demo` uses. NOTICE.md says where they are from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def bundled_path(name: str) -> Path:
    """Find a file that comes with the package.

    Args:
        name: of a file or folder beside this module.

    Returns:
        Its path.
    """
    return Path(str(resources.files(__name__) / name))
