"""A mixture with heavy tails: products of Student's t laws, π(x) = Σ_k w_k Π_i t_ν(x_i − m_ki), normalised."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target

__all__ = ["StudentTMixture"]


class StudentTMixture(Target):
    """Equally weighted components of independent Student's t coordinates, their means uniform in a cube.

    Args:
        dim: dimension d.
        num_components: number of components.
        freedom: degrees of freedom ν; at 2 and below the variance is infinite.
        half_width: the means lie in [−half_width, half_width]^d.
        scale: scale of every coordinate of every component.
        seed: seed of the means.

    Raises:
        ValueError: ``dim`` or ``num_components`` is below 1, or another number is not positive and finite.

    References:
        Blessing et al., Beyond ELBOs: A Large-Scale Evaluation of Variational Methods for Sampling, ICML 2024.
    """

    log_normalizer = 0.0
    means: Tensor

    def __init__(
        self,
        dim: int = 2,
        num_components: int = 10,
        freedom: float = 2.0,
        half_width: float = 10.0,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, count in (("dim", dim), ("num_components", num_components)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        for name, value in (("freedom", freedom), ("half_width", half_width), ("scale", scale)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        self.dim = dim
        self.freedom, self.scale = freedom, scale
        uniform = torch.rand(num_components, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        means = half_width * (2 * uniform - 1)
        self.register_buffer("means", means.to(torch.get_default_dtype()), persistent=False)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log π(x) in nats."""
        return self._components(self._residuals(x)).logsumexp(1)

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log π(x) and ∇ log π(x), the average of the component scores under the posterior of the component."""
        residuals = self._residuals(x)
        log_joint = self._components(residuals)
        scores = -(self.freedom + 1) * residuals / (self.freedom + residuals.square()) / self.scale
        return log_joint.logsumexp(1), torch.einsum("nk,nki->ni", log_joint.softmax(1), scores)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Exact samples."""
        device = self.means.device if generator is None else generator.device
        component = torch.randint(len(self.means), (n,), generator=generator, device=device).to(self.means.device)
        uniform = torch.rand(2, n, self.dim, generator=generator, device=device, dtype=self.means.dtype)
        radius, angle = uniform.to(self.means.device)
        # polar method for Student's t; 1 − u keeps the radius finite
        squares = self.freedom * torch.expm1(-2 / self.freedom * torch.log1p(-radius))
        return self.means[component] + self.scale * squares.sqrt() * torch.cos(2 * math.pi * angle)

    def _residuals(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k d"]:
        """Distances from the component means, in units of the scale."""
        return (x[:, None] - self.means.to(x.dtype)) / self.scale

    def _components(self, residuals: Float[Tensor, "n k d"]) -> Float[Tensor, "n k"]:
        """Log joint density of x and each component."""
        v = self.freedom
        log_peak = math.lgamma((v + 1) / 2) - math.lgamma(v / 2) - 0.5 * math.log(v * math.pi) - math.log(self.scale)
        log_kernels = -0.5 * (v + 1) * torch.log1p(residuals.square() / v).sum(2)
        return log_kernels + self.dim * log_peak - math.log(len(self.means))
