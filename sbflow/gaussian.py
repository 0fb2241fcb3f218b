"""The isotropic Gaussian that every stochastic step and every bridge returns, and the coupling of two of them."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sbflow.tensor import Generators, expand_to, flat_sum, randn_like

__all__ = ["Gaussian", "reflection_maximal"]


class Gaussian(NamedTuple):
    """Law N(mean, std² I) of each sample in a batch.

    A step returns this law and not a draw from it, so that sampling, path densities, importance weights and tests all
    use one object.

    Attributes:
        mean: one mean per sample, shape ``[n, *event]``.
        std: standard deviation, a scalar or one per sample ``[n]``; zero makes the law a point mass that can be
            sampled but has no density.
    """

    mean: Float[Tensor, "n *event"]
    std: Tensor

    def sample(self, generator: Generators = None) -> Float[Tensor, "n *event"]:
        """Draw one sample per row."""
        return self.mean + expand_to(self.std, self.mean) * randn_like(self.mean, generator)

    def log_prob(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, " n"]:
        """Log density at ``x``, in nats, summed over the event."""
        dim = self.mean[0].numel()
        z = (x - self.mean) / expand_to(self.std, self.mean)
        return -0.5 * flat_sum(z**2) - dim * (self.std.log() + 0.5 * math.log(2 * math.pi))


def reflection_maximal(
    draft: Gaussian, target: Gaussian, y: Float[Tensor, "n *event"], *, generator: Generators = None
) -> tuple[Float[Tensor, "n *event"], Bool[Tensor, " n"]]:
    r"""Turn a draw of one Gaussian into a draw of another with the same spread, keeping it as often as any method can.

    With :math:`z = (y - m̃) / s` and :math:`Δ = (m̃ - m) / s` the draw y of the draft N(m̃, s² I) is kept if
    log U <= −⟨z, Δ⟩ − ‖Δ‖² / 2, which is the log ratio of the densities at y. Otherwise it is reflected,

    .. math:: x = m + s (z - 2 ⟨z, Δ⟩ Δ / ‖Δ‖^2).

    Then x ~ N(m, s² I) exactly, and P(x = y) = 2 Φ(−‖Δ‖ / 2), one minus the total variation of the two laws. Point
    masses (s = 0) are equal or not: x = m, kept if m̃ = m.

    Args:
        draft: law that ``y`` was drawn from.
        target: law that is wanted, of the same ``std``.
        y: one draw per row.
        generator: source of U.

    Returns:
        The draws of the target, and which of them are the drafts.

    References:
        De Bortoli, Galashov, Gretton, Doucet, Accelerated Diffusion Models via Speculative Sampling, 2025; the coupling
        is that of Bou-Rabee, Eberle, Zimmer, Coupling and Convergence for Hamiltonian Monte Carlo, 2020.
    """
    # inner products over a whole image want more digits than half precision has
    wide = torch.promote_types(y.dtype, torch.float32)
    spread = target.std.to(wide).expand(len(y))
    scale = expand_to(torch.where(spread > 0, spread, 1), y)
    z, shift = (y - draft.mean).to(wide) / scale, (draft.mean - target.mean).to(wide) / scale
    inner, square = flat_sum(z * shift), flat_sum(shift**2)
    # Φ of a normal draw is uniform, and its logarithm is finite
    log_u = torch.special.log_ndtr(randn_like(inner, generator))
    accepted = torch.where(spread > 0, log_u <= -inner - 0.5 * square, square == 0)
    fold = 2 * inner / square.clamp_min(torch.finfo(wide).tiny)
    reflected = target.mean + (expand_to(spread, y) * (z - expand_to(fold, y) * shift)).to(y.dtype)
    return torch.where(expand_to(accepted, y), y, reflected), accepted
