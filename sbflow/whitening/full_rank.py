"""Gaussian variational inference with a full covariance."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.whitening.affine import Affine
from sbflow.whitening.variational import Family, Variational

__all__ = ["FullRank"]


class _FullRankFamily(Family):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.log_diagonal = nn.Parameter(torch.zeros(dim, dtype=torch.float64))
        self.below = nn.Parameter(torch.zeros(dim, dim, dtype=torch.float64))

    def forward(self, noise: Float[Tensor, "s e"]) -> Float[Tensor, "s d"]:
        return self.loc + noise @ self.scale().T

    def log_det(self) -> Float[Tensor, ""]:
        return self.log_diagonal.sum()

    def scale(self) -> Float[Tensor, "d d"]:
        return self.below.tril(-1) + self.log_diagonal.exp().diag()


class FullRank(Variational):
    """Reference law with any covariance by reverse Kullback–Leibler; arguments as in `Variational`.

    It has d (d + 3) / 2 parameters: for up to a few hundred dimensions, beyond which `LowRank` is cheaper.
    """

    def family(self, dim: int) -> Family:
        """All Gaussians."""
        return _FullRankFamily(dim)

    def empty(self, dim: int) -> Affine:
        """Return the identity, with a full matrix."""
        return Affine(torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64))
