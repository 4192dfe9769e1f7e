"""Evidence -> Estimates: one file a quantity, and the literal table of all.

In: what one pass over a data set has seen, or arrays that are already at hand.
Out: estimates with standard errors and intervals, or the reason why there is none.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
