"""Rows of the store: their columns, and digests that tell whether they are as they were written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

TABLES: Mapping[str, tuple[str, ...]] = {
    "blocks": ("key", "observation", "role", "seconds", "content", "arrays_digest", "arrays"),
    "cells": ("key", "created", "model", "arch", "sha256", "source", "target", "source_block", "target_block", "report"),
    "failures": ("key", "created", "model", "source", "target", "reason"),
    "models": ("key", "answer"),
}
"""Columns by table, and `digest` follows the last."""
STATEMENTS = {
    name: f"CREATE TABLE {name} ({columns[0]} PRIMARY KEY, {', '.join(columns[1:])}, digest)" for name, columns in TABLES.items()
}
"""What makes each table."""
RAW = "arrays"
"""The column that has a digest of its own, so that rows can be checked without reading it."""


def digest_of(values: Any) -> str:
    """Digest a row, or raw bytes.

    Args:
        values: bytes, or a sequence of columns.

    Returns:
        32 hexadecimal digits.
    """
    content = values if isinstance(values, bytes) else repr(values).encode(errors="surrogatepass")
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def names_of(table: str, *, raw: bool) -> list[str]:
    """List the columns of a table, without the digest.

    Args:
        table: one of `TABLES`.
        raw: with raw bytes.

    Returns:
        Their names.
    """
    return [name for name in TABLES[table] if raw or name != RAW]


def is_sound(table: str, values: tuple[Any, ...], *, raw: bool = True) -> bool:
    """Tell whether a row is as it was written.

    Args:
        table: one of `TABLES`.
        values: its columns, and its digest.
        raw: its raw bytes are among them.

    Returns:
        Whether the digests are those of the columns.
    """
    row = dict(zip(names_of(table, raw=raw), values[:-1], strict=True))
    held = row.pop(RAW, None)
    if RAW in TABLES[table] and raw and not (isinstance(held, bytes) and digest_of(held) == row[f"{RAW}_digest"]):
        return False
    return bool(values[-1] == digest_of(list(row.values())))


def storable(value: Any) -> Any:
    """Escape what is no text, such as names of files that are not UTF-8.

    Args:
        value: of a column.

    Returns:
        The same, or text that UTF-8 can hold.
    """
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
