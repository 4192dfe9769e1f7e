"""Rules + report (+ baseline) -> verdicts: may this checkpoint be released?

In: rules as text, in files or as options; reports that may be compared.
Out: a verdict for each rule, by the 95% interval.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
