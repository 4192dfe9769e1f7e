"""What an option is: a flat name that people type, and the part of an `AuditSpec` that it sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

Kind = Literal["text", "flag", "whole", "number", "wholes", "numbers", "names", "classes", "size", "pairs"]


@final
@dataclass(frozen=True)
class Option:
    """Something that may be asked of an audit.

    Attributes:
        name: as a keyword argument.
        places: fields of `AuditSpec` that it sets, such as `run.seed`.
        kind: of its value.
        panel: of the command line's help.
        text: of the command line's help.
        default: what an audit takes without it; None where that depends.
        word: stands for None where it is typed, such as `all`.
        metavar: stands for the value in the help; empty for the kind's own.
        flags: as typed on the command line, where that is not the name with dashes.
        shorthand: it stands for other options, and is not remembered by its own name.
        unset: what an audit takes without it, in words, where `default` does not say it.
    """

    name: str
    places: tuple[str, ...]
    kind: Kind
    panel: str
    text: str
    default: Any = None
    word: str = ""
    metavar: str = ""
    flags: str = ""
    shorthand: bool = False
    unset: str = ""

    @property
    def flag(self) -> str:
        """As typed on the command line."""
        return self.flags or f"--{self.name.replace('_', '-')}"
