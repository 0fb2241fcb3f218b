"""Two Gaussians, whose Schrödinger bridge is known in closed form."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sbflow.data.unpaired import Split, UnpairedData

__all__ = ["Gaussians"]


class Gaussians(UnpairedData):
    """π₀ = N(mean0 · 1, cov0), π₁ = N(mean1 · 1, cov1).

    Args:
        dim: dimension.
        mean0: mean of every coordinate of x0.
        mean1: mean of every coordinate of x1.
        std0: standard deviation of every coordinate of x0, unless ``cov0`` is given.
        std1: the same of x1.
        cov0: full covariance of x0 ``[dim, dim]``.
        cov1: full covariance of x1 ``[dim, dim]``.
        num_samples: samples of each end and split.
        **kwargs: see `UnpairedData`.

    Raises:
        ValueError: a covariance is not ``[dim, dim]`` and positive definite.
    """

    def __init__(
        self,
        *,
        dim: int = 5,
        mean0: float = -0.1,
        mean1: float = 0.1,
        std0: float = 1.0,
        std1: float = 1.0,
        cov0: Sequence[Sequence[float]] | Tensor | None = None,
        cov1: Sequence[Sequence[float]] | Tensor | None = None,
        num_samples: int = 50_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mean0 = torch.full((dim,), float(mean0))
        self.mean1 = torch.full((dim,), float(mean1))
        self.cov0 = _covariance("cov0", cov0, std0, dim)
        self.cov1 = _covariance("cov1", cov1, std1, dim)
        self.num_samples = num_samples

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Draw a split; the test split is independent of the training one."""
        generator = torch.Generator().manual_seed(2 * self.seed + (split == "test"))

        def draw(mean: Tensor, covariance: Tensor) -> Tensor:
            noise = torch.randn(self.num_samples, len(mean), generator=generator)
            return mean + noise @ torch.linalg.cholesky(covariance).T

        return Split(draw(self.mean0, self.cov0), draw(self.mean1, self.cov1))


def _covariance(name: str, covariance: Sequence[Sequence[float]] | Tensor | None, std: float, dim: int) -> Tensor:
    if covariance is None:
        return std**2 * torch.eye(dim)
    matrix = torch.as_tensor(covariance, dtype=torch.get_default_dtype())
    if matrix.shape != (dim, dim) or torch.linalg.cholesky_ex(matrix)[1] != 0:
        raise ValueError(f"{name} must be a positive definite [{dim}, {dim}] matrix, got shape {list(matrix.shape)}")
    return matrix
