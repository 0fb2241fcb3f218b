"""Scaled Brownian motion, the reference of the Schrödinger bridge."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.process.base import ReferenceProcess

__all__ = ["Brownian"]


class Brownian(ReferenceProcess):
    """dX = √ε dW. Its bridges are the same read from either end, which is what a bidirectional network relies on.

    Args:
        epsilon: variance per unit of time, positive; the entropic regularisation of the transport (other codes name
            its square root σ).
    """

    def __init__(self, epsilon: float = 1.0) -> None:
        if not 0 < epsilon < float("inf"):
            raise ValueError(f"epsilon must be positive and finite, got {epsilon}")
        self.epsilon = epsilon

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1, √(ε (t − s)))."""
        return torch.ones_like(t - s), (self.epsilon * (t - s)).sqrt()

    def drift(self, x: Float[Tensor, "n *event"], t: Tensor) -> Float[Tensor, "n *event"]:
        """Zero."""
        return torch.zeros_like(x)

    def diffusion(self, t: Tensor) -> Tensor:
        """√ε."""
        return torch.full_like(t, self.epsilon**0.5)
