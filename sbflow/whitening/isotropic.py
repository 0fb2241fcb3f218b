"""Isotropic Gaussian variational inference."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.whitening.affine import Affine
from sbflow.whitening.variational import Family, Variational

__all__ = ["Isotropic"]


class _IsotropicFamily(Family):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, noise: Float[Tensor, "s e"]) -> Float[Tensor, "s d"]:
        return self.loc + self.log_scale.exp() * noise

    def log_det(self) -> Float[Tensor, ""]:
        return len(self.loc) * self.log_scale

    def scale(self) -> Float[Tensor, " d"]:
        return self.log_scale.exp().expand_as(self.loc)


class Isotropic(Variational):
    """Reference law N(m, σ² I) with m and σ by reverse Kullback–Leibler; arguments as in `Variational`."""

    def family(self, dim: int) -> Family:
        """Gaussians of one standard deviation."""
        return _IsotropicFamily(dim)

    def simplify(self, start: Affine) -> Affine:
        """Take one scale, of the average curvature."""
        precision = start.precision_diagonal().mean()
        return Affine(start.loc, precision.rsqrt().expand_as(start.loc).clone())

    def empty(self, dim: int) -> Affine:
        """Return the identity."""
        return Affine(torch.zeros(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64))
