"""Many models on many data sets: what is missing in the store is measured, here or on a cluster, and ranked.

In: models, globs or a YAML file, data sets, and options of an audit.
Out: a report for each cell, rankings of them, and how well each metric predicts accuracies.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
