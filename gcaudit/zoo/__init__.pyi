from .cells import CellResult as CellResult
from .compare import (
    ComparePlan as ComparePlan,
)
from .compare import (
    CompareRequest as CompareRequest,
)
from .compare import (
    Comparison as Comparison,
)
from .compare import (
    plan_comparison as plan_comparison,
)
from .compare import (
    run_comparison as run_comparison,
)
from .frames import report_frame as report_frame
from .frames import report_values as report_values
from .ranking import RankedRow as RankedRow
from .ranking import Ranking as Ranking
from .ranking import RankingTable as RankingTable
from .truth import Prediction as Prediction
from .truth import Truth as Truth
from .truth import read_measured as read_measured
