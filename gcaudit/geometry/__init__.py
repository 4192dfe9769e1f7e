"""The mathematics of gcaudit: tensors in, estimates out.

Notation, used in every file of this package:

    x        an image in pixel scale [0, 1], shape (C, H, W), d = C*H*W
    z = f(x) its embedding, D numbers
    J(x)     df/dx, shape (D, d)
    g(x)     energy: sum of squares of all entries of J(x)
    K        number of classes, equally weighted everywhere
    n_c      images of class c
    mu_c     class mean of z
    v_c      class variance: mean squared distance to mu_c, divided by n_c
    u_c      the same divided by n_c - 1
    GC_c     class mean of g; GC is the mean over classes
    d_ij     Euclidean distance of mu_i and mu_j

Nothing here reads files, builds models, prints, or touches global random state.

Reference: Munn, Dherin, Gonzalvo, "The Impact of Geometric Complexity on Neural Collapse in Transfer Learning",
NeurIPS 2024 (called "the paper" throughout).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
