"""Untrusted bytes -> tensors and hints; nothing in a checkpoint is ever executed.

In: the path of a file or folder, whose content decides the format, never the suffix.
Out: named tensors, all finite, and what the file says of its architecture and preprocessing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
