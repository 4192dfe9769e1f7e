from .reading import WEIGHT_SUFFIXES as WEIGHT_SUFFIXES
from .reading import Checkpoint as Checkpoint
from .reading import read_checkpoint as read_checkpoint
