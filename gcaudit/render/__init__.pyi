from .comparison import (
    CellLines as CellLines,
)
from .comparison import (
    comparison_summary as comparison_summary,
)
from .comparison import (
    render_comparison as render_comparison,
)
from .export import export_cells as export_cells
from .formats import FORMATS as FORMATS
from .formats import GATE_FORMATS as GATE_FORMATS
from .formats import RANKING_FORMATS as RANKING_FORMATS
from .listing import (
    render_cells as render_cells,
)
from .listing import (
    render_datasets as render_datasets,
)
from .listing import (
    render_metrics as render_metrics,
)
from .listing import (
    render_model as render_model,
)
from .plots import scatter_plot as scatter_plot
from .report import render_report as render_report
from .verdicts import (
    render_annotations as render_annotations,
)
from .verdicts import (
    render_gate as render_gate,
)
from .verdicts import (
    render_summary as render_summary,
)
from .verdicts import (
    render_verdicts as render_verdicts,
)
