from .cells import CellResult as CellResult
from .compare import (
    ComparePlan as ComparePlan,
    CompareRequest as CompareRequest,
    Comparison as Comparison,
    plan_comparison as plan_comparison,
    run_comparison as run_comparison,
)
from .option_file import OptionFile as OptionFile, project_options as project_options, read_option_file as read_option_file
from .ranking import RankedRow as RankedRow, Ranking as Ranking, RankingTable as RankingTable
from .truth import Prediction as Prediction, Truth as Truth, read_measured as read_measured
from .waiting import MAX_WAIT_MINUTES as MAX_WAIT_MINUTES
from .zoo_schema import ZOO_EXAMPLE as ZOO_EXAMPLE, zoo_schema as zoo_schema
