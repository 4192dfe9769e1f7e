"""What the JSON of gates and rankings holds, as the models that write it and make its schema."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gcaudit.gate import Verdict
from gcaudit.report import MetricValue, Report


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


RANKING: Literal["gcaudit.ranking/1"] = "gcaudit.ranking/1"


class RankingRow(Document):
    """One model of a ranking."""

    rank: int | None = Field(description="1 is best; null where the value is missing")
    groups: str = Field(description="letters; two models share one when, and only when, they cannot be told apart at 95%")
    model: str
    trained_on_target: bool = Field(
        description="whether source and target share classes or images: the row is then not of transfer"
    )
    reason: str | None = Field(description="why there is no value")
    report: Report


class RankingTableDocument(Document):
    """Models that may be compared, best first."""

    source: str
    target: str | None
    condition: str | None = Field(description="what these models have in common, where not all models may be compared")
    paired: bool = Field(description="whether all differences were judged on the same images or episodes")
    rows: tuple[RankingRow, ...]


class FailedCell(Document):
    """A model on a source and a target that could not be done."""

    model: str
    source: str
    target: str | None
    reason: str


class LeftOutDocument(Document):
    """A model that says nothing on how well a score predicts."""

    model: str
    reason: str


class PredictionDocument(Document):
    """How well a score predicts accuracies on one source and target."""

    source: str
    target: str | None
    metric: str = Field(description="ROLE.METRIC, with @N_SHOT for a further point of the probe's curve")
    models: tuple[str, ...]
    scores: tuple[float, ...]
    score_intervals: tuple[tuple[float, float] | None, ...] = Field(description="95% intervals of the scores")
    accuracies: tuple[float, ...]
    accuracy_intervals: tuple[tuple[float, float] | None, ...] = Field(
        description="95% intervals, where a metric stands for the accuracies"
    )
    condition: str | None = Field(description="what these models have in common, where not all models may be compared")
    left_out: tuple[LeftOutDocument, ...] = Field(description="the other models, and why")
    weighted_tau: MetricValue = Field(description="weighted Kendall tau; + where the score predicts well")
    spearman: MetricValue
    pearson: MetricValue


class RankingDocument(Document):
    """What `gcaudit compare --format json` writes."""

    schema_: Literal["gcaudit.ranking/1"] = Field(alias="schema")
    gcaudit: str
    sort: str = Field(description="the metric, as ROLE.METRIC")
    direction: Literal["lower", "higher"] = Field(description="which way is better")
    tables: tuple[RankingTableDocument, ...]
    failed: tuple[FailedCell, ...]
    truth: str | None = Field(None, description="what scores are compared with")
    predictions: tuple[PredictionDocument, ...] = ()
