"""The report: versioned, lossless, and the source of every other format.

In: numbers, as they were measured. Out: JSON, its schema, and the evidence that lies beside it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
