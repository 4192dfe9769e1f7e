from .identity import (
    ModelIdentity as ModelIdentity,
    block_key as block_key,
    identify as identify,
    model_question as model_question,
    observation_key as observation_key,
)
from .observations import load_observation as load_observation, save_observation as save_observation
from .results import (
    DEFAULT_STORE as DEFAULT_STORE,
    Cell as Cell,
    Store as Store,
    cell_key as cell_key,
    content_hash as content_hash,
    observations_folder as observations_folder,
)
