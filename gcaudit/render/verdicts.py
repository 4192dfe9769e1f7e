"""Verdicts of a gate: for the log, for programs, for JUnit and for GitHub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gcaudit.render.escapes import json_text, log_text, markdown_text, xml_text
from gcaudit.render.paper import PLAIN, Paper, fold, paint

if TYPE_CHECKING:
    from gcaudit.gate import GateResult, Verdict
    from gcaudit.render.documents import GateDocument

_MARKS = {"passed": "PASS", "undecided": "UNDECIDED", "warned": "WARN", "failed": "FAIL", "off": "off"}
_COLOURS = {"passed": "green", "undecided": "yellow", "warned": "yellow", "failed": "red", "off": "dim"}
_INDENT = max(map(len, _MARKS.values())) + 2
_ANNOTATIONS = 10
"""GitHub shows so many of a kind for a step."""
_SUMMARY_BYTES = 64 * 1024


def _headline(result: GateResult) -> str:
    counts = {status: sum(verdict.status == status for verdict in result.verdicts) for status in _MARKS}
    parts = [f"{number} {status}{_needs(result) if status == 'undecided' else ''}" for status, number in counts.items() if number]
    against = f" against {result.baseline}" if result.baseline else ""
    return f"gate {'passed' if result.passed else 'FAILED'}: {result.model}{against}: {', '.join(parts)}"


def _needs(result: GateResult) -> str:
    """Say what would decide all that is undecided."""
    undecided = [verdict for verdict in result.verdicts if verdict.status == "undecided"]
    needed = {v.unit: max(w.needed for w in undecided if w.unit == v.unit and w.needed) for v in undecided if v.needed}
    told = " and ".join(f"{number:,} {unit}" for unit, number in needed.items())
    rest = sum(verdict.needed is None for verdict in undecided)
    if not told:
        return " (no number of images would decide it)" if undecided else ""
    return f" (needs about {told}{f'; {rest} would stay so' if rest else ''})"


def _line(verdict: Verdict, paper: Paper) -> str:
    mark = _MARKS[verdict.status]
    told = verdict.message + (f" ({verdict.origin})" if verdict.origin else "")
    told = fold(told, paper.width, indent=_INDENT, first=_INDENT)[_INDENT:]
    colour = "red" if verdict.fails else _COLOURS[verdict.status]
    return paint(mark, colour, paper) + " " * (_INDENT - len(mark)) + told


def render_verdicts(result: GateResult, paper: Paper = PLAIN) -> str:
    """Write verdicts for people.

    Args:
        result: of the gate.
        paper: what it is written on.

    Returns:
        A paragraph a rule, one line where the width has no end, and one for all.
    """
    last = fold(_headline(result), paper.width)
    lines = [*(_line(verdict, paper) for verdict in result.verdicts), paint(last, "green" if result.passed else "red", paper)]
    return log_text("\n".join(lines) + "\n")


def gate_document(result: GateResult) -> GateDocument:
    """Make what JSON holds of verdicts.

    Args:
        result: of the gate.

    Returns:
        The same numbers.
    """
    from gcaudit.render.documents import GATE, GateDocument  # here, since a table needs no models

    return GateDocument(
        schema=GATE,
        passed=result.passed,
        model=result.model,
        baseline=result.baseline,
        verdicts=result.verdicts,
        warnings=result.warnings,
    )


def render_verdicts_json(result: GateResult) -> str:
    """Write verdicts for programs.

    Args:
        result: of the gate.

    Returns:
        JSON; numbers are never rounded.
    """
    return json_text(gate_document(result).text())


def _printable(text: str) -> str:
    """Drop what XML 1.0 cannot hold."""
    return "".join(c for c in text if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff")


def render_junit(result: GateResult) -> str:
    """Write verdicts as JUnit XML: a test a rule.

    Args:
        result: of the gate.

    Returns:
        XML; a warning is a passed test with output, what is undecided or of level `off` a skipped one, unless it fails the gate.
    """
    from xml.etree import ElementTree as ET

    failed = sum(verdict.fails for verdict in result.verdicts)
    skipped = sum(verdict.status in ("off", "undecided") and not verdict.fails for verdict in result.verdicts)
    counts = {"tests": str(len(result.verdicts)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
    root = ET.Element("testsuites", {"name": "gcaudit", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _printable(f"gcaudit gate {result.model}"), **counts, "time": "0"})
    for verdict in result.verdicts:
        name = _printable(verdict.rule)
        case = ET.SubElement(suite, "testcase", {"name": name, "classname": f"gcaudit.{verdict.metric}", "time": "0"})
        message = _printable(verdict.message + (f" ({verdict.origin})" if verdict.origin else ""))
        if verdict.fails:
            ET.SubElement(case, "failure", {"message": message, "type": verdict.outcome}).text = message
        elif verdict.status in ("off", "undecided"):
            ET.SubElement(case, "skipped", {"message": f"{_MARKS[verdict.status]}: {message}"})
        else:
            ET.SubElement(case, "system-out").text = f"{_MARKS[verdict.status]} {message}"
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml_text(ET.tostring(root, encoding="unicode")) + "\n"


def _command(kind: str, message: str) -> str:
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{kind} title=gcaudit gate::{escaped}"


def _annotation(verdict: Verdict) -> str | None:
    """Say what kind of annotation a verdict becomes."""
    return "error" if verdict.fails else "warning" if verdict.warns else "notice" if verdict.status == "undecided" else None


def _annotated(verdict: Verdict) -> str:
    return f"UNDECIDED: {verdict.message}" if verdict.status == "undecided" else verdict.message


def render_annotations(result: GateResult) -> list[str]:
    """Write GitHub workflow commands, no more than GitHub shows.

    Args:
        result: of the gate.

    Returns:
        One line an annotation; when there are too many, the last one counts the rest.
    """
    lines = []
    for kind in ("error", "warning", "notice"):
        messages = [_annotated(verdict) for verdict in result.verdicts if _annotation(verdict) == kind]
        if kind == "warning":
            messages += result.warnings
        if len(messages) > _ANNOTATIONS:
            messages = [*messages[: _ANNOTATIONS - 1], f"and {len(messages) - _ANNOTATIONS + 1} more; see the log"]
        lines += [_command(kind, message) for message in messages]
    return lines


def render_summary(result: GateResult) -> str:
    """Write verdicts as Markdown for a step summary, at most 64 KiB.

    Args:
        result: of the gate.

    Returns:
        Markdown that ends with a newline.
    """
    lines = [f"### {markdown_text(_headline(result))}", "", "| verdict | rule | from | why |", "|---|---|---|---|"]
    size = sum(len(line.encode()) + 1 for line in lines)
    order = sorted(result.verdicts, key=lambda verdict: not verdict.fails)
    for number, verdict in enumerate(order):
        told = (verdict.rule, verdict.origin, verdict.message)
        line = f"| {_MARKS[verdict.status]} | {' | '.join(map(markdown_text, told))} |"
        size += len(line.encode()) + 1
        if size > _SUMMARY_BYTES - 200:
            lines.append(f"| | | | and {len(order) - number} more |")
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


_MAKERS = {"json": render_verdicts_json, "junit": render_junit, "markdown": render_summary}


def render_gate(result: GateResult, name: str, paper: Paper = PLAIN) -> str:
    """Make the text of a gate's verdicts.

    Args:
        result: of the gate.
        name: one of `GATE_FORMATS`.
        paper: what a table is written on.

    Returns:
        Text that ends with a newline.
    """
    return render_verdicts(result, paper) if name == "table" else _MAKERS[name](result)
