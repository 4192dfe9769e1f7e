from .block import Block as Block
from .blocks import (
    assemble_report as assemble_report,
    make_block as make_block,
    metric_value as metric_value,
    model_block as model_block,
    used_settings as used_settings,
)
from .held_out import takes_held_out as takes_held_out, with_held_out as with_held_out
from .option import Kind as Kind, Option as Option
from .option_values import read_value as read_value
from .options import (
    DATA as DATA,
    DATASET_OPTIONS as DATASET_OPTIONS,
    OPTIONS as OPTIONS,
    RUN as RUN,
    check_options as check_options,
    expand_shorthands as expand_shorthands,
    options_under as options_under,
)
from .run import (
    check_request as check_request,
    check_target as check_target,
    inspect_layers as inspect_layers,
    inspect_model as inspect_model,
    look_at_data as look_at_data,
    refuse_warnings as refuse_warnings,
    run_audit as run_audit,
)
from .spec import AuditSpec as AuditSpec, model_request as model_request
