"""Gaussian variational inference with a low-rank correction of the covariance."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.tensor import seeded_generator
from sbflow.whitening.affine import Affine
from sbflow.whitening.variational import Family, Variational

__all__ = ["LowRank"]


class _LowRankFamily(Family):
    def __init__(self, dim: int, rank: int, generator: torch.Generator) -> None:
        super().__init__(dim)
        self.log_diagonal = nn.Parameter(torch.zeros(dim, dtype=torch.float64))
        # the bound is even in U, so that U = 0 would stay 0
        factor = torch.randn(dim, rank, dtype=torch.float64, generator=generator)
        self.factor = nn.Parameter(0.1 * factor / max(dim, rank) ** 0.5)

    @property
    def num_noise(self) -> int:
        return sum(self.factor.shape)

    def forward(self, noise: Float[Tensor, "s e"]) -> Float[Tensor, "s d"]:
        own, shared = noise.tensor_split([len(self.loc)], dim=1)
        return self.loc + self.log_diagonal.exp() * own + shared @ self.factor.T

    def log_det(self) -> Float[Tensor, ""]:
        """½ log det(D² + U Uᵀ), by the determinant lemma."""
        scaled = self.factor / self.log_diagonal.exp()[:, None]
        return self.log_diagonal.sum() + 0.5 * torch.logdet(_plus_identity(scaled.T @ scaled))

    def scale(self) -> Float[Tensor, "d d"]:
        """Cholesky factor of D² + U Uᵀ, in a form that does not square the condition number of D."""
        diagonal = self.log_diagonal.exp()[:, None]
        scaled = self.factor / diagonal
        return diagonal * torch.linalg.cholesky(_plus_identity(scaled @ scaled.T))


class LowRank(Variational):
    """Reference law with covariance L₀ (D² + U Uᵀ) L₀ᵀ, U of a few columns, by reverse Kullback–Leibler.

    L₀ is the factor of the Laplace approximation, or I where there is none: a correction of its curvature in few
    directions, or a mean field with a few correlations.

    Args:
        rank: columns of U.
        num_samples: see `Variational`.
        num_steps: see `Variational`.
        inflation: see `Variational`.
        seed: see `Variational`.

    Raises:
        ValueError: ``rank`` is below 1, or as for `Variational`.
    """

    def __init__(
        self,
        rank: int = 10,
        *,
        num_samples: int | None = None,
        num_steps: int = 200,
        inflation: float = 1.0,
        seed: int = 0,
    ) -> None:
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        super().__init__(num_samples=num_samples, num_steps=num_steps, inflation=inflation, seed=seed)
        self.rank = rank

    def family(self, dim: int) -> Family:
        """Gaussians of covariance D² + U Uᵀ."""
        return _LowRankFamily(dim, min(self.rank, dim), seeded_generator(self.seed))

    def empty(self, dim: int) -> Affine:
        """Return the identity, with a full matrix."""
        return Affine(torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64))


def _plus_identity(matrix: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    return matrix + torch.eye(len(matrix)).to(matrix)
