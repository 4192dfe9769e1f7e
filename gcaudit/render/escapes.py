"""Text for each format: what means something there is escaped, so that names out of files are shown and never obeyed."""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"[\\`*|~$]|!(?=\[)|#(?=\w*\[)|\](?=[(\[:])|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
_LINE_START = re.compile(r"^(?:[#+=-]+|\d+(?=[.)]))(?=[.)]?(?:\s|$))")
_COLONS = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
_HASHES = re.compile(r"#(?=#\w*\[)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def markdown_text(text: str) -> str:
    """Escape what Markdown and HTML take for more than text; numbers and intervals stay as they are.

    Args:
        text: one line, such as a name.

    Returns:
        Markdown that shows it.
    """
    found = _MARKDOWN.sub(lambda match: f"\\{match[0]}", text.replace("\n", " "))
    found = found.replace("&", "&amp;").replace("<", "&lt;")
    found = f"&gt;{found[1:]}" if found.startswith(">") else found
    return _LINE_START.sub(lambda match: f"{match[0]}\\" if match[0].isdigit() else f"\\{match[0]}", found)


def csv_text(text: str) -> str:
    """Keep a spreadsheet from taking text for a formula.

    Args:
        text: of a cell.

    Returns:
        The text, behind an apostrophe where it begins like a formula.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def log_text(text: str) -> str:
    """Keep a CI system that reads logs from taking text for commands of its own (`::error::`, `##[group]`, `##vso[...]`).

    Args:
        text: lines.

    Returns:
        The lines, with one sign of each such beginning escaped.
    """
    return _HASHES.sub(r"\\x23", _COLONS.sub(r"\1\\x3a", text))


def xml_text(text: str) -> str:
    """Keep a CI system that reads logs from finding commands in XML.

    Args:
        text: XML.

    Returns:
        XML of the same content.
    """
    return _HASHES.sub("&#35;", text)


def json_text(text: str) -> str:
    """Keep a CI system that reads logs from finding commands in JSON.

    Args:
        text: JSON.

    Returns:
        JSON of the same content.
    """
    return _HASHES.sub(lambda _match: "\\u0023", text)
