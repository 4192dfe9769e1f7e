"""The report: versioned, lossless, and the source of every other format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from gcaudit.errors import RequestError, plain
from gcaudit.files import read_text
from gcaudit.report.evidence import ReportEvidence, evidence_path, load_evidence
from gcaudit.report.printing import printed
from gcaudit.report.warnings import ReportWarning, Text


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_MOST_BYTES = 2**28
SCHEMA: Literal["gcaudit.report/3"] = "gcaudit.report/3"
"""What is written; the versions before it are read too. Before 3, values of class means were those of the images at hand."""
_ALWAYS = frozenset(("value", "stderr", "ci95", "n"))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain(str(key)): _plain(held) for key, held in value.items()}
    return [_plain(held) for held in value] if isinstance(value, list) else value


class MetricValue(_Model):
    """One measured quantity.

    What could not be measured is null with a reason, never 0 and never NaN. Keys below `reason` are there where they apply.
    """

    value: float | None
    stderr: float | None = Field(description="standard error, in the unit of value")
    ci95: tuple[float, float] | None = Field(description="95% interval")
    n: int = Field(description="images behind it")
    reason: Text | None = Field(None, description="why value, or only stderr, is null")
    student: float | None = Field(None, description="97.5% point of Student's distribution at the degrees of freedom of stderr")
    plug_in: float | None = Field(
        None,
        description="what the papers' formula gives for the images at hand; `value` is that of the distribution they were drawn from",
    )
    estimator: Literal["sketch", "exact", "outputs", "given"] | None = None
    vectors: int | None = Field(None, description="VJPs an image")
    gc_per_class: dict[Text, float] | None = None
    energy_median: float | None = None
    energy_top_share: float | None = Field(None, description="share of the energies' sum that the largest 1% hold")
    energy_tail_index: float | None = Field(None, description="Hill's; below 2 the energies have no variance")
    attained_by: Text | None = Field(None, description="the class at which the maximum is")
    n_way: int | None = None
    n_shot: int | None = None
    n_query: int | Literal["all"] | None = None
    episodes: int | None = None
    ridge: float | None = None
    pool_stderr: float | None = Field(None, description="of a mean over episodes, given the pool of images")
    pool_ci95: tuple[float, float] | None = Field(None, description="of a mean over episodes, given the pool of images")
    interval: Text | None = Field(None, description="what the interval is for")
    terms: dict[Text, float] | None = Field(None, description="what a bound is made of")
    residual_per_class: dict[Text, float] | None = Field(
        None, description="share of a target class's mean that no mixture of source classes reaches"
    )
    mixture_per_class: dict[Text, dict[Text, float]] | None = Field(
        None, description="largest weights of the nearest mixture of source classes"
    )
    tightness: float | None = Field(None, description="of a bound: the left side of the inequality over the right one")
    curve: tuple[MetricValue, ...] | None = Field(None, description="the probe at each n_shot")

    @model_serializer(mode="wrap")
    def _drop_what_does_not_apply(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if value is not None or key in _ALWAYS}


class PreprocessingBlock(_Model):
    """Resize, crop and normalisation, and what gradients are taken with respect to."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Text
    crop_pct: float
    crop_mode: Text
    input_space: Literal["pixel", "normalized"]
    origin: Text = Field(description="checkpoint, architecture, and command line where it overrides")
    assumed: tuple[Text, ...] = Field(
        description="input_size, mean, std, crop_pct, interpolation: what neither checkpoint nor user said"
    )

    @property
    def size(self) -> str:
        """The input size as text, such as `3x224x224`."""
        return "x".join(str(edge) for edge in self.input_size)

    @field_validator("assumed", mode="before")
    @classmethod
    def _of_older_versions(cls, value: Any) -> Any:
        return (("input_size", "mean", "std") if value else ()) if isinstance(value, bool) else value


class ModelBlock(_Model):
    """The model that was audited."""

    spec: Text
    arch: Text
    sha256: Text = Field(description="of the file's bytes; of the weights when the model is no file")
    format: Text | None = Field(None, description="of the checkpoint file")
    container: Text | None = Field(None, description="the key that the weights lay under")
    other_containers: tuple[Text, ...] = ()
    layer: Text
    embedding: Text = Field(description="what was taken at the layer")
    embedding_dim: int
    parameters: int
    preprocessing: PreprocessingBlock


