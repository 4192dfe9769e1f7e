"""Errors that a user can act on.

Every message is one line saying what was expected, what was found and what to type next. The command line prints
the message alone and exits with `exit_code`; anything that is not a `GcauditError` is a defect of gcaudit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

_LONGEST = 2000


class GcauditError(Exception):
    """A request that cannot be carried out; exit code 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        """Make it one line that a terminal bears, whatever names from files are in it.

        Args:
            message: what was expected, what was found and what to type next.
        """
        super().__init__(plain(message))


class GcauditWarning(UserWarning):
    """Something that a reader has to know to trust a number: what Python callers are told through `warnings.warn`."""


class RequestError(GcauditError, ValueError):
    """An option or argument that makes no sense."""


class CheckpointError(GcauditError):
    """A checkpoint file that is unreadable, unsafe or damaged."""


class ArchitectureError(GcauditError):
    """An architecture that is unknown, or that the weights do not fit."""


class DataError(GcauditError):
    """A data set that is missing, unreadable or too small."""


class AuditError(GcauditError):
    """An audit that was well asked for but could not be completed; exit code 3."""

    exit_code = 3


class InterruptedAuditError(GcauditError):
    """Ctrl-C, when there is more to say than that nothing was written; exit code 130."""

    exit_code = 130


@contextmanager
def telling_paths(expected: str, kind: type[GcauditError]) -> Iterator[None]:
    """Make one line of the system's refusal of a path: a name that is too long, a folder that may not be entered, a circle of links.

    Args:
        expected: what the path is of.
        kind: of the error.

    Raises:
        GcauditError: of this kind.
    """
    try:
        yield
    except OSError as error:
        place = f" of {plain(str(error.filename), 80)}" if error.filename else ""
        raise kind(f"expected {expected}, found the path{place} refused: {error.strerror or one_line(error)}; check it") from None


def shorten(names: list[str] | tuple[str, ...], limit: int = 5) -> str:
    """Join names for a one-line message, with a count in place of those beyond `limit`.

    Args:
        names: what to list.
        limit: how many are spelt out.

    Returns:
        For example `a, b, c and 4 more`.
    """
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def suggest(name: str, known: Iterable[str]) -> str:
    """Say what may have been meant by a name that is unknown.

    Args:
        name: as typed.
        known: names that there are.

    Returns:
        Such as `did you mean gate?`, or `known: ...` where none is close.
    """
    names = list(known)
    folded = name.casefold()
    close = get_close_matches(name, names, n=1)
    close += [one for one in names if (len(folded) > 2 and folded in one.casefold()) or (len(one) > 2 and one.casefold() in folded)]
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"


_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer in place of the file; run git lfs pull",
    b"<!DO": "an HTML page; the download went wrong",
    b"<!do": "an HTML page; the download went wrong",
    b"<htm": "an HTML page; the download went wrong",
    b"\x89HDF": "an HDF5 (Keras) file",
    b"GGUF": "a GGUF file",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
}


def foreign_content(start: bytes) -> str | None:
    """Say what the bytes of a file are that is not what was expected.

    Args:
        start: its first bytes, some 64 of them.

    Returns:
        What it is and what to do, such as `a Git LFS pointer in place of the file; run git lfs pull`; None when that is not known.
    """
    if not start:
        return "an empty file; fetch or save it again"
    return next((what for magic, what in _FOREIGN.items() if start.startswith(magic)), None)


def foreign_file(path: Path, expected: bytes) -> str | None:
    """Say what a file is that is not what was expected.

    Args:
        path: of the file.
        expected: the first bytes of what was expected; a file that has them is damaged, and nothing else.

    Returns:
        As `foreign_content` says; None also for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
            return None if start.startswith(expected) else foreign_content(start)
    except OSError:
        return None


def printable(text: str) -> str:
    """Escape what hostile data could do to a terminal.

    Args:
        text: with foreign words.

    Returns:
        The text, characters that cannot be printed escaped.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def plain(text: str, limit: int = _LONGEST) -> str:
    """Make text of unknown origin fit for tables, logs and terminals.

    Args:
        text: anything.
        limit: characters kept.

    Returns:
        One printable line.
    """
    found = printable(text[: limit + 1])
    return found if len(found) <= limit else f"{found[:limit]}..."


def one_line(error: BaseException, limit: int = 160) -> str:
    """Write another library's error in one short line, safe for a terminal.

    Args:
        error: what was raised.
        limit: characters kept.

    Returns:
        Its message without line breaks, or its type when it has none.
    """
    text = printable(" ".join(str(error).split()))
    return text[:limit] + "..." if len(text) > limit else text or type(error).__name__


def folded(name: str) -> str:
    """Write a name as all its spellings share it, to tell whether two name the same.

    Args:
        name: of a class.

    Returns:
        Lower case, with blanks for underscores and dashes.
    """
    return name.casefold().replace("_", " ").replace("-", " ").strip()
