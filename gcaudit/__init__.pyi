from . import regularizers as regularizers
from .audit.run import run_audit as run_audit, score as score
from .audit.spec import AuditSpec as AuditSpec
from .errors import GcauditError as GcauditError, GcauditWarning as GcauditWarning
from .gate.request import gate as gate
from .gate.verdict import GateResult as GateResult, Verdict as Verdict
from .geometry.curvature import Flatness as Flatness, flatness as flatness
from .geometry.estimate import Estimate as Estimate
from .geometry.jacobian import energies as energies
from .metrics.measuring import measure as measure
from .metrics.ridge import ProbeSettings as ProbeSettings
from .metrics.table import METRICS as METRICS
from .report.schema import Report as Report
from .zoo.compare import Comparison as Comparison, compare as compare
from .zoo.ranking import Ranking as Ranking
