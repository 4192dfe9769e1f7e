"""What the JSON of gates and rankings holds, as the models that write it and make its schema."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gcaudit.gate import Verdict


class Document(BaseModel):
    """A JSON document: numbers are never rounded, and what is not there is null."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def text(self) -> str:
        """Write it.

        Returns:
            JSON that ends with a newline.
        """
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


GATE: Literal["gcaudit.gate/2"] = "gcaudit.gate/2"


class GateDocument(Document):
    """What `gcaudit gate --format json` writes."""

    schema_: Literal["gcaudit.gate/2"] = Field(alias="schema")
    passed: bool = Field(description="whether no rule fails the gate: exit code 0 or 1")
    model: str = Field(description="what was judged")
    baseline: str | None = Field(description="what it was compared with; null where no rule did so")
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...] = Field(
        description="differences that were let pass, rules that make no sense, a baseline that was not used"
    )
