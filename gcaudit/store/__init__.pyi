from .identity import (
    ModelIdentity as ModelIdentity,
)
from .identity import (
    block_key as block_key,
)
from .identity import (
    identify as identify,
)
from .identity import (
    model_question as model_question,
)
from .identity import (
    observation_key as observation_key,
)
from .observations import load_observation as load_observation
from .observations import save_observation as save_observation
from .results import (
    DEFAULT_STORE as DEFAULT_STORE,
)
from .results import (
    Cell as Cell,
)
from .results import (
    Store as Store,
)
from .results import (
    cell_key as cell_key,
)
from .results import (
    content_hash as content_hash,
)
from .results import (
    observations_folder as observations_folder,
)
