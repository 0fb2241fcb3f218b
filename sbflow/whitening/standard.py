"""The reference law N(0, std² I), which asks nothing of the target."""

import math

import torch

from sbflow.target.base import Target
from sbflow.whitening.affine import Affine
from sbflow.whitening.base import Whitening, device_of

__all__ = ["Standard"]


class Standard(Whitening):
    """Isotropic Gaussian about the origin, the same for every target.

    Args:
        std: standard deviation in every coordinate; wide enough to cover the target.

    Raises:
        ValueError: ``std`` is not positive and finite.
    """

    def __init__(self, std: float = 1.0) -> None:
        if not (std > 0 and math.isfinite(std)):
            raise ValueError(f"std must be positive and finite, got {std}")
        self.std = std

    def fit(self, target: Target) -> Affine:
        """Return the law N(0, std² I) in the dimension of the target."""
        return self.empty(target.dim).to(device_of(target))

    def empty(self, dim: int) -> Affine:
        """Return the law N(0, std² I) in dimension ``dim``."""
        return Affine(torch.zeros(dim, dtype=torch.float64), torch.full((dim,), self.std, dtype=torch.float64))
