"""Two Gaussians, whose Schrödinger bridge is known in closed form."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.data.unpaired import Split, UnpairedData
from sbflow.process import GaussianBridge
from sbflow.tensor import seeded_generator

__all__ = ["Gaussians"]


class Gaussians(UnpairedData):
    """π₀ = N(mean0, cov0), π₁ = N(mean1, cov1), with scalar, diagonal or full covariances.

    Attributes:
        mean0: mean of π₀ ``[dim]``.
        mean1: mean of π₁ ``[dim]``.
        cov0: covariance of π₀ ``[dim, dim]``.
        cov1: covariance of π₁ ``[dim, dim]``.

    Args:
        dim: dimension.
        mean0: mean of x0, one number for all coordinates or one for each.
        mean1: the same of x1.
        std0: standard deviation of x0, one number for all coordinates or one for each.
        std1: the same of x1.
        cov0: full covariance of x0 ``[dim, dim]``, which replaces ``std0``; ``"random"`` draws a correlation structure,
            G Gᵀ / 2 dim with G standard normal ``[dim, 2 dim]``, and scales it by ``std0``.
        cov1: the same of x1.
        covariance_seed: seed of random covariances, apart from ``seed`` so that runs of several seeds share a problem.
        num_samples: samples of each end and split.
        **kwargs: see `UnpairedData`.

    Raises:
        ValueError: a mean or deviation is not of length ``dim``, or a covariance is not ``[dim, dim]``, symmetric and
            positive definite.
    """

    def __init__(
        self,
        *,
        dim: int = 5,
        mean0: float | Sequence[float] = -0.1,
        mean1: float | Sequence[float] = 0.1,
        std0: float | Sequence[float] = 1.0,
        std1: float | Sequence[float] = 1.0,
        cov0: Sequence[Sequence[float]] | Tensor | str | None = None,
        cov1: Sequence[Sequence[float]] | Tensor | str | None = None,
        covariance_seed: int = 0,
        num_samples: int = 50_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value, least in (("dim", dim, 1), ("num_samples", num_samples, 2)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.mean0, self.mean1 = _vector("mean0", mean0, dim), _vector("mean1", mean1, dim)
        scale0, scale1 = _vector("std0", std0, dim), _vector("std1", std1, dim)
        self.cov0 = _covariance("cov0", cov0, scale0, (covariance_seed, 0))
        self.cov1 = _covariance("cov1", cov1, scale1, (covariance_seed, 1))
        self.num_samples = num_samples

    def bridge(self, epsilon: float) -> GaussianBridge:
        """The Schrödinger bridge between the two ends."""
        return GaussianBridge(self.mean0, self.mean1, self.cov0, self.cov1, epsilon)

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Draw a split; the test split is independent of the training one."""
        generator = seeded_generator(self.seed, split == "test")

        def draw(mean: Tensor, covariance: Tensor) -> Tensor:
            noise = torch.randn(self.num_samples, len(mean), generator=generator)
            return mean + noise @ torch.linalg.cholesky(covariance).T

        return Split(draw(self.mean0, self.cov0), draw(self.mean1, self.cov1))


def _vector(name: str, value: float | Sequence[float], dim: int) -> Float[Tensor, " dim"]:
    vector = torch.as_tensor(value, dtype=torch.get_default_dtype())
    if vector.shape not in ((), (dim,)) or not vector.isfinite().all():
        raise ValueError(f"{name} must be one finite number or {dim} of them (dim), got {value}")
    if name.startswith("std") and vector.min() <= 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return vector.expand(dim).clone()


def _covariance(
    name: str, covariance: Sequence[Sequence[float]] | Tensor | str | None, std: Tensor, seed: tuple[int, int]
) -> Float[Tensor, "dim dim"]:
    dim = len(std)
    if covariance is None:
        return std.square().diag()
    if isinstance(covariance, str):
        if covariance != "random":
            raise ValueError(f'{name} must be a [{dim}, {dim}] matrix, "random" or null, got {covariance!r}')
        root = torch.randn(dim, 2 * dim, generator=seeded_generator(*seed)) * std[:, None]
        return root @ root.T / (2 * dim)
    matrix = torch.as_tensor(covariance, dtype=torch.get_default_dtype())
    if matrix.shape != (dim, dim) or not torch.allclose(matrix, matrix.T) or torch.linalg.cholesky_ex(matrix)[1] != 0:
        raise ValueError(f"{name} must be a positive definite [{dim}, {dim}] matrix, got shape {list(matrix.shape)}")
    return matrix
