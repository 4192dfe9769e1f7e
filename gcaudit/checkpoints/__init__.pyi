from .configs import config_hints as config_hints
from .contents import WeightSet as WeightSet
from .hints import Hints as Hints
from .reading import WEIGHT_SUFFIXES as WEIGHT_SUFFIXES, Checkpoint as Checkpoint, read_checkpoint as read_checkpoint
