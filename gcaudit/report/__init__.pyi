from .evidence import ReportEvidence as ReportEvidence, evidence_path as evidence_path, save_evidence as save_evidence
from .printing import printed as printed
from .schema import (
    SCHEMA as SCHEMA,
    DataBlock as DataBlock,
    MetricValue as MetricValue,
    ModelBlock as ModelBlock,
    PreprocessingBlock as PreprocessingBlock,
    Report as Report,
    Timing as Timing,
)
from .warnings import WARNINGS as WARNINGS, ReportWarning as ReportWarning, warn as warn
