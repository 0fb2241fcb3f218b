r"""Sequential Monte Carlo along a ladder of levels, with tempering, denoising and Markov moves.

The ladder starts at the first time with increasing exponents of the potential, the last of them 1, and goes on down the
times. The Particle Denoising Diffusion Sampler has the one exponent 1; annealed sequential Monte Carlo the one time 0.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.smc.engine import Engine, Level, resample
from sbflow.smc.guided import WeightedKernel
from sbflow.smc.moves import Hmc
from sbflow.smc.particles import Particles, SamplingError, SMCPath
from sbflow.smc.resampling import Resampling, systematic

__all__ = ["Ladder", "climb", "init", "resample", "sample", "step"]


class Ladder(NamedTuple):
    """What a pilot run decides and a run takes as given, so that its Ẑ stays unbiased; all in float64.

    Attributes:
        times: decreasing grid that ends at 0 ``[k]``.
        exponents: increasing powers of the potential at the first time, the last of them 1 ``[m]``; None is only 1.
        step_sizes: of the Markov moves at each of the m + k − 1 levels but the last; None without moves.
    """

    times: Float[Tensor, " k"]
    exponents: Float[Tensor, " m"] | None = None
    step_sizes: Float[Tensor, " l"] | None = None

    def levels(self) -> list[Level]:
        """The m + k − 1 levels."""
        exponents = [1.0] if self.exponents is None else self.exponents.tolist()
        return [Level(self.times[0], e) for e in exponents] + [Level(t) for t in self.times[1:]]


def init(
    kernel: WeightedKernel, like: Float[Tensor, "r n d"], t: Tensor, *, generator: torch.Generator | None = None
) -> Particles:
    """Draw particles where the kernel begins, for denoising from N(0, I), and weigh them for time t.

    Args:
        kernel: the moves.
        like: gives number, dimension, dtype and device of the particles; its values are not read.
        t: first time of the grid.
        generator: source of the noise.
    """
    return Engine(kernel, generator=generator).init(like, Level(t))[0]


def step(
    particles: Particles,
    kernel: WeightedKernel,
    t: Tensor,
    s: Tensor,
    *,
    scheme: Resampling = systematic,
    ess_threshold: float = 0.3,
    generator: torch.Generator | None = None,
) -> tuple[Particles, SMCPath]:
    """Resample where needed, move from t to s, weigh.

    Args:
        particles: sets at time t.
        kernel: the moves.
        t: current time.
        s: next time.
        scheme: resampling scheme.
        ess_threshold: resample at an effective sample size of at most this share of n: 0 never, 1 always.
        generator: source of all randomness.

    Returns:
        the particles at time s, and the diagnostics of the step, each ``[r]``.
    """
    engine = Engine(kernel, scheme, ess_threshold, generator=generator)
    return engine.advance(engine.rejuvenate(particles, Level(t)), Level(t), Level(s))


def sample(
    kernel: WeightedKernel,
    like: Float[Tensor, "r n d"],
    times: Float[Tensor, " k"],
    *,
    exponents: Float[Tensor, " m"] | None = None,
    step_sizes: Float[Tensor, " l"] | None = None,
    moves: Hmc | None = None,
    scheme: Resampling = systematic,
    ess_threshold: float = 0.3,
    chunk_size: int | str | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Particles, SMCPath]:
    """Run r independent particle samplers from the reference to the target.

    Args:
        kernel: the moves between times.
        like: gives number, dimension, dtype and device of the particles; its values are not read.
        times: decreasing grid that ends at 0.
        exponents: see `Ladder`; more than one tempers the first weight.
        step_sizes: see `Ladder`; given with ``moves``, and found by `sbflow.smc.tune`.
        moves: Markov moves at every level before it is left.
        scheme: resampling scheme.
        ess_threshold: resample at an effective sample size of at most this share of n: 0 never, 1 always.
        chunk_size: points per call of the density, or the memory of a call, as "500MB"; None takes all at once.
        generator: source of all randomness.

    Raises:
        ValueError: an option that cannot be.
        SamplingError: the density raised, or was NaN for every particle of a set, or no particle has weight; names the
            time and the count, and carries what was computed.
    """
    engine = Engine(kernel, scheme, ess_threshold, moves, chunk_size, generator)
    return climb(engine, like, Ladder(times, exponents, step_sizes))


@torch.no_grad()
def climb(engine: Engine, like: Float[Tensor, "r n d"], ladder: Ladder) -> tuple[Particles, SMCPath]:
    """Run r independent samplers up a ladder; see `sample`."""
    _check_ladder(ladder, engine, like.shape[1])
    levels = ladder.levels()
    step_sizes = [None] * (len(levels) - 1) if ladder.step_sizes is None else ladder.step_sizes.tolist()
    particles: Particles | None = None
    path: list[SMCPath] = []
    try:
        particles, diagnosis = engine.init(like, levels[0])
        path.append(diagnosis)
        for (before, after), step_size in zip(pairwise(levels), step_sizes, strict=True):
            fresh = engine.rejuvenate(particles, before, step_size)
            particles, diagnosis = engine.advance(fresh, before, after)
            path.append(diagnosis)
    except SamplingError as error:
        raise SamplingError(
            f"{error} (step {len(path)} of {len(levels) - 1})", particles, _stacked(path) if path else None
        ) from error.__cause__
    stacked = _stacked(path)
    _check_path(particles, stacked, levels)
    return particles, stacked


def _stacked(path: list[SMCPath]) -> SMCPath:
    return SMCPath(*(torch.stack(column) for column in zip(*path, strict=True)))


def _check_ladder(ladder: Ladder, engine: Engine, n: int) -> None:
    moves = engine.moves
    num_levels = len(ladder.times) + (0 if ladder.exponents is None else len(ladder.exponents) - 1)
    if ladder.exponents is not None:
        exponents = ladder.exponents
        if not (len(exponents) and exponents[0] > 0 and (exponents.diff() > 0).all() and exponents[-1] == 1):
            raise ValueError(f"exponents must be positive, increase and end at 1, got {exponents.tolist()}")
        if len(exponents) > 1 and not engine.kernel.tempers:
            raise ValueError(
                f"exponents must be left out for a {type(engine.kernel).__name__}, got {exponents.tolist()}"
            )
    if (moves is None) != (ladder.step_sizes is None):
        raise ValueError("moves and step_sizes must be given together; `tune` finds the step sizes")
    if moves is None or ladder.step_sizes is None:
        return
    step_sizes = ladder.step_sizes
    if len(step_sizes) != num_levels - 1 or not ((step_sizes > 0) & step_sizes.isfinite()).all():
        raise ValueError(f"step_sizes must be {num_levels - 1} positive numbers, got {step_sizes.tolist()}")
    if moves.waste_free and n % (moves.num_moves + 1):
        raise ValueError(f"waste_free needs a multiple of num_moves + 1 = {moves.num_moves + 1} particles, got {n}")


def _check_path(particles: Particles, path: SMCPath, levels: list[Level]) -> None:
    """One look at the whole run: the only transfer to the host."""
    n = particles.log_weights.shape[-1]
    bad = (~path.log_z.isfinite() | (path.num_nan == n)).any(-1)
    if not bad.any():
        return
    k = int(bad.nonzero()[0])
    count = int(path.num_nan[k].sum())
    what = f"log density is NaN for {count} particles" if count else "no particle has a finite weight"
    where = f"at time {float(levels[k].time):.4g} (step {k} of {len(levels) - 1})"
    raise SamplingError(f"{what} {where}; check the target", particles, path)
