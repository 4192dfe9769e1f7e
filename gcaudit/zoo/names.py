"""Names of models and data: globs, paths that are relative to a file, and short titles for tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcaudit.errors import RequestError, one_line

_PUBLISHED = ("timm:", "torchvision:", "hf-hub:")


_SIGNS = "*?["


def beside(folder: Path, spec: str, *, data: bool = False) -> str:
    """Read a path that is relative to a folder; what is no path there stays as it is.

    Args:
        folder: of the YAML file.
        spec: a model or data set.
        data: the known names of data sets are no paths.

    Returns:
        The path, or `spec`.
    """
    if spec.startswith("disk:"):
        return "disk:" + beside(folder, spec.removeprefix("disk:"))
    prefixed = spec.startswith((*_PUBLISHED, "hf:")) or spec == "demo"
    if data and not prefixed:
        from gcaudit.data import KNOWN

        prefixed = spec in {entry.name for entry in KNOWN}
    if prefixed or folder == Path() or Path(spec).is_absolute() or spec.startswith("~"):
        return spec
    path = folder / spec
    return str(path) if path.suffix or any(sign in spec for sign in _SIGNS) or _exists(path) else spec


def _exists(path: Path, *, folder: bool = False) -> bool:
    try:
        return path.is_dir() if folder else path.exists()
    except OSError:  # such as a name that is too long
        return False


def is_pattern(spec: str) -> bool:
    """Tell whether a name stands for many: it has `*`, `?` or `[` and is no file.

    Args:
        spec: a model.
    """
    return any(sign in spec for sign in _SIGNS) and not _exists(Path(spec))


def resolve_models(spec: str) -> list[str]:
    """Resolve a glob.

    Args:
        spec: a model; with `*`, `?` or `[` a pattern of published names or files.

    Returns:
        What matches, sorted; the model itself when it is no pattern.

    Raises:
        RequestError: nothing matches.
    """
    if not is_pattern(spec):
        return [spec]
    if spec.startswith(("timm:", "torchvision:")):
        from gcaudit.encoders import published_names

        found = published_names(spec)
    else:
        try:
            path = Path(spec).expanduser()
            first = next(number for number, part in enumerate(path.parts) if any(sign in part for sign in _SIGNS))
            places = list(Path(*path.parts[:first]).glob(str(Path(*path.parts[first:]))))
        except (OSError, ValueError, RuntimeError) as error:  # a home that is not there, ** inside a name
            raise RequestError(f"expected a pattern such as runs/*.pt, found {spec!r}: {one_line(error)}") from None
        found = sorted(str(place) for place in places if not place.name.startswith("."))
    if not found:
        raise RequestError(f"expected models that match {spec!r}, found none; check the pattern")
    return found


def titles(names: Sequence[str]) -> list[str]:
    """Shorten paths to as few of their last parts as tell them apart.

    Args:
        names: models.

    Returns:
        A title for each.
    """

    def tail(name: str, parts: int, suffix: bool) -> str:
        if name.startswith(_PUBLISHED):
            return name
        path = Path(name)
        return "/".join((*path.parts[-parts:-1], path.name if suffix or _exists(path, folder=True) else path.stem))

    longest = max((len(Path(name).parts) for name in names), default=1)
    for parts in range(1, longest + 1):
        for suffix in (False, True):
            found = {name: tail(name, parts, suffix) for name in names}
            if len(set(found.values())) == len(found):
                return [found[name] for name in names]
    return list(names)


def data_title(spec: str) -> str:
    """Shorten the name of a data set.

    Args:
        spec: as typed.
    """
    if spec.startswith("hf:"):
        return spec.removeprefix("hf:").rpartition("/")[2]
    path = Path(spec.rpartition(":")[2])
    return path.parent.name if path.suffix == ".parquet" and path.parent.name else path.stem or spec


def place_title(source: str, target: str | None) -> str:
    """Name a source and a target together.

    Args:
        source: its name.
        target: its name, or None.

    Returns:
        Such as `cifar10 -> dtd`.
    """
    return source if target is None else f"{source} -> {target}"
