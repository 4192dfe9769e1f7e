from .archives import (
    BROKEN_ARCHIVE as BROKEN_ARCHIVE,
    BoundedFile as BoundedFile,
    open_zip as open_zip,
    read_arrays as read_arrays,
)
from .lined_text import LinedText as LinedText, dashes as dashes
from .opening import OpenFile as OpenFile, read_bytes as read_bytes, read_text as read_text
from .outages import HUB_LOST as HUB_LOST, deepest as deepest, is_outage as is_outage
from .pickles import PickleError as PickleError, PickleReader as PickleReader
from .values import (
    ITEM_BYTES as ITEM_BYTES,
    MOST_DIMENSIONS as MOST_DIMENSIONS,
    Array as Array,
    Opaque as Opaque,
    StorageSpec as StorageSpec,
    TensorSpec as TensorSpec,
)
from .yaml_text import load_yaml as load_yaml
