"""Resampling schemes: from log-weights to the indices of the ancestors."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Resampling", "systematic"]

Resampling = Callable[[Tensor, torch.Generator | None], Tensor]
"""(log-weights ``[r, n]``, generator) -> ancestors ``[r, n]``, each row unbiased: E[count of i] = n W_i."""


def systematic(log_weights: Float[Tensor, "r n"], generator: torch.Generator | None = None) -> Int[Tensor, "r n"]:
    """Systematic resampling: one uniform per row, n equidistant points on the cumulative weights.

    Each particle is chosen ⌊n W⌋ or ⌈n W⌉ times, never when its weight is zero.

    Args:
        log_weights: need not be normalised; each row must have a finite maximum.
        generator: source of the uniforms.

    References:
        Chopin & Papaspiliopoulos, An Introduction to Sequential Monte Carlo, 2020, chapter 9.
    """
    rows, n = log_weights.shape
    device = log_weights.device if generator is None else generator.device
    u = torch.rand(rows, 1, dtype=torch.float64, device=device, generator=generator).to(log_weights.device)
    return _invert(log_weights, (torch.arange(n, device=log_weights.device) + u) / n)


def _invert(log_weights: Float[Tensor, "r n"], points: Float[Tensor, "r n"]) -> Int[Tensor, "r n"]:
    """Index of the weight under each point of [0, 1).

    Sums are float64: in float32 the cumulative sum of 2·10⁶ weights is off by 10⁻⁴, and can end below the last point.
    """
    log_weights = log_weights.double()
    cumulative = torch.exp(log_weights - log_weights.amax(-1, keepdim=True)).cumsum(-1)
    cumulative = cumulative / cumulative[:, -1:]
    # a point that rounds to 1 would select the last particle even if its weight is zero
    points = points.clamp(max=1 - 2**-53)
    return torch.searchsorted(cumulative, points.contiguous(), right=True)
