"""Mean-field Gaussian variational inference."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.whitening.affine import Affine
from sbflow.whitening.variational import Family, Variational

__all__ = ["MeanField"]


class _MeanFieldFamily(Family):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.log_scale = nn.Parameter(torch.zeros(dim, dtype=torch.float64))

    def forward(self, noise: Float[Tensor, "s e"]) -> Float[Tensor, "s d"]:
        return self.loc + self.log_scale.exp() * noise

    def log_det(self) -> Float[Tensor, ""]:
        return self.log_scale.sum()

    def scale(self) -> Float[Tensor, " d"]:
        return self.log_scale.exp()


class MeanField(Variational):
    """Reference law with independent coordinates by reverse Kullback–Leibler; arguments as in `Variational`.

    For a Gaussian target its variances are those of each coordinate given all others, which strong correlations make
    far smaller than the marginal ones.
    """

    def family(self, dim: int) -> Family:
        """Gaussians with independent coordinates."""
        return _MeanFieldFamily(dim)

    def simplify(self, start: Affine) -> Affine:
        """Take the diagonal of the curvature, which is the answer for a Gaussian."""
        return Affine(start.loc, start.precision_diagonal().rsqrt())

    def empty(self, dim: int) -> Affine:
        """Return the identity."""
        return Affine(torch.zeros(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64))
