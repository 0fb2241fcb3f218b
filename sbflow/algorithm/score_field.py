"""A learned score, and the potential that stands for it where particles are weighed."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.potential import NaivePotential, Potential
from sbflow.process import OrnsteinUhlenbeck

__all__ = ["PathPotential", "ScoreField"]


class ScoreField(nn.Module):
    """∇ log g_t(z) = N(z, √λ_t), the score of the noised target plus z.

    A network without output stands for the reference law, whose score is −z. It is conditioned on √λ, the amplitude of
    the noise: that resolves small noise, and unlike a time serves any schedule.

    Args:
        network: backbone with the network contract, output zero at initialisation.
        process: noising process.
    """

    def __init__(self, network: nn.Module, process: OrnsteinUhlenbeck) -> None:
        super().__init__()
        self.network = network
        self.process = process

    def forward(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, "n d"]:
        """Gradient of log g_t at time t, a scalar or one per sample ``[n]``."""
        return self.network(z, self.process.noise_level(t).sqrt().to(z).reshape(-1))


class PathPotential(Potential):
    """Gradients of a learned score with the value 0 in place of log g_t; exact at t = 0.

    The weights of particles are then those of their whole paths, decided at t = 0, and Ẑ is unbiased.

    Args:
        naive: gives log g_0.
        field: gives the gradients.
    """

    def __init__(self, naive: NaivePotential, field: nn.Module) -> None:
        super().__init__()
        self.naive = naive
        self.field = field

    def log_g(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, " n"]:
        """See the class; the density is evaluated at t = 0 alone."""
        if not bool((t == 0).any()):
            return z.new_zeros(len(z))
        return torch.where(t.to(z.device) == 0, self.naive.log_g(z, torch.zeros_like(t)), 0.0)

    def log_g_and_grad(self, z: Float[Tensor, "n d"], t: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """See the class."""
        return self.log_g(z, t), self.field(z, t)
