"""Pilot runs that decide what a run then takes as given: step sizes and exponents; for times see `sbflow.smc.schedule`.

A sampler that adapted to its own particles would bias Ẑ; one that takes the decisions of another run does not.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.smc.engine import Engine, Level, Rejuvenated, resample, unmoved
from sbflow.smc.guided import WeightedKernel
from sbflow.smc.moves import Hmc
from sbflow.smc.particles import Particles, SamplingError
from sbflow.smc.resampling import Resampling, systematic
from sbflow.smc.sampler import Ladder

__all__ = ["Pilot", "pilot", "tune"]

# moves that adapt the step size: the first level forgets the start, the next ones go on from the level before
FIRST_ROUNDS, LATER_ROUNDS = 8, 4
SHORTEST_STEP = 1e-8
MOST_LEVELS = 1000


@torch.no_grad()
def tune(
    kernel: WeightedKernel,
    like: Float[Tensor, "r n d"],
    times: Float[Tensor, " k"],
    *,
    moves: Hmc,
    conditional_ess: float | None = None,
    scheme: Resampling = systematic,
    ess_threshold: float = 0.3,
    chunk_size: int | str | None = None,
    generator: torch.Generator | None = None,
) -> Ladder:
    """Find the step size of the Markov moves at every level, and the exponents of the first weight where wanted.

    Args:
        kernel: the moves between times.
        like: gives number, dimension, dtype and device of the pilot's particles; its values are not read.
        times: decreasing grid that ends at 0.
        moves: Markov moves; a pilot makes them with waste.
        conditional_ess: raise the exponent each time as far as the reweighted particles still count as this share of
            them, in (0, 1); None does not temper.
        scheme: resampling scheme.
        ess_threshold: see `sbflow.smc.sample`.
        chunk_size: see `sbflow.smc.sample`.
        generator: source of all randomness; the draws of the pilot may not be those of the run.

    Raises:
        ValueError: ``conditional_ess`` outside (0, 1).
        SamplingError: the density raised, or tempering takes more than a thousand levels.
    """
    engine = Engine(kernel, scheme, ess_threshold, moves, chunk_size, generator)
    found = pilot(engine, like, times, conditional_ess)
    return Ladder(times, found.exponents, found.step_sizes)


class Pilot(NamedTuple):
    """What a pilot run finds; for exponents and step sizes see `Ladder`.

    Attributes:
        exponents: ``[m]``.
        step_sizes: ``[m + k - 2]``.
        costs: variance of the incremental log-weights of each level ``[m + k - 1]``.
    """

    exponents: Float[Tensor, " m"]
    step_sizes: Float[Tensor, " l"]
    costs: Float[Tensor, " c"]


@torch.no_grad()
def pilot(
    engine: Engine, like: Float[Tensor, "r n d"], times: Float[Tensor, " k"], conditional_ess: float | None
) -> Pilot:
    """Climb while building the ladder; see `tune`."""
    if conditional_ess is not None and not 0 < conditional_ess < 1:
        raise ValueError(f"conditional_ess must lie in (0, 1), got {conditional_ess}")
    engine = replace(engine, moves=replace(_moves(engine), waste_free=False))
    level, coming = Level(times[0], 0.0), [Level(t) for t in times[1:]]
    fresh = unmoved(engine.init(like, level)[0])
    exponents, costs, step_sizes = [], [], [_moves(engine).longest_step]
    while True:
        before, level = level, _next_level(level, fresh.particles, coming, conditional_ess)
        if before.exponent < 1:
            exponents.append(level.exponent)
        particles, diagnosis = engine.advance(fresh, before, level)
        costs.append(diagnosis.increment_variance.mean())
        if level.exponent == 1 and not coming:
            break
        _check_progress(level, len(exponents))
        rounds = FIRST_ROUNDS if len(step_sizes) == 1 else LATER_ROUNDS
        fresh, step_size = _tuned(engine, particles, level, step_sizes[-1], rounds)
        step_sizes.append(step_size)
    return Pilot(times.new_tensor(exponents), times.new_tensor(step_sizes[1:]), torch.stack(costs))


def _next_level(level: Level, particles: Particles, coming: list[Level], conditional_ess: float | None) -> Level:
    if level.exponent == 1:
        return coming.pop(0)
    return Level(level.time, _next_exponent(particles, level.exponent, conditional_ess))


def _check_progress(level: Level, num_exponents: int) -> None:
    if num_exponents > MOST_LEVELS:
        raise SamplingError(
            f"tempering takes more than {MOST_LEVELS} levels, exponent {level.exponent:.3g} so far; "
            "choose a better whitening or a lower conditional_ess"
        )


def _moves(engine: Engine) -> Hmc:
    assert engine.moves is not None
    return engine.moves


def _tuned(
    engine: Engine, particles: Particles, level: Level, step_size: float, rounds: int
) -> tuple[Rejuvenated, float]:
    """Resample, then adapt the step size move by move to the acceptance wanted; its average over the later half."""
    moves = _moves(engine)
    particles, _ = resample(particles, engine.scheme, engine.ess_threshold, engine.generator)
    tried = []
    for k in range(FIRST_ROUNDS - rounds, FIRST_ROUNDS):
        particles, rate, _ = engine.move(particles, level, step_size)
        # stochastic approximation: falling gains end the noise, early ones are large enough to forget the start
        factor = torch.exp(4 / (k + 2) * (rate.mean() - moves.target_acceptance))
        step_size = min(max(step_size * float(factor), SHORTEST_STEP), moves.longest_step)
        tried.append(step_size)
    later = torch.tensor(tried[rounds // 2 :], dtype=torch.float64)
    return unmoved(particles), float(later.log().mean().exp())


def _next_exponent(particles: Particles, exponent: float, share: float | None) -> float:
    """The exponent, at most 1, at which the conditional effective sample size falls to a share of the particles."""
    if share is None or _conditional_share(particles, 1 - exponent) >= share:
        return 1.0
    low, high = 0.0, 1 - exponent
    while high - low > 1e-3 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _conditional_share(particles, middle) >= share else (low, middle)
    return exponent + high


def _conditional_share(particles: Particles, power: float) -> float:
    """Conditional effective sample size of weighting by a power of the potential, as a share, averaged over the sets.

    Particles outside the support are left out: no power, however small, would keep them.

    References:
        Zhou, Johansen, Aston, "Toward automatic model comparison: an adaptive sequential Monte Carlo approach", 2016.
    """
    log_weights = torch.where(particles.field.inside, particles.log_weights, -torch.inf).log_softmax(-1)
    gain = torch.where(particles.field.inside, power * particles.field.log_g.double(), 0.0)
    first, second = (torch.logsumexp(log_weights + k * gain, -1) for k in (1, 2))
    return float(torch.exp(2 * first - second).mean())
