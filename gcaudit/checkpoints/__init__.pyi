from .contents import EMA_CONTAINERS as EMA_CONTAINERS, WRAPPERS as WRAPPERS
from .reading import WEIGHT_SUFFIXES as WEIGHT_SUFFIXES, Checkpoint as Checkpoint, read_checkpoint as read_checkpoint
