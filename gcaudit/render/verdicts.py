"""Verdicts of a gate: for the log, for programs, for JUnit and for GitHub."""

from __future__ import annotations

import json
from dataclasses import asdict
from xml.etree import ElementTree as ET

from gcaudit.gate import GateResult, Verdict
from gcaudit.render.escapes import json_text, log_text, markdown_text, xml_text

_MARKS = {"passed": "PASS", "warned": "WARN", "failed": "FAIL", "off": "off"}
_ANNOTATIONS = 10
"""GitHub shows so many of a kind for a step."""
_SUMMARY_BYTES = 64 * 1024


def _headline(result: GateResult) -> str:
    counts = {status: sum(verdict.status == status for verdict in result.verdicts) for status in _MARKS}
    parts = [f"{number} {status}" for status, number in counts.items() if number]
    against = f" against {result.baseline}" if result.baseline else ""
    return f"gate {'passed' if result.passed else 'FAILED'}: {result.model}{against}: {', '.join(parts)}"


def render_verdicts(result: GateResult) -> str:
    """Write verdicts for people.

    Args:
        result: of the gate.

    Returns:
        One line a rule and one for all.
    """
    lines = [f"{_MARKS[verdict.status]}  {verdict.message}{_unsure(verdict)}" for verdict in result.verdicts]
    return log_text("\n".join([*lines, _headline(result)]) + "\n")


def _unsure(verdict: Verdict) -> str:
    return " (too close to call)" if verdict.outcome == "unsure" and verdict.status == "passed" else ""


def render_verdicts_json(result: GateResult) -> str:
    """Write verdicts for programs.

    Args:
        result: of the gate.

    Returns:
        JSON; numbers are never rounded.
    """
    content = {
        "schema": "gcaudit.gate/1",
        "passed": result.passed,
        "model": result.model,
        "baseline": result.baseline,
        "verdicts": [asdict(verdict) for verdict in result.verdicts],
        "warnings": list(result.warnings),
    }
    return json_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _printable(text: str) -> str:
    """Drop what XML 1.0 cannot hold."""
    return "".join(c for c in text if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff")


def render_junit(result: GateResult) -> str:
    """Write verdicts as JUnit XML: a test a rule.

    Args:
        result: of the gate.

    Returns:
        XML; a warning is a passed test with output, a rule of level `off` a skipped one.
    """
    failed = sum(verdict.status == "failed" for verdict in result.verdicts)
    off = sum(verdict.status == "off" for verdict in result.verdicts)
    counts = {"tests": str(len(result.verdicts)), "failures": str(failed), "errors": "0", "skipped": str(off)}
    root = ET.Element("testsuites", {"name": "gcaudit", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _printable(f"gcaudit gate {result.model}"), **counts, "time": "0"})
    for verdict in result.verdicts:
        name = _printable(verdict.rule)
        case = ET.SubElement(suite, "testcase", {"name": name, "classname": f"gcaudit.{verdict.metric}", "time": "0"})
        message = _printable(verdict.message)
        if verdict.status == "failed":
            ET.SubElement(case, "failure", {"message": message, "type": verdict.outcome}).text = message
        elif verdict.status == "off":
            ET.SubElement(case, "skipped")
        else:
            ET.SubElement(case, "system-out").text = f"{_MARKS[verdict.status]} {message}{_unsure(verdict)}"
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml_text(ET.tostring(root, encoding="unicode")) + "\n"


def _command(kind: str, message: str) -> str:
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{kind} title=gcaudit gate::{escaped}"


def render_annotations(result: GateResult) -> list[str]:
    """Write GitHub workflow commands, no more than GitHub shows.

    Args:
        result: of the gate.

    Returns:
        One line an annotation; when there are too many, the last one counts the rest.
    """
    lines = []
    for kind, status in (("error", "failed"), ("warning", "warned")):
        messages = [verdict.message for verdict in result.verdicts if verdict.status == status]
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
    lines = [f"### {markdown_text(_headline(result))}", "", "| verdict | rule | why |", "|---|---|---|"]
    size = sum(len(line.encode()) + 1 for line in lines)
    order = sorted(result.verdicts, key=lambda verdict: list(_MARKS).index(verdict.status) != 2)
    for number, verdict in enumerate(order):
        line = f"| {_MARKS[verdict.status]} | {markdown_text(verdict.rule)} | {markdown_text(verdict.message)}{_unsure(verdict)} |"
        size += len(line.encode()) + 1
        if size > _SUMMARY_BYTES - 200:
            lines.append(f"| | | and {len(order) - number} more |")
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


_MAKERS = {"table": render_verdicts, "json": render_verdicts_json, "junit": render_junit, "markdown": render_summary}


def render_gate(result: GateResult, name: str) -> str:
    """Make the text of a gate's verdicts.

    Args:
        result: of the gate.
        name: one of `GATE_FORMATS`.

    Returns:
        Text that ends with a newline.
    """
    return _MAKERS[name](result)
