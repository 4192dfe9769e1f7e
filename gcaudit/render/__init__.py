"""All that people look at: tables, Markdown, JUnit, CSV, plots; text and bytes are made here and written elsewhere.

In: reports, rankings, verdicts, cells of a store.
Out: text that ends with a newline, or the bytes of a file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
