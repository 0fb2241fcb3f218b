"""The potential at t = 0 and its naive extension to t > 0."""

import math

from jaxtyping import Float
from torch import Tensor

from sbflow.potential.base import Potential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import Target
from sbflow.tensor import expand_to

__all__ = ["NaivePotential"]


class NaivePotential(Potential):
    """log g_t(z) ≈ log g_0(√(1 − λ_t) z): exact at t = 0, needs no training (Phillips et al. 2024).

    Args:
        target: density in whitened coordinates.
        process: noising process.
    """

    def __init__(self, target: Target, process: OrnsteinUhlenbeck) -> None:
        super().__init__()
        self.target = target
        self.process = process

    def log_g(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, " n"]:
        """See the class."""
        shrunk = expand_to(self._shrink(t, z), z) * z
        return self.target.log_prob(shrunk) + _minus_log_reference(shrunk)

    def log_g_and_grad(self, z: Float[Tensor, "n d"], t: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """See the class; the gradient by the chain rule from the target's own score."""
        shrink = expand_to(self._shrink(t, z), z)
        shrunk = shrink * z
        log_prob, score = self.target.log_prob_and_score(shrunk)
        return log_prob + _minus_log_reference(shrunk), shrink * (score + shrunk)

    def _shrink(self, t: Tensor, z: Tensor) -> Tensor:
        # ᾱ in the precision of the times, then in that of the particles
        return self.process.schedule.alpha_bar(t).sqrt().to(z.dtype)


def _minus_log_reference(z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """−log N(z; 0, I)."""
    return 0.5 * (z**2).sum(-1) + 0.5 * z.shape[-1] * math.log(2 * math.pi)
