"""Particles that sample a process tilted by a reward of where it ends, with any guess of the reward to come."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.gaussian import Gaussian
from sbflow.integrator import Kernel, VectorField
from sbflow.potential import Potential
from sbflow.smc.guided import guided_log_ratio
from sbflow.smc.particles import Field
from sbflow.tensor import expand_to, randn_like, seeded_generator

__all__ = ["Reward", "SmoothedReward", "TwistedKernel"]

MARGIN = 1e-3
# last key of the twist's random stream: Ẑ is unbiased for a twist that knows nothing of the run's noise
TWIST_STREAM = 12

Reward = Callable[[Tensor], Tensor]
"""r(x), log of the factor by which an end x ``[n, d]`` is to be more frequent, ``[n]``."""


class TwistedKernel:
    """A move of a process that starts at given points, tilted by exp(r) of its end.

    With twists ψ_u > 0 that end at ψ_1 = e^r, proposes the step of the process with its mean shifted by b² ∇ log ψ_u(x)
    and weighs by ψ_s(x_s) M₀(x_s | x) / (ψ_u(x) M(x_s | x)). Ẑ is unbiased for E[e^r] of the process as it is
    discretised, whatever the twists on the way: neither a score nor a second derivative is needed. This form is our own
    derivation, of the twisted particle filter for a translation of a given input; compare Skreta et al. 2025.

    The particle sampler counts time down to 0; process and twist are called at u = 1 − t, in the process's own clock.

    Args:
        kernel: steps of the process.
        twist: log ψ_u(x) at u, equal to the reward at u = 1.
        x0: where it starts, the input of each of the r sets of particles ``[r, d]``.
    """

    tempers = False

    def __init__(self, kernel: Kernel, twist: Potential, x0: Float[Tensor, "r d"]) -> None:
        self.kernel = kernel
        self.twist = twist
        self.x0 = x0

    def start(self, like: Float[Tensor, "r n d"], generator: torch.Generator | None = None) -> Float[Tensor, "r n d"]:
        """All particles of a set at its input.

        Raises:
            ValueError: not as many sets as inputs.
        """
        if len(like) != len(self.x0):
            raise ValueError(f"like must have one set of particles for each of {len(self.x0)} inputs, got {len(like)}")
        return self.x0.to(like)[:, None].expand_as(like).contiguous()

    def start_weight(self, field: Field) -> Float[Tensor, "*batch n"]:
        """The twist."""
        return field.log_g

    def field(self, x: Float[Tensor, "n d"], t: Tensor) -> Field:
        """Twist and gradient."""
        return Field.of(*self.twist.log_g_and_grad(x, 1 - t))

    def propose(self, x: Float[Tensor, "n d"], field: Field, t: Tensor, s: Tensor) -> Gaussian:
        """The step of the process, shifted towards the reward."""
        law = self.kernel(x, 1 - t, 1 - s)
        return law._replace(mean=law.mean + expand_to(law.std**2, x) * field.grad_log_g)

    def log_weight(
        self, x: Tensor, field: Field, law: Gaussian, x_s: Tensor, field_s: Field, t: Tensor, s: Tensor
    ) -> Float[Tensor, " n"]:
        """See the class."""
        unguided = law.mean - expand_to(law.std**2, x) * field.grad_log_g
        return field_s.log_g.double() - field.log_g.double() + guided_log_ratio(law, unguided, x_s)


class SmoothedReward(Potential):
    """Twist of a translation: log E[e^r(X̂₁)] with X̂₁ ~ N(x + (1 − u) f(x, u), variance (1 − u) I).

    The mean is taken over a few draws, the same for all points and in opposite pairs, so that ψ is a function; at u = 1
    it is e^r itself. A reward that is not smoothed misleads the particles on the way, and guides worse than none.

    Args:
        reward: r, of the ends.
        drift: f at (x, u).
        variance: what the drift leaves open of the end per unit of time, at most ε; 0 does not smooth.
        num_draws: draws of the mean, an even number.
        dim: of the points.
        seed: of the draws, which are apart from those of a run with the same seed.

    Raises:
        ValueError: a negative variance, or an odd number of draws.
    """

    noise: Tensor

    def __init__(
        self, reward: Reward, drift: VectorField, variance: float, *, dim: int, num_draws: int = 8, seed: int = 0
    ) -> None:
        super().__init__()
        if not 0 <= variance < math.inf:
            raise ValueError(f"variance must be finite and at least 0, got {variance}")
        if num_draws < 2 or num_draws % 2:
            raise ValueError(f"num_draws must be even and at least 2, got {num_draws}")
        self.reward = reward
        self.drift = drift
        self.variance = variance
        half = randn_like(torch.empty(num_draws // 2, dim), seeded_generator(seed, TWIST_STREAM))
        self.register_buffer("noise", torch.cat([half, -half]))

    def log_g(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, " n"]:
        """See the class."""
        left = expand_to(1 - t, z).to(z.dtype)
        # at the end the drift may be singular, and nothing is left of it
        inside = t.clamp(max=1 - MARGIN)
        ends = z + left * self.drift(z, inside)
        spread = (self.variance * left).sqrt() * self.noise.to(z.dtype)[:, None]
        values = self.reward((ends + spread).flatten(0, 1)).reshape(len(self.noise), len(z))
        return torch.logsumexp(values, 0) - math.log(len(values))
