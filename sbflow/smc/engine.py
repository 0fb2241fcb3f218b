r"""The parts of one step of the particle sampler: evaluate, resample, move, go to the next level, weigh.

At level (t, e) the particles follow :math:`\hat g_t^e N(0, I)`, up to its constant.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sbflow.smc.guided import WeightedKernel
from sbflow.smc.memory import Pieces, check_chunk_size
from sbflow.smc.moves import Hmc
from sbflow.smc.particles import Field, Particles, SamplingError, SMCPath, effective_sample_size
from sbflow.smc.resampling import Resampling, systematic

__all__ = ["Engine", "Level", "Rejuvenated", "resample", "unmoved"]


class Level(NamedTuple):
    """A rung of the ladder that the particles climb.

    Attributes:
        time: t.
        exponent: of the potential, in [0, 1]; below 1 only while the first weight is tempered.
    """

    time: Tensor
    exponent: float = 1.0


class Rejuvenated(NamedTuple):
    """Particles after resampling and Markov moves; for the other attributes see `SMCPath`."""

    particles: Particles
    resampled: Bool[Tensor, " r"]
    acceptance: Float[Tensor, " r"]
    num_nan_proposals: Int[Tensor, " r"]


@dataclass(frozen=True)
class Engine:
    """The choices that stay the same along a run.

    Args:
        kernel: the moves between times.
        scheme: resampling scheme.
        ess_threshold: resample at an effective sample size of at most this share of n: 0 never, 1 always.
        moves: Markov moves at every level before it is left.
        chunk_size: points per call of the density, or the memory of a call, as "500MB"; None takes all at once.
        generator: source of all randomness.
    """

    kernel: WeightedKernel
    scheme: Resampling = systematic
    ess_threshold: float = 0.3
    moves: Hmc | None = None
    chunk_size: int | str | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ess_threshold <= 1:
            raise ValueError(f"ess_threshold must lie in [0, 1], got {self.ess_threshold}")
        check_chunk_size(self.chunk_size)
        if self.moves is not None and not self.kernel.tempers:
            raise ValueError(f"moves need the density at every level, which a {type(self.kernel).__name__} has not")

    @cached_property
    def _pieces(self) -> Pieces:
        return Pieces(self.chunk_size)

    def evaluate(self, x: Float[Tensor, "r n d"], t: Tensor) -> Field:
        """Potential at the positions, in pieces as ``chunk_size`` says."""
        pieces = self._pieces(lambda piece: self._field(piece, t), x.flatten(0, 1))
        return Field(
            *(torch.cat(parts).reshape(*x.shape[:2], *parts[0].shape[1:]) for parts in zip(*pieces, strict=True))
        )

    def _field(self, x: Float[Tensor, "n d"], t: Tensor) -> Field:
        try:
            return self.kernel.field(x, t)
        except Exception as error:
            what = f"the log density raised {type(error).__name__} ({error})"
            raise SamplingError(f"{what} at time {float(t):.4g} for {len(x)} particles") from error

    def init(self, like: Float[Tensor, "r n d"], level: Level) -> tuple[Particles, SMCPath]:
        """Draw particles where the kernel begins and weigh them for the level; also the diagnostics."""
        x = self.kernel.start(like, self.generator)
        rows, n, _ = x.shape
        field = _lifted(self.evaluate(x, level.time), level.time)
        uniform = torch.full((rows, n), -math.log(n), dtype=torch.float64, device=x.device)
        ancestors = torch.arange(n, device=x.device).expand(rows, n)
        particles = Particles(x, field, uniform, uniform.new_zeros(rows), ancestors, torch.zeros_like(uniform))
        return _weighed(unmoved(particles), _power(self.kernel.start_weight(field), level.exponent))

    def rejuvenate(self, particles: Particles, level: Level, step_size: float | None = None) -> Rejuvenated:
        """Resample where needed, then make the Markov moves; without waste every state of their chains stays."""
        chain = self.moves.num_moves + 1 if self.moves is not None and self.moves.waste_free else 1
        num = particles.log_weights.shape[-1] // chain if chain > 1 else None
        particles, chosen = resample(particles, self.scheme, self.ess_threshold, self.generator, num=num)
        if self.moves is None or step_size is None:
            return unmoved(particles, chosen)
        states, rates, num_nan = [particles], [], torch.zeros_like(chosen, dtype=torch.long)
        for _ in range(self.moves.num_moves):
            moved, rate, bad = self.move(states[-1], level, step_size)
            states.append(moved)
            rates.append(rate)
            num_nan = num_nan + bad
        kept = _joined(states) if chain > 1 else states[-1]
        return Rejuvenated(kept, chosen, torch.stack(rates).mean(0), num_nan)

    def move(
        self, particles: Particles, level: Level, step_size: float
    ) -> tuple[Particles, Float[Tensor, " r"], Int[Tensor, " r"]]:
        """Make one Markov move; also its mean acceptance, and its proposals that were not a number, of each set."""
        assert self.moves is not None
        moved = self.moves.move(
            lambda x: self.evaluate(x, level.time),
            particles.x,
            particles.field,
            level.exponent,
            step_size,
            self.generator,
        )
        # weighted, as the particles are; those outside the support cannot move
        able = torch.where(particles.field.inside, particles.log_weights.exp(), 0.0)
        rate = (able * moved.chance).sum(-1) / able.sum(-1)
        return particles._replace(x=moved.x, field=moved.field), rate.nan_to_num(0.0), moved.num_nan

    def advance(self, fresh: Rejuvenated, before: Level, after: Level) -> tuple[Particles, SMCPath]:
        """Go from level to level, by a higher exponent or by an earlier time, and weigh; also the diagnostics."""
        if after.exponent != before.exponent:
            return _weighed(fresh, _power(fresh.particles.field.log_g, after.exponent - before.exponent))
        particles, increment = self._propagate(fresh.particles, before.time, after.time)
        return _weighed(fresh._replace(particles=particles), increment)

    def _propagate(self, particles: Particles, t: Tensor, s: Tensor) -> tuple[Particles, Float[Tensor, "r n"]]:
        """Propose from t to s; also the incremental log-weights."""
        x, field = particles.x.flatten(0, 1), _flat(particles.field)
        law = self.kernel.propose(x, field, t, s)
        x_s = law.sample(self.generator).reshape(particles.x.shape)
        field_s = _lifted(self.evaluate(x_s, s), s)
        increment = self.kernel.log_weight(x, field, law, x_s.flatten(0, 1), _flat(field_s), t, s)
        return particles._replace(x=x_s, field=field_s), increment.reshape(particles.log_weights.shape)


def resample(
    particles: Particles,
    scheme: Resampling,
    ess_threshold: float,
    generator: torch.Generator | None = None,
    *,
    num: int | None = None,
) -> tuple[Particles, Bool[Tensor, " r"]]:
    """Resample the sets whose effective sample size is at most ``ess_threshold`` · n.

    The decision is a selection and not a branch, so that it costs no transfer to the host.

    Args:
        particles: sets of n.
        scheme: resampling scheme.
        ess_threshold: 0 never, 1 always.
        generator: source of the uniforms.
        num: ancestors of every set, which is then resampled whatever its effective sample size.

    Returns:
        the particles, and which sets were resampled ``[r]``.
    """
    n = particles.log_weights.shape[-1]
    # always: rounding may put the effective sample size of equal weights above n
    every = num is not None or ess_threshold == 1
    chosen = effective_sample_size(particles.log_weights) <= (math.inf if every else ess_threshold * n)
    ancestors = scheme(particles.log_weights, generator, num)
    if not every:
        ancestors = torch.where(chosen[:, None], ancestors, torch.arange(n, device=chosen.device))
    r, m = ancestors.shape
    rows = ancestors + n * torch.arange(r, device=ancestors.device)[:, None]
    moved = Particles(
        _select(particles.x, rows),
        Field(*(_select(part, rows) for part in particles.field)),
        torch.where(chosen[:, None], -math.log(m), particles.log_weights[:, :m]),
        particles.log_z,
        particles.ancestors.gather(-1, ancestors),
        particles.family_changes,
    )
    return moved, chosen


def unmoved(particles: Particles, resampled: Bool[Tensor, " r"] | None = None) -> Rejuvenated:
    """Particles to advance without Markov moves; by default they were not resampled either."""
    none = torch.zeros_like(particles.log_z, dtype=torch.long)
    resampled = none.bool() if resampled is None else resampled
    return Rejuvenated(particles, resampled, torch.full_like(particles.log_z, torch.nan), none)


def _weighed(fresh: Rejuvenated, increment: Float[Tensor, "r n"]) -> tuple[Particles, SMCPath]:
    """Multiply the weights, move their sum into the estimate of Z and normalise; also the diagnostics."""
    particles = fresh.particles
    before = particles.log_weights
    # a particle of weight zero keeps it: its increment may be −inf + inf
    undefined = increment.isnan() & (before > -torch.inf)
    log_weights = torch.where(increment.isnan() | (before == -torch.inf), -torch.inf, before + increment)
    total = torch.logsumexp(log_weights, -1)
    # a set without weight goes on as if equally weighted, its Ẑ being 0 for good, so that its numbers stay numbers
    normalised = torch.where(
        (total > -torch.inf)[:, None], log_weights - total[:, None], -math.log(log_weights.shape[-1])
    )
    changes = particles.family_changes.scatter_add(-1, particles.ancestors, normalised.exp() - before.exp())
    particles = particles._replace(log_weights=normalised, log_z=particles.log_z + total, family_changes=changes)
    mean, variance = _moments(before, increment)
    diagnosis = SMCPath(
        effective_sample_size(normalised),
        fresh.resampled,
        particles.log_z,
        (particles.field.nan | undefined).sum(-1),
        fresh.acceptance,
        fresh.num_nan_proposals,
        mean,
        variance,
    )
    return particles, diagnosis


def _moments(
    log_weights: Float[Tensor, "r n"], increment: Float[Tensor, "r n"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:
    """Weighted mean of the increments; weighted variance of those that are finite."""
    weights = log_weights.exp()
    mean = torch.where(weights > 0, weights * increment, 0.0).sum(-1)
    weights = torch.where(increment.isfinite(), weights, 0.0)
    weights = weights / weights.sum(-1, keepdim=True)
    finite = torch.where(increment.isfinite(), increment, 0.0)
    centred = finite - (weights * finite).sum(-1, keepdim=True)
    return mean, (weights * centred**2).sum(-1)


def _power(log_g: Float[Tensor, "r n"], exponent: float) -> Float[Tensor, "r n"]:
    """Log potential times an exponent, with 0⁰ = 1."""
    return torch.zeros_like(log_g, dtype=torch.float64) if exponent == 0 else exponent * log_g.double()


def _lifted(field: Field, t: Tensor) -> Field:
    """Lift −inf at t > 0 to the least finite value of the row.

    A particle whose potential is zero on the way may still end inside the support: to drop it there biases Ẑ. Any
    positive value cancels between two steps, so it may even depend on the other particles.
    """
    least = torch.where(field.inside, field.log_g, torch.inf).amin(-1, keepdim=True)
    floor = torch.where(least == torch.inf, 0.0, least)
    return field._replace(log_g=torch.where(field.inside | (t == 0), field.log_g, floor))


def _joined(states: list[Particles]) -> Particles:
    """All states of the chains as one set of equally weighted particles."""
    field = Field(*(torch.cat(parts, 1) for parts in zip(*(state.field for state in states), strict=True)))
    x, log_weights, ancestors = (
        torch.cat([getattr(state, name) for state in states], 1) for name in ("x", "log_weights", "ancestors")
    )
    return states[0]._replace(x=x, field=field, log_weights=log_weights - math.log(len(states)), ancestors=ancestors)


def _flat(field: Field) -> Field:
    return Field(*(part.flatten(0, 1) for part in field))


def _select(values: Tensor, rows: Int[Tensor, "r m"]) -> Tensor:
    """Rows of a table, the sets one below the other; many times faster than a gather of single numbers."""
    return values.flatten(0, 1).index_select(0, rows.flatten()).reshape(*rows.shape, *values.shape[2:])
