"""AuditSpec -> Report: one model looked at with one or two data sets.

In: what is asked, put together of the requests that the rooms below take; flat names become a spec in `AuditSpec.from_options` alone.
Out: the report, or its blocks, one model on one data set each, which a store can keep.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
