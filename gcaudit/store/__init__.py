"""What was measured once, kept on disk by content, so that it is never measured again.

In: blocks and reports under the digest of all that they depend on; observations, where they are to be kept.
Out: the same, to any process on the machine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
