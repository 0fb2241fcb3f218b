"""The learned potential."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.potential.base import Potential
from sbflow.potential.naive import NaivePotential

__all__ = ["Guide", "NeuralPotential"]


class Guide(nn.Module):
    """The trained part of the potential: a field N(z, λ) and a gate r(λ) with r(0) = 0.

    Both depend on the noise level λ and not on the time, so that a trained guide serves any grid of times.

    Args:
        network: field with the network contract, output zero at initialisation.
        num_features: size of the embedding of λ in the gate.
        hidden: width of the gate.
    """

    frequencies: Tensor

    def __init__(self, network: nn.Module, *, num_features: int = 64, hidden: int = 64) -> None:
        super().__init__()
        self.network = network
        # frequencies up to 100 with a learned phase, as Phillips et al. 2024
        self.register_buffer("frequencies", torch.linspace(0.1, 100, num_features))
        self.phase = nn.Parameter(torch.zeros(num_features))
        last = nn.Linear(hidden, 1, bias=False)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.scale = nn.Sequential(nn.Linear(2 * num_features, hidden), nn.GELU(), last)

    def gate(self, level: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        """r(λ) = s(λ) − s(0), exactly 0 at λ = 0."""
        return (self._scale(level) - self._scale(torch.zeros_like(level))).squeeze(-1)

    def forward(self, z: Float[Tensor, "n d"], level: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        """⟨N(z, λ), z⟩, with one λ per particle ``[n]`` or one for all ``[1]``."""
        return (self.network(z, level) * z).sum(-1)

    def _scale(self, level: Float[Tensor, " m"]) -> Float[Tensor, "m 1"]:
        angles = level[:, None] * self.frequencies + self.phase
        return self.scale(torch.cat([angles.sin(), angles.cos()], dim=-1))


class NeuralPotential(Potential):
    """log ĝ(t, z) = r(λ_t) ⟨N(z, λ_t), z⟩ + (1 − r(λ_t)) log g_naive(t, z) (Phillips et al. 2024).

    The gate closes at t = 0, where the potential is therefore exact whatever was learned, and training starts at the
    naive potential. The scalar is parametrised and then differentiated: weights need its value, proposals its gradient.

    The factor 1 − r is kept from being negative (our change): far out in steep targets log g_naive is −10⁴, and a gate
    learned a little above 1 would make it a reward that draws all particles there.

    Args:
        naive: potential to start from, exact at t = 0.
        guide: the trained part.
    """

    def __init__(self, naive: NaivePotential, guide: Guide) -> None:
        super().__init__()
        self.naive = naive
        self.guide = guide

    def log_g(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, " n"]:
        """See the class."""
        return self.log_g_and_grad(z, t)[0]

    def log_g_and_grad(self, z: Float[Tensor, "n d"], t: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """See the class; the naive part brings its own gradient, the network's is taken by `torch.func`."""
        # one level for all particles is embedded once
        level = self.naive.process.noise_level(t).to(z.dtype).reshape(-1)

        def total(z: Tensor) -> tuple[Tensor, Tensor]:
            inner = self.guide(z, level)
            return inner.sum(), inner

        inner_grad, inner = torch.func.grad(total, has_aux=True)(z)
        log_g, grad = self.naive.log_g_and_grad(z, t)
        gate = self.guide.gate(level)
        rest = (1 - gate).clamp(min=0)
        # outside the support a factor of 0 may not make a number of −inf
        value = torch.where(log_g == -torch.inf, log_g, gate * inner + rest * log_g)
        return value, gate[:, None] * inner_grad + rest[:, None] * grad
