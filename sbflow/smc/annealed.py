"""Annealed sequential Monte Carlo, the sampler that every other one should be compared with."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.process import equalise
from sbflow.process.schedule import interpolate
from sbflow.smc.engine import Engine
from sbflow.smc.guided import WeightedKernel
from sbflow.smc.moves import Hmc
from sbflow.smc.particles import Particles, SMCPath
from sbflow.smc.resampling import Resampling, systematic
from sbflow.smc.sampler import Ladder, climb
from sbflow.smc.tuning import pilot

__all__ = ["annealing_ladder", "sample_annealed"]


def sample_annealed(
    kernel: WeightedKernel,
    like: Float[Tensor, "r n d"],
    *,
    moves: Hmc | None = None,
    num_steps: int | None = None,
    conditional_ess: float = 0.9,
    pilot_particles: int = 500,
    scheme: Resampling = systematic,
    ess_threshold: float = 0.5,
    chunk_size: int | str | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Particles, SMCPath]:
    """Run r independent annealed samplers along γ^e N(0, I)^(1 − e), in whitened coordinates, from e = 0 to 1.

    A pilot run chooses exponents and step sizes; the r runs take them as given, so that their Ẑ is unbiased. Each run
    costs one evaluation per particle, and ``num_moves`` · ``num_leapfrog`` more at each of its levels but the last; the
    pilot 4 · ``num_leapfrog`` per pilot particle and level, at the first one twice as many.

    Args:
        kernel: gives the potential at t = 0, which is all that is used of it.
        like: gives number, dimension, dtype and device of the particles; its values are not read.
        moves: Markov moves; Hamiltonian Monte Carlo by default.
        num_steps: levels; by default as many as ``conditional_ess`` asks for.
        conditional_ess: see `sbflow.smc.tune`.
        pilot_particles: particles of the pilot run.
        scheme: resampling scheme.
        ess_threshold: see `sbflow.smc.sample`.
        chunk_size: see `sbflow.smc.sample`.
        generator: source of all randomness, of the pilot first.

    Raises:
        ValueError: an option that cannot be.
        SamplingError: see `sbflow.smc.sample`.

    References:
        Neal, "Annealed importance sampling", 2001; Del Moral, Doucet, Jasra, "Sequential Monte Carlo samplers", 2006.
    """
    if pilot_particles < 1:
        raise ValueError(f"pilot_particles must be at least 1, got {pilot_particles}")
    engine = Engine(kernel, scheme, ess_threshold, Hmc() if moves is None else moves, chunk_size, generator)
    ladder = annealing_ladder(
        engine, like[:1, :1].expand(1, pilot_particles, -1), num_steps=num_steps, conditional_ess=conditional_ess
    )
    return climb(engine, like, ladder)


def annealing_ladder(
    engine: Engine, like: Float[Tensor, "r n d"], *, num_steps: int | None = None, conditional_ess: float = 0.9
) -> Ladder:
    """Exponents and step sizes by a pilot run of as many particles as ``like`` has; see `sample_annealed`."""
    if num_steps is not None and num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    times = torch.zeros(1, dtype=torch.float64, device=like.device)
    found = pilot(engine, like, times, conditional_ess)
    if num_steps is None:
        return Ladder(times, found.exponents, found.step_sizes)
    # the same path in that many levels of equal cost, with step sizes in between those found
    knots = torch.cat([times, found.exponents])
    exponents = equalise(knots, found.costs, num_steps)[1:]
    sizes = torch.cat([times.new_full((1,), (engine.moves or Hmc()).longest_step), found.step_sizes])
    # nothing was found for the last level, where no moves are made: the step size before it stands in
    sizes = torch.cat([sizes, sizes[-1:]])
    return Ladder(times, exponents, interpolate(exponents[:-1], knots, sizes.log()).exp())
