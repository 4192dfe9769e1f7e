"""An encoder on a device, and the one loop that runs images through it.

In: an encoder, an image set, and how to run them.
Out: evidence for the metrics, in the order of the data whatever the batch size, workers and device.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
