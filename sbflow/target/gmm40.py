"""Forty well separated Gaussians: whether a sampler finds every mode."""

import math

import torch

from sbflow.target.mixture import GaussianMixture

__all__ = ["GMM40"]


class GMM40(GaussianMixture):
    """Mixture of equal isotropic Gaussians whose means are uniform in a cube, from a fixed seed.

    Args:
        dim: dimension d.
        num_components: number of Gaussians, 40 in the literature.
        half_width: the means lie in [−half_width, half_width]^d.
        std: standard deviation of every component; by default log(1 + e), the softplus of 1.
        seed: seed of the means; 0 gives those of the literature in the plane.

    Raises:
        ValueError: ``dim`` or ``num_components`` is below 1, or ``half_width`` or ``std`` is not positive and finite.

    References:
        Midgley et al., Flow Annealed Importance Sampling Bootstrap, ICLR 2023.
    """

    def __init__(
        self,
        dim: int = 2,
        num_components: int = 40,
        half_width: float = 40.0,
        std: float = math.log1p(math.e),
        seed: int = 0,
    ) -> None:
        for name, count in (("dim", dim), ("num_components", num_components)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        for name, length in (("half_width", half_width), ("std", std)):
            if not (length > 0 and math.isfinite(length)):
                raise ValueError(f"{name} must be positive and finite, got {length}")
        # float32: the numbers that the literature draws
        uniform = torch.rand(
            num_components, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float32
        ).to(torch.get_default_dtype())
        super().__init__(
            half_width * (2 * uniform - 1),
            (std**2 * torch.eye(dim, dtype=torch.float64)).expand(num_components, dim, dim),
            torch.full((num_components,), 1 / num_components, dtype=torch.float64),
        )
