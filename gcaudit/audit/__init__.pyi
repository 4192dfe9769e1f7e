from .blocks import (
    Block as Block,
)
from .blocks import (
    assemble_report as assemble_report,
)
from .blocks import (
    make_block as make_block,
)
from .blocks import (
    metric_value as metric_value,
)
from .blocks import (
    model_block as model_block,
)
from .blocks import (
    used_settings as used_settings,
)
from .options import (
    DATA as DATA,
)
from .options import (
    OPTIONS as OPTIONS,
)
from .options import (
    RUN as RUN,
)
from .options import (
    Kind as Kind,
)
from .options import (
    Option as Option,
)
from .options import (
    check_options as check_options,
)
from .options import (
    options_under as options_under,
)
from .run import (
    check_request as check_request,
)
from .run import (
    check_target as check_target,
)
from .run import (
    inspect_model as inspect_model,
)
from .run import (
    run_audit as run_audit,
)
from .spec import AuditSpec as AuditSpec
from .spec import model_request as model_request
