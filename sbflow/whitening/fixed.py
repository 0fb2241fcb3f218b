"""A reference law that is given, so that several samplers can share it."""

from collections.abc import Sequence

import torch

from sbflow.target.base import Target
from sbflow.whitening.affine import Affine
from sbflow.whitening.base import Whitening, device_of

__all__ = ["Fixed"]


class Fixed(Whitening):
    """N(m, L Lᵀ) as given, the same for every target.

    Args:
        loc: m, one number for each coordinate.
        scale: L, standard deviations or the rows of a lower-triangular matrix.

    Raises:
        ValueError: the shapes disagree, or L is not lower-triangular with a positive diagonal.
    """

    def __init__(self, loc: Sequence[float], scale: Sequence[float] | Sequence[Sequence[float]]) -> None:
        self.affine = Affine(*(torch.as_tensor(part, dtype=torch.float64) for part in (loc, scale)))

    @classmethod
    def of(cls, affine: Affine) -> "Fixed":
        """The whitening of a sampler that was fitted, ``sampler.affine``."""
        return cls(affine.loc.tolist(), affine.scale.tolist())

    def fit(self, target: Target) -> Affine:
        """Return the law."""
        return self.empty(target.dim).to(device_of(target))

    def empty(self, dim: int) -> Affine:
        """Return the law.

        Raises:
            ValueError: it has another dimension.
        """
        if dim != self.affine.dim:
            raise ValueError(f"loc must have {dim} numbers, the dimension of the target, got {self.affine.dim}")
        return Affine(self.affine.loc, self.affine.scale)
