"""Neal's funnel: the scale of all coordinates but the first depends on the first."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target
from sbflow.tensor import randn_like

__all__ = ["Funnel"]


class Funnel(Target):
    """Normalised law x₁ ~ N(0, std²), x₂, …, x_d | x₁ ~ N(0, exp(x₁)) independently.

    Args:
        dim: dimension d, at least 2.
        std: standard deviation of x₁, the logarithm of the others' variance.

    Raises:
        ValueError: ``dim`` is below 2 or ``std`` is not positive.

    References:
        Neal, Slice sampling, Annals of Statistics 2003.
    """

    log_normalizer = 0.0
    std: Tensor

    def __init__(self, dim: int = 10, std: float = 3.0) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"dim must be at least 2, got {dim}")
        if not (std > 0 and math.isfinite(std)):
            raise ValueError(f"std must be positive and finite, got {std}")
        self.dim = dim
        self.register_buffer("std", torch.tensor(std, dtype=torch.get_default_dtype()), persistent=False)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log π(x) in nats."""
        return self._log_prob(x, self._sum_of_squares(x))

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log π(x) and ∇ log π(x)."""
        neck, rest = x[:, :1], x[:, 1:]
        squares = self._sum_of_squares(x)
        neck_score = -neck / self.std.to(x.dtype) ** 2 + 0.5 * (squares[:, None] - (self.dim - 1))
        return self._log_prob(x, squares), torch.cat([neck_score, -rest * (-neck).exp()], dim=1)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Exact samples."""
        noise = randn_like(self.std.new_empty(n, self.dim), generator)
        neck = self.std * noise[:, :1]
        return torch.cat([neck, (0.5 * neck).exp() * noise[:, 1:]], dim=1)

    def _sum_of_squares(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Squared norm of x₂, …, x_d in units of their variance."""
        return x[:, 1:].square().sum(1) * (-x[:, 0]).exp()

    def _log_prob(self, x: Float[Tensor, "n d"], squares: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        std = self.std.to(x.dtype)
        neck = -0.5 * (x[:, 0] / std).square() - std.log()
        return neck - 0.5 * (squares + (self.dim - 1) * x[:, 0] + self.dim * math.log(2 * math.pi))
