"""Files that come with the package: what `gcaudit demo` uses; NOTICE.md says where they are from.

In: the name of a file. Out: its path.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
