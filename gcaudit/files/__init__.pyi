from .opening import OpenFile as OpenFile
from .pickles import PickleError as PickleError, PickleReader as PickleReader
from .values import (
    ITEM_BYTES as ITEM_BYTES,
    MOST_DIMENSIONS as MOST_DIMENSIONS,
    Array as Array,
    Opaque as Opaque,
    StorageSpec as StorageSpec,
    TensorSpec as TensorSpec,
)
