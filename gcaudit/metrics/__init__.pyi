from .ridge import ProbeSettings as ProbeSettings
from .table import (
    METRICS as METRICS,
)
from .table import (
    Metric as Metric,
)
from .table import (
    Role as Role,
)
from .table import (
    find_metric as find_metric,
)
from .table import (
    find_metrics as find_metrics,
)
from .table import (
    measure_evidence as measure_evidence,
)
