"""What a particle sampler needs of its moves, and the guided denoising of PDDS as the first such move."""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.gaussian import Gaussian
from sbflow.integrator import Coefficient, guided_denoising
from sbflow.integrator.kernel import guidance_coefficient
from sbflow.potential import Potential
from sbflow.process import OrnsteinUhlenbeck, Schedule
from sbflow.smc.particles import Field
from sbflow.tensor import flat_sum, randn_like

__all__ = ["GuidedDenoising", "WeightedKernel", "guided_log_ratio"]


@runtime_checkable
class WeightedKernel(Protocol):
    """A move that proposes from a Gaussian and weighs the result. The costly field is apart from the affine step.

    Attributes:
        tempers: whether the field holds the potential of each level against N(0, I), so that Markov moves and powers of
            the first weight make sense.
    """

    tempers: bool

    def start(self, like: Float[Tensor, "r n d"], generator: torch.Generator | None = None) -> Float[Tensor, "r n d"]:
        """Draw particles where the moves begin."""

    def start_weight(self, field: Field) -> Float[Tensor, "*batch n"]:
        """Log-weight of particles that were drawn there."""

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

    With ``speed`` η the particles mix η times as fast as the noise levels fall, at the same cost: a and b are those of
    η times the operational time, the proposal takes ½ (1 + 1/η) c ∇ log ĝ_t, and the noising that it is weighed
    against, N(x; a x_s + ½ (1 − 1/η) c ∇ log ĝ_s(x_s), b² I), the other half. This form is our own derivation; it pays
    where the path of laws is not that of a noised target, as for guidance.

    Args:
        process: noising process.
        potential: approximation ĝ of the potential, exact at t = 0.
        coefficient: the choice of c, see `sbflow.integrator.kernel.guidance_coefficient`; any leaves Ẑ unbiased.
        reach: how much longer than √d the followed noise may be. One draw in 10⁵ is longer by 5, so that a good
            potential loses nothing and its error still vanishes as steps are added.
        speed: η, at least 1, the plain sampler.
    """

    tempers = True

    def __init__(
        self,
        process: OrnsteinUhlenbeck,
        potential: Potential,
        coefficient: Coefficient = "exponential",
        *,
        reach: float = 5.0,
        speed: float = 1.0,
    ) -> None:
        if process.sigma != 1:
            raise ValueError(f"process.sigma must be 1, as whitening makes the reference N(0, I); got {process.sigma}")
        if not 1 <= speed < math.inf:
            raise ValueError(f"speed must be finite and at least 1, got {speed}")
        # refuses an unknown coefficient now and not at the first step
        guidance_coefficient(torch.ones(()), torch.zeros(()), coefficient)
        self.process = process
        self.potential = potential
        self.coefficient = coefficient
        self.reach = reach
        self.speed = speed
        self.mixing = process if speed == 1 else OrnsteinUhlenbeck(_Faster(process.schedule, speed))

    def start(self, like: Float[Tensor, "r n d"], generator: torch.Generator | None = None) -> Float[Tensor, "r n d"]:
        """Draw from N(0, I)."""
        return randn_like(like, generator)

    def start_weight(self, field: Field) -> Float[Tensor, "*batch n"]:
        """The potential."""
        return field.log_g

    def field(self, x: Float[Tensor, "n d"], t: Tensor) -> Field:
        """Potential and gradient."""
        return Field.of(*self.potential.log_g_and_grad(x, t))

    def propose(self, x: Float[Tensor, "n d"], field: Field, t: Tensor, s: Tensor) -> Gaussian:
        """Guided reversal from t to s, with the score shortened where no noised law could have one as long."""
        share = 0.5 * (1 + 1 / self.speed)
        guide = self._bounded(x, field.grad_log_g, t)
        return guided_denoising(self.mixing, lambda x, t: share * guide, self.coefficient)(x, t, s)

    def noising(self, x_s: Float[Tensor, "n d"], field_s: Field, s: Tensor, t: Tensor) -> Gaussian:
        """The way back, from s up to t, that a proposal is weighed against: for ``speed`` 1 the process itself."""
        law = self.mixing.kernel(x_s, s, t)
        return law if self.speed == 1 else law._replace(mean=law.mean + self._pull_back(x_s, field_s, s, t))

    def log_weight(
        self, x: Tensor, field: Field, law: Gaussian, x_s: Tensor, field_s: Field, t: Tensor, s: Tensor
    ) -> Float[Tensor, " n"]:
        """See the class."""
        # the Ornstein–Uhlenbeck step is the same read from either end, so it may stand at either
        log_ratio = guided_log_ratio(law, self.mixing.kernel(x, s, t).mean, x_s)
        if self.speed != 1:
            pull = self._pull_back(x_s, field_s, s, t).double()
            rest = x.double() - self.mixing.kernel(x_s, s, t).mean.double()
            log_ratio = log_ratio + flat_sum((rest - 0.5 * pull) * pull) / law.std.double() ** 2
        return field_s.log_g.double() - field.log_g.double() + log_ratio

    def _pull_back(self, x_s: Float[Tensor, "n d"], field_s: Field, s: Tensor, t: Tensor) -> Float[Tensor, "n d"]:
        """½ (1 − 1/η) c ∇ log ĝ_s(x_s)."""
        c = guidance_coefficient(*self.mixing.transition(s, t), self.coefficient)
        return (0.5 * (1 - 1 / self.speed) * c).to(x_s.dtype) * self._bounded(x_s, field_s.grad_log_g, s)

    def _bounded(self, x: Float[Tensor, "n d"], grad: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, "n d"]:
        """∇ log ĝ whose score, ∇ log ĝ − x, is at most (√d + reach) / √λ long."""
        score = grad - x
        longest = (x.shape[-1] ** 0.5 + self.reach) / self.process.noise_level(t).sqrt()
        # in float32 the square of a steep gradient overflows
        excess = (score.double().norm(dim=-1, keepdim=True) / longest).to(x.dtype)
        return torch.where(excess > 1, x + score / excess, grad)


def guided_log_ratio(law: Gaussian, unguided: Float[Tensor, "n d"], x_s: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Log N(x_s; unguided, std² I) − log N(x_s; mean, std² I), in float64."""
    # the difference of two squared distances to x_s, without the digits that they have in common
    pull = law.mean.double() - unguided.double()
    noise = x_s.double() - law.mean.double()
    return -flat_sum((noise + 0.5 * pull) * pull) / law.std.double() ** 2


class _Faster(Schedule):
    """Another schedule, ``speed`` times as fast in operational time."""

    def __init__(self, schedule: Schedule, speed: float) -> None:
        self.schedule = schedule
        self.speed = speed

    def alpha_bar(self, t: Tensor) -> Tensor:
        return self.schedule.alpha_bar(t) ** self.speed

    def beta(self, t: Tensor) -> Tensor:
        return self.speed * self.schedule.beta(t)
