from .explaining import explain_metric as explain_metric
from .ridge import ProbeSettings as ProbeSettings
from .table import (
    METRICS as METRICS,
    Metric as Metric,
    Role as Role,
    find_metric as find_metric,
    find_metrics as find_metrics,
    measure_evidence as measure_evidence,
)
