"""Weights + architecture -> Encoder; the only room that knows timm and torchvision.models.

In: which model, and how it is to be read.
Out: a frozen network, where its embedding is taken, and its preprocessing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
