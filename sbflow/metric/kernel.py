"""Kernel distance (KID) between feature sets: an unbiased squared maximum mean discrepancy.

.. math:: k(a, b) = (a^T b / d + 1)^3
"""

from jaxtyping import Float
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

__all__ = ["kernel_distance"]


def kernel_distance(a: Float[Tensor, "n features"], b: Float[Tensor, "m features"]) -> float:
    """Unbiased estimate of the squared distance, in double precision; 0 in the mean for two sets of one law.

    Unlike the Fréchet distance its mean does not depend on the number of samples, and it can be negative.

    Args:
        a: features of one set, at least two.
        b: features of the other; of the longer set only the first ones are used, as many as the shorter has.

    Raises:
        ValueError: fewer than two samples, or NaN or infinite values.

    References:
        Bińkowski, Sutherland, Arbel, Gretton, Demystifying MMD GANs, 2018.
    """
    for x in (a, b):
        if len(x) < 2 or not x.isfinite().all():
            raise ValueError(f"the kernel distance needs at least 2 finite feature vectors, got {len(x)}")
    count = min(len(a), len(b))
    return float(poly_mmd(a[:count].double().cpu(), b[:count].double().cpu()))
