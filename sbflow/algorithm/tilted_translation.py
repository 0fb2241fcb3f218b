"""Translations that are sampled in proportion to exp(reward), in place of being searched for the best."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.algorithm.translation import BridgeTranslation, Direction
from sbflow.integrator import Spacing, euler_maruyama, time_grid
from sbflow.smc import SmoothedReward, TwistedKernel, effective_sample_size, sample
from sbflow.smc.particles import relative_variance
from sbflow.tensor import seeded_generator

__all__ = ["TiltedTranslation", "tilted_translation"]

PairReward = Callable[[Tensor, Tensor], Tensor]
"""r(x_in, x_out) of inputs and translations ``[n, *event]``, differentiable by torch, ``[n]``."""


class TiltedTranslation(NamedTuple):
    """Weighted translations of each input.

    Attributes:
        samples: ``[r, n, *event]``.
        log_weights: normalised for each input ``[r, n]``, float64.
        log_z: estimate of log E[e^r] over the translations of each input ``[r]``.
        log_z_stderr: its standard error, from the genealogy of the particles, NaN for a single one ``[r]``.
        ess: effective sample size of the weights ``[r]``.
    """

    samples: Float[Tensor, "r n *event"]
    log_weights: Float[Tensor, "r n"]
    log_z: Float[Tensor, " r"]
    log_z_stderr: Float[Tensor, " r"]
    ess: Float[Tensor, " r"]


@torch.no_grad()
def tilted_translation(
    flow: BridgeTranslation,
    x: Float[Tensor, "r *event"],
    reward: PairReward,
    direction: Direction = "forward",
    *,
    num_particles: int = 64,
    num_steps: int = 30,
    times: Spacing | Tensor = "uniform",
    num_draws: int = 8,
    variance: float | None = None,
    ess_threshold: float = 0.5,
    seed: int = 0,
) -> TiltedTranslation:
    """Sample each input's translations from P(x_out | x_in) e^r / E[e^r].

    The particles are guided by the reward that the drift leads to expect, and weighted so that E[e^r] is estimated
    without bias for the translation by Euler–Maruyama with these steps; noise is drawn in the last step, too. Where
    diversity does not matter, a search is cheaper.

    Args:
        flow: trained bridge.
        x: inputs.
        reward: r, in nats.
        direction: of the translation.
        num_particles: translations of each input.
        num_steps: steps of a named grid.
        times: spacing of the steps, or the grid itself.
        num_draws: guessed ends of each particle at each step, even.
        variance: of the guesses, per unit of time that is left; by default that of a Gaussian bridge to one point of
            data as spread as the target, ε v / (ε + v).
        ess_threshold: resample below this share of the particles; 0 never, 1 always.
        seed: of all noise.

    Raises:
        ValueError: an option out of range, or wrong event shape.
        SamplingError: the reward raised, or is not finite for any particle.
    """
    flag = flow._checked(x, direction)
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    x = x.to(flow.drift.mean.dtype)
    epsilon, spread = flow.process.epsilon, float(flow.drift.variance[1 - flag].mean())
    drift = flow.ema.module.eval()

    def flat_drift(points: Float[Tensor, "m d"], u: Tensor) -> Float[Tensor, "m d"]:
        rows = torch.full((len(points),), flag, device=points.device)
        return drift(points.unflatten(1, flow.event_shape), u.reshape(1).to(points.dtype), rows).flatten(1)

    inputs = x.repeat_interleave(num_particles, 0)

    def flat_reward(ends: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
        repeated = inputs.repeat(num_draws, *(1,) * (inputs.ndim - 1))
        return reward(repeated, ends.unflatten(1, flow.event_shape))

    flat = x.flatten(1)
    guess = epsilon * spread / (epsilon + spread) if variance is None else variance
    twist = SmoothedReward(flat_reward, flat_drift, guess, dim=flat.shape[1], num_draws=num_draws, seed=seed).to(flat)
    kernel = TwistedKernel(euler_maruyama(flat_drift, flow.process.diffusion), twist, flat)
    particles, _ = sample(
        kernel,
        flat.new_empty(len(x), num_particles, flat.shape[1]),
        1 - time_grid(times, num_steps, device=x.device),
        ess_threshold=ess_threshold,
        generator=seeded_generator(seed, device=x.device),
    )
    errors = relative_variance(particles.family_changes).sqrt()
    return TiltedTranslation(
        particles.x.unflatten(2, flow.event_shape),
        particles.log_weights,
        particles.log_z,
        errors if num_particles > 1 else torch.full_like(errors, torch.nan),
        effective_sample_size(particles.log_weights),
    )
