"""What JSON and YAML hold: their schemas with an example each, for programs and for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gcaudit.bundled import bundled_path
from gcaudit.gate import gate
from gcaudit.render.documents import RANKING, GateDocument, RankingDocument, RankingRow, RankingTableDocument
from gcaudit.render.grid import Grid, lay_out
from gcaudit.render.paper import PLAIN, Paper, paragraph
from gcaudit.render.verdicts import gate_document
from gcaudit.report import Report

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_RULES = ("target.probe_accuracy >= 0.65", "source.cdnv <= 0.05", "warning: shared")


def _report() -> Report:
    return Report.from_json(Path(bundled_path("example-report.json")).read_text(encoding="utf-8"))


def _gate() -> GateDocument:
    return gate_document(gate(_report(), _RULES))


def _ranking() -> RankingDocument:
    report = _report()
    row = RankingRow(rank=1, groups="a", model=report.model.spec, trained_on_target=False, reason=None, report=report)
    table = RankingTableDocument(source="demo", target="demo", condition=None, paired=False, rows=(row,))
    return RankingDocument(
        schema=RANKING,
        gcaudit=report.gcaudit,
        sort="target.probe_accuracy",
        direction="higher",
        tables=(table,),
        failed=(),
        truth=None,
    )


def _report_schema() -> dict[str, Any]:
    return _described(Report.model_json_schema(by_alias=True), _report().to_json(), "gcaudit score --format json")


def _gate_schema() -> dict[str, Any]:
    return _described(GateDocument.model_json_schema(by_alias=True), _gate().text(), "gcaudit gate --format json")


def _ranking_schema() -> dict[str, Any]:
    return _described(RankingDocument.model_json_schema(by_alias=True), _ranking().text(), "gcaudit compare --format json")


def _zoo_schema() -> dict[str, Any]:
    from gcaudit.zoo import ZOO_EXAMPLE, zoo_schema

    return _described(zoo_schema(), json.dumps(ZOO_EXAMPLE), "a YAML file for gcaudit compare; keys may also be written with _")


def _described(schema: Mapping[str, Any], example: str, what: str) -> dict[str, Any]:
    found = {name: _with_attributes(part) for name, part in schema.get("$defs", {}).items()}
    return {"$schema": _DIALECT, **_with_attributes(schema), "$defs": found, "$comment": what, "examples": [json.loads(example)]}


def _with_attributes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Give each key the words of the docstring's section on attributes."""
    about, _, rest = str(schema.get("description", "")).partition("\n\nAttributes:\n")
    told: dict[str, str] = {}
    for line in rest.partition("\n\n")[0].splitlines():
        name, colon, text = line.strip().partition(": ")
        if line.startswith("    ") and not line.startswith("     ") and colon:
            told[name.rstrip("_")] = text
        elif told:
            told[list(told)[-1]] += f" {line.strip()}"
    properties = {
        name: {"description": told[name], **part} if name in told else part for name, part in schema.get("properties", {}).items()
    }
    found = dict(schema) | ({"description": about} if about else {})
    return found | ({"properties": properties} if properties else {})


_SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "report": _report_schema,
    "ranking": _ranking_schema,
    "gate": _gate_schema,
    "zoo": _zoo_schema,
}
SCHEMAS = tuple(_SCHEMAS)


def document_schema(name: str) -> dict[str, Any]:
    """Make the schema of what is written or read.

    Args:
        name: one of `SCHEMAS`.

    Returns:
        A JSON schema, draft 2020-12, with an example.
    """
    return _SCHEMAS[name]()


def schema_json(name: str) -> str:
    """Write a schema for programs.

    Args:
        name: one of `SCHEMAS`.

    Returns:
        JSON that ends with a newline.
    """
    return json.dumps(document_schema(name), indent=2, ensure_ascii=False) + "\n"


def render_schema(name: str, paper: Paper = PLAIN) -> str:
    """Write a schema for people.

    Args:
        name: one of `SCHEMAS`.
        paper: what it is written on.

    Returns:
        A table for each kind of object, and an example.
    """
    schema = document_schema(name)
    parts = [paragraph(f"{name}: {schema['$comment']}", paper)]
    objects = {"": schema} | {key: value for key, value in schema.get("$defs", {}).items() if "properties" in _object(value)}
    for title, found in objects.items():
        about = str(found.get("description", "")).partition("\n")[0]
        parts.append("\n" + paragraph(f"{title or name}: {about}", paper, "bold"))
        fields = _object(found)["properties"]
        rows = tuple((key, _kind(told), str(told.get("description", "")).partition("\n")[0]) for key, told in fields.items())
        parts.append(lay_out(Grid(("key", "type", "what"), rows, folds=(1, 2), rule=False), paper))
    example = json.dumps(schema["examples"][0], indent=1, ensure_ascii=False)
    return "".join([*parts, "\nexample\n", example, "\n"])


def _object(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a schema that is an object, where text may stand for it as well."""
    return next((part for part in schema.get("anyOf", ()) if "properties" in part), schema)


def _kind(schema: Mapping[str, Any]) -> str:
    """Say in a few words what a value is."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(part) for part in schema["anyOf"]))
    if schema.get("type") == "array":
        items: Any = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        return f"list of {_kind(items) if isinstance(items, dict) else 'anything'}"
    return str(schema.get("type", "anything"))
