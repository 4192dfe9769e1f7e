"""What is read from disk, and how: regular files alone, bounded, and nothing in them is executed.

In: a path, or bytes that nobody trusts.
Out: open files, and what pickles hold as plain values and descriptions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
