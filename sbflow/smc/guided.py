"""What a particle sampler needs of its moves, and the guided denoising of PDDS as the first such move."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.gaussian import Gaussian
from sbflow.integrator import Coefficient, guided_denoising
from sbflow.integrator.kernel import guidance_coefficient
from sbflow.potential import Potential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc.particles import Field
from sbflow.tensor import flat_sum

__all__ = ["GuidedDenoising", "WeightedKernel"]


@runtime_checkable
class WeightedKernel(Protocol):
    """A move that proposes from a Gaussian and weighs the result. The costly field is apart from the affine step."""

    def field(self, x: Float[Tensor, "n d"], t: Tensor) -> Field:
        """Evaluate what the moves from (x, t) need; the one costly call of a step."""

    def propose(self, x: Float[Tensor, "n d"], field: Field, t: Tensor, s: Tensor) -> Gaussian:
        """Law of the particles at time s."""

    def log_weight(
        self, x: Tensor, field: Field, law: Gaussian, x_s: Tensor, field_s: Field, t: Tensor, s: Tensor
    ) -> Float[Tensor, " n"]:
        """Incremental log-weight of the move from (x, t) to (x_s, s), drawn from ``law``."""


class GuidedDenoising:
    """The weighted move of the Particle Denoising Diffusion Sampler (Phillips et al. 2024).

    Proposes M(x_s | x) = N(a x + c ∇ log ĝ_t(x), b² I) and weighs by
    ĝ_s(x_s) N(x_s; a x, b² I) / (ĝ_t(x) M(x_s | x)).

    The proposal follows the gradient only as far as a noised law can ask for: its score is −E[ε | X_t] / √λ with ε
    standard normal, and is followed up to the length (√d + reach) / √λ. The naive potential exceeds that by far where
    the target is narrow against the noise, and would throw the particles out of reach. As for any mean of the
    proposal, the weights make up for it.

    Args:
        process: noising process.
        potential: approximation ĝ of the potential, exact at t = 0.
        coefficient: the choice of c, see `sbflow.integrator.kernel.guidance_coefficient`; any leaves Ẑ unbiased.
        reach: how much longer than √d the followed noise may be. One draw in 10⁵ is longer by 5, so that a good
            potential loses nothing and its error still vanishes as steps are added.
    """

    def __init__(
        self,
        process: OrnsteinUhlenbeck,
        potential: Potential,
        coefficient: Coefficient = "exponential",
        *,
        reach: float = 5.0,
    ) -> None:
        if process.sigma != 1:
            raise ValueError(f"process.sigma must be 1, as whitening makes the reference N(0, I); got {process.sigma}")
        # refuses an unknown coefficient now and not at the first step
        guidance_coefficient(torch.ones(()), torch.zeros(()), coefficient)
        self.process = process
        self.potential = potential
        self.coefficient = coefficient
        self.reach = reach

    def field(self, x: Float[Tensor, "n d"], t: Tensor) -> Field:
        """Potential and gradient."""
        return Field.of(*self.potential.log_g_and_grad(x, t))

    def propose(self, x: Float[Tensor, "n d"], field: Field, t: Tensor, s: Tensor) -> Gaussian:
        """Guided reversal from t to s, with the score shortened where no noised law could have one as long."""
        return guided_denoising(self.process, lambda x, t: self._bounded(x, field.grad_log_g, t), self.coefficient)(
            x, t, s
        )

    def _bounded(self, x: Float[Tensor, "n d"], grad: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, "n d"]:
        """∇ log ĝ whose score, ∇ log ĝ − x, is at most (√d + reach) / √λ long."""
        score = grad - x
        longest = (x.shape[-1] ** 0.5 + self.reach) / self.process.noise_level(t).sqrt()
        # in float32 the square of a steep gradient overflows
        excess = (score.double().norm(dim=-1, keepdim=True) / longest).to(x.dtype)
        return torch.where(excess > 1, x + score / excess, grad)

    def log_weight(
        self, x: Tensor, field: Field, law: Gaussian, x_s: Tensor, field_s: Field, t: Tensor, s: Tensor
    ) -> Float[Tensor, " n"]:
        """See the class."""
        # the difference of two squared distances to x_s, without the digits that they have in common
        pull = law.mean.double() - self.process.kernel(x, s, t).mean.double()
        noise = x_s.double() - law.mean.double()
        log_ratio = -flat_sum((noise + 0.5 * pull) * pull) / law.std.double() ** 2
        return field_s.log_g.double() - field.log_g.double() + log_ratio
