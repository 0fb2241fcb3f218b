"""A Gaussian bent along a parabola, normalised: curved ridges as in Rosenbrock's function."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target
from sbflow.tensor import randn_like

__all__ = ["Banana"]


class Banana(Target):
    """x₁ ~ N(0, std²), x₂ | x₁ ~ N(curvature (x₁² − std²), 1), the other coordinates N(0, 1).

    Args:
        dim: dimension d, at least 2.
        curvature: strength of the bend, per unit of x₁.
        std: standard deviation of x₁.

    Raises:
        ValueError: ``dim`` is below 2, ``std`` is not positive, or a number is not finite.

    References:
        Haario, Saksman and Tamminen, Adaptive proposal distribution for random walk Metropolis algorithm,
        Computational Statistics 1999.
    """

    log_normalizer = 0.0
    anchor: Tensor

    def __init__(self, dim: int = 2, curvature: float = 0.1, std: float = 10.0) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"dim must be at least 2, got {dim}")
        if not (std > 0 and math.isfinite(std)):
            raise ValueError(f"std must be positive and finite, got {std}")
        if not math.isfinite(curvature):
            raise ValueError(f"curvature must be finite, got {curvature}")
        self.dim = dim
        self.curvature, self.std = curvature, std
        # carries the device and dtype of samples
        self.register_buffer("anchor", torch.zeros((), dtype=torch.get_default_dtype()), persistent=False)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log π(x) in nats."""
        return self._log_prob(self._straightened(x))

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log π(x) and ∇ log π(x)."""
        z = self._straightened(x)
        first = -z[:, :1] / self.std + 2 * self.curvature * x[:, :1] * z[:, 1:2]
        return self._log_prob(z), torch.cat([first, -z[:, 1:]], dim=1)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Exact samples."""
        z = randn_like(self.anchor.new_empty(n, self.dim), generator)
        return torch.cat([self.std * z[:, :1], z[:, 1:2] + self._bend(self.std * z[:, :1]), z[:, 2:]], dim=1)

    def _straightened(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The standard normal coordinates."""
        return torch.cat([x[:, :1] / self.std, x[:, 1:2] - self._bend(x[:, :1]), x[:, 2:]], dim=1)

    def _bend(self, x: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        return self.curvature * (x.square() - self.std**2)

    def _log_prob(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return -0.5 * z.square().sum(1) - math.log(self.std) - 0.5 * self.dim * math.log(2 * math.pi)
