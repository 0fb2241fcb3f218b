"""Grids of times on which every step of the particle sampler costs the same, found by pilot runs."""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.integrator import Coefficient
from sbflow.integrator.schedule_cost import path_cost
from sbflow.process import equalise, uniform_times
from sbflow.process.schedule import interpolate, path_length
from sbflow.smc.engine import Engine, resample
from sbflow.smc.guided import GuidedDenoising
from sbflow.smc.particles import SMCPath
from sbflow.smc.resampling import Resampling, systematic
from sbflow.smc.sampler import Ladder, climb

__all__ = ["StepCost", "TunedTimes", "follow", "tune_times"]

StepCost = Literal["pilot", "path"]
"""Measured in runs of the sampler on the grid itself, or once on a fine grid; see `tune_times`."""

# of the grid that the path cost is measured on, and of the run that brings samples of the target
BASE_STEPS, SAMPLE_STEPS = 128, 16


class TunedTimes(NamedTuple):
    """A grid of times, and what was found with it.

    Attributes:
        times: from 1 down to 0, in float64.
        length: Λ, length of the path in the units of `sbflow.integrator.schedule_cost.path_cost`.
        predicted_variance: sum of the variances of the incremental log-weights over the K steps of the grid, as far as
            they are short; Λ² / (2 K) where all steps cost the same.
        num_samples: particles that Λ was measured with.
        cost: what was measured.
        coefficient: mean of the proposal that the grid was made for.
    """

    times: Float[Tensor, " k"]
    length: float
    predicted_variance: float
    num_samples: int
    cost: StepCost
    coefficient: Coefficient


@torch.no_grad()
def tune_times(
    kernel: GuidedDenoising,
    like: Float[Tensor, "r n d"],
    num_steps: int,
    *,
    cost: StepCost = "pilot",
    uniform_share: float = 0.0,
    rounds: int = 8,
    damping: float = 0.5,
    scheme: Resampling = systematic,
    ess_threshold: float = 0.3,
    chunk_size: int | str | None = None,
    generator: torch.Generator | None = None,
) -> TunedTimes:
    """Find the grid of times on which all steps cost the same.

    The cost ``"pilot"`` of a step is the variance of its incremental log-weights in a run of the sampler on the grid
    itself. It holds for any potential and for steps of any length, so that to second order the conditional effective
    sample size falls alike in all steps. Each round goes part of the way to the grid that equalises it.

    The cost ``"path"``, `sbflow.integrator.schedule_cost.path_cost`, is measured once, on a fine grid. It says what
    short steps would cost if the potential were exact, and is for exact and for trained potentials: that of the naive
    one, whose gradient is not that of any noised law, is not the spread of its weights. Both costs are our own
    derivation; the idea of equal costs is that of Williams et al. 2024.

    Args:
        kernel: the moves.
        like: gives number, dimension, dtype and device of the pilot's particles; its values are not read.
        num_steps: steps of the grid.
        cost: what is equalised.
        uniform_share: see `sbflow.process.equalise`.
        rounds: pilot runs, for the cost ``"pilot"``.
        damping: share of the way that each of them goes, in (0, 1].
        scheme: resampling scheme.
        ess_threshold: see `sbflow.smc.sample`.
        chunk_size: see `sbflow.smc.sample`.
        generator: source of all randomness; the draws of the pilots may not be those of the run.

    Raises:
        ValueError: an option out of its range.
        SamplingError: a pilot run broke down.

    Warns:
        UserWarning: the path cost depends on the grid that it was measured on.

    References:
        Williams, Campbell, Doucet, Syed, "Score-Optimal Diffusion Schedules", 2024.
    """
    if cost not in get_args(StepCost):
        raise ValueError(f"cost must be 'pilot' or 'path', got {cost!r}")
    if rounds < 1 or not 0 < damping <= 1:
        raise ValueError(f"need rounds of at least 1 and damping in (0, 1], got {rounds} and {damping}")
    engine = Engine(kernel, scheme, ess_threshold, chunk_size=chunk_size, generator=generator)
    if cost == "path":
        base, costs = _path_costs(kernel, engine, like, max(BASE_STEPS, 8 * num_steps))
        times = equalise(base, costs, num_steps, uniform_share=uniform_share)
    else:
        times = uniform_times(num_steps, device=like.device)
        for _ in range(rounds):
            _, path = climb(engine, like, Ladder(times.flip(0)))
            base, costs = times, _increment_costs(path, num_steps)
            times = torch.lerp(base, equalise(base, costs, num_steps, uniform_share=uniform_share), damping)
    return _found(times, base, costs, like.shape[0] * like.shape[1], cost, kernel.coefficient)


def follow(
    times: Float[Tensor, " k"], path: SMCPath, rate: float, num_samples: int, coefficient: Coefficient
) -> TunedTimes:
    """Go part of the way to the grid on which the steps of a finished run would have varied alike.

    Args:
        times: decreasing grid of the run.
        path: its diagnostics.
        rate: share of the way, in (0, 1].
        num_samples: particles of the run.
        coefficient: of its kernel.
    """
    base = times.flip(0)
    costs = _increment_costs(path, len(base) - 1)
    moved = torch.lerp(base, equalise(base, costs, len(base) - 1), rate)
    return _found(moved, base, costs, num_samples, "pilot", coefficient)


def _increment_costs(path: SMCPath, num_steps: int) -> Float[Tensor, " l"]:
    """Twice the variance of the log-weights of each step in time, as for short steps the path cost of exact potentials.

    The levels before them tempered the first weight.
    """
    return 2 * path.increment_variance[-num_steps:].nanmean(-1).nan_to_num(0.0).flip(0)


def _found(
    times: Float[Tensor, " k"],
    base: Float[Tensor, " m"],
    costs: Float[Tensor, " l"],
    num_samples: int,
    cost: StepCost,
    coefficient: Coefficient,
) -> TunedTimes:
    """An increasing grid with its length and variance, from the costs of another one."""
    travelled = torch.cat([costs.new_zeros(1), costs.sqrt().cumsum(0)])
    predicted = 0.5 * float(interpolate(times, base, travelled).diff().square().sum())
    return TunedTimes(times.flip(0), path_length(costs), predicted, num_samples, cost, coefficient)


def _path_costs(
    kernel: GuidedDenoising, engine: Engine, like: Float[Tensor, "r n d"], num_steps: int
) -> tuple[Float[Tensor, " k"], Float[Tensor, " l"]]:
    """Fine grid and costs, along paths that start at the particles of a run."""
    particles, _ = climb(engine, like, Ladder(uniform_times(SAMPLE_STEPS, device=like.device).flip(0)))
    equally_weighted, _ = resample(particles, engine.scheme, 1.0, engine.generator)
    base = uniform_times(num_steps, device=like.device)

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        return engine.evaluate(x[None], t).grad_log_g[0]

    x0 = equally_weighted.x.flatten(0, 1)
    return base, path_cost(gradient, kernel.process, x0, base, generator=engine.generator)
