"""Data spec -> images by class, in batches; the only room that knows `datasets`, pyarrow and torchvision.datasets.

In: a name, path or Python object, and which of its splits, classes and images.
Out: an image set, its batches of pixels in a fixed order, and digests of its content.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
