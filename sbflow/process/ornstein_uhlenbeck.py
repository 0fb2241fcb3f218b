"""The Ornstein–Uhlenbeck (variance preserving) process, the noising of the particle sampler."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.process.base import ReferenceProcess
from sbflow.process.schedule import Cosine, Schedule
from sbflow.tensor import expand_to

__all__ = ["OrnsteinUhlenbeck"]


class OrnsteinUhlenbeck(ReferenceProcess):
    """dX = −β_t X dt + √(2 β_t) σ dW, stationary under N(0, σ² I).

    Args:
        schedule: noise schedule; cosine by default.
        sigma: stationary standard deviation, positive. Samplers work in whitened coordinates, where it is 1.
    """

    def __init__(self, schedule: Schedule | None = None, sigma: float = 1.0) -> None:
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma must be positive and finite, got {sigma}")
        self.schedule = Cosine() if schedule is None else schedule
        self.sigma = sigma

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(√(1 − λ), σ √λ) with 1 − λ = ᾱ(t) / ᾱ(s)."""
        keep = self.schedule.alpha_bar(t) / self.schedule.alpha_bar(s)
        return keep.sqrt(), self.sigma * (1 - keep).clamp_min(0).sqrt()

    def noise_level(self, t: Tensor) -> Tensor:
        """λ_t = 1 − ᾱ(t), the share of noise at time t: exactly 0 at t = 0."""
        return 1 - self.schedule.alpha_bar(t)

    def drift(self, x: Float[Tensor, "n *event"], t: Tensor) -> Float[Tensor, "n *event"]:
        """−β_t x."""
        return -expand_to(self.schedule.beta(t), x) * x

    def diffusion(self, t: Tensor) -> Tensor:
        """σ √(2 β_t)."""
        return self.sigma * torch.sqrt(2 * self.schedule.beta(t))
