from .evidence import ReportEvidence as ReportEvidence
from .evidence import evidence_path as evidence_path
from .evidence import save_evidence as save_evidence
from .schema import (
    DataBlock as DataBlock,
)
from .schema import (
    MetricValue as MetricValue,
)
from .schema import (
    ModelBlock as ModelBlock,
)
from .schema import (
    PreprocessingBlock as PreprocessingBlock,
)
from .schema import (
    Report as Report,
)
from .schema import (
    Timing as Timing,
)
