"""Errors that a user can act on.

Every message is one line saying what was expected, what was found and what to type next. The command line prints
the message alone and exits with `exit_code`; anything that is not a `GcauditError` is a defect of gcaudit.
"""

from __future__ import annotations


class GcauditError(Exception):
    """A request that cannot be carried out; exit code 2."""

    exit_code = 2


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


def printable(text: str) -> str:
    """Escape what hostile data could do to a terminal.

    Args:
        text: with foreign words.

    Returns:
        The text, characters that cannot be printed escaped.
    """
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


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
