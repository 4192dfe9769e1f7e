from .cells import Cell as Cell, cell_key as cell_key, content_hash as content_hash, find_cell as find_cell
from .claims import Claims as Claims
from .columns import (
    alike as alike,
    cell_columns as cell_columns,
    report_columns as report_columns,
    report_values as report_values,
    weights_text as weights_text,
)
from .identity import (
    ModelIdentity as ModelIdentity,
    block_key as block_key,
    identify as identify,
    model_question as model_question,
    observation_key as observation_key,
)
from .observations import load_observation as load_observation, save_observation as save_observation
from .repair import repair_store as repair_store
from .results import (
    DEFAULT_STORE as DEFAULT_STORE,
    Store as Store,
    damage_of as damage_of,
    observations_folder as observations_folder,
)
from .where import choose_cells as choose_cells
