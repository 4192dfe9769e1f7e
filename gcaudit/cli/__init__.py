"""The command line: parse, call one function, write, exit.

In: what was typed. Out: the report on stdout or in a file, all else on stderr, and an exit code.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