class DataBlock(_Model):
    """A data set and what was measured on it."""

    spec: Text
    split: Text | None
    classes: int
    images: int
    class_names: tuple[Text, ...]
    fingerprint: Text = Field(description="digest of classes, labels and encoded images")
    left_alone: int = Field(
        0, description="pictures of the input's size, neither resized nor cropped since nobody has asked for a crop"
    )
    columns: tuple[Text, Text] | None = Field(None, description="of a table, those taken for images and labels")
    metrics: dict[Text, MetricValue]


class Timing(_Model):
    """How long it took."""

    images_per_second: float
    seconds: float
    decode_seconds: float | None = Field(None, description="of them, how long passes waited for images to be read and decoded")
    decode_share: float | None = Field(None, description="of the passes' seconds")


class Report(_Model):
    """An audit: what was measured, on what, and how. Printed, it is the table of the command line.

    Attributes:
        schema_: version of this form; `schema` in JSON.
        gcaudit: version of the program.
        created: when, UTC.
        model: what was audited: architecture, digest of the weights, layer, preprocessing.
        settings: every option of the audit by its flat name, and how it was run.
        source: what the model was trained on; `source.metrics["cdnv"].value`.
        target: what it will be used for, in the same form; None for none.
        warnings: whatever was assumed, skipped, converted or chosen on the way to a number.
        timing: seconds, and images a second.

    Example:
        >>> report = gcaudit.score("demo", "demo", "demo")  # doctest: +SKIP
        >>> report.target.metrics["probe_accuracy"].ci95  # doctest: +SKIP
        (0.666, 0.709)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_: Literal["gcaudit.report/1", "gcaudit.report/2", "gcaudit.report/3"] = Field(SCHEMA, alias="schema")
    gcaudit: Text
    created: Text
    model: ModelBlock
    settings: dict[str, Any]
    source: DataBlock
    target: DataBlock | None
    warnings: tuple[ReportWarning, ...]
    timing: Timing
    _evidence: ReportEvidence | None = PrivateAttr(default=None)

    @field_validator("settings")
    @classmethod
    def _make_plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = _plain(value)
        return found

    def __str__(self) -> str:
        return printed(self, "render_report")

    @property
    def evidence(self) -> ReportEvidence | None:
        """Influences of images and episodes, for paired comparison; None when they were not kept."""
        return self._evidence

    def with_evidence(self, evidence: ReportEvidence | None) -> Report:
        """Attach evidence; it is no part of the JSON.

        Args:
            evidence: the arrays.

        Returns:
            An equal report with evidence.
        """
        found = self.model_copy()
        found._evidence = evidence
        return found

    def to_json(self) -> str:
        """Write the report as JSON; numbers are never rounded.

        Returns:
            Text that ends with a newline.
        """
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> Report:
        """Read a report back.

        Args:
            text: from `to_json`.

        Returns:
            An equal report.
        """
        return Report.model_validate_json(text)

    @staticmethod
    def read(path: str | Path, *, evidence: bool = True) -> Report:
        """Read a report file, and the evidence beside it when it was saved.

        Args:
            path: of the JSON.
            evidence: read it; it takes longer than the report, and only a comparison with another report needs it.

        Returns:
            The report.

        Raises:
            RequestError: no such file, or no report in it.
        """
        place = Path(path)
        try:
            text = read_text(place, _MOST_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            problem = getattr(error, "strerror", None) or "not text"
            raise RequestError(f"expected a report at {place}: {problem}; make one with gcaudit score ... -o FILE.json") from None
        try:
            report = Report.from_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RequestError(
                f"{place}: expected a report of schema {SCHEMA} or before, found in {where}: {first['msg']}; score again"
            ) from None
        return report.with_evidence(load_evidence(evidence_path(place), text)) if evidence else report

    def blocks(self) -> Mapping[str, DataBlock]:
        """Return the data sets by role.

        Returns:
            `source`, and `target` where there is one.
        """
        found = {"source": self.source}
        return found if self.target is None else {**found, "target": self.target}
