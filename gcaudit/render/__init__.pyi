from .comparison import (
    CellLines as CellLines,
    comparison_summary as comparison_summary,
    render_comparison as render_comparison,
    render_correlations as render_correlations,
)
from .escapes import log_text as log_text
from .export import export_cells as export_cells
from .formats import (
    FORMATS as FORMATS,
    GATE_FORMATS as GATE_FORMATS,
    LIST_FORMATS as LIST_FORMATS,
    RANKING_FORMATS as RANKING_FORMATS,
)
from .listing import (
    datasets_json as datasets_json,
    metrics_json as metrics_json,
    render_cells as render_cells,
    render_datasets as render_datasets,
    render_layers as render_layers,
    render_metric as render_metric,
    render_metrics as render_metrics,
    render_model as render_model,
)
from .overview import overview_json as overview_json, render_overview as render_overview
from .paper import Paper as Paper, paper_of as paper_of, paragraph as paragraph
from .plots import scatter_plot as scatter_plot
from .power import render_power as render_power
from .report import render_report as render_report
from .schemas import SCHEMAS as SCHEMAS, render_schema as render_schema, schema_json as schema_json
from .verdicts import (
    render_annotations as render_annotations,
    render_gate as render_gate,
    render_summary as render_summary,
    render_verdicts as render_verdicts,
)
