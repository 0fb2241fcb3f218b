"""The weighted reverse diffusion: sequential Monte Carlo along a decreasing grid of times."""

import math
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sbflow.smc.guided import WeightedKernel
from sbflow.smc.particles import Field, Particles, SMCPath, effective_sample_size
from sbflow.smc.resampling import Resampling, systematic
from sbflow.tensor import randn_like

__all__ = ["init", "resample", "sample", "step"]


def init(
    kernel: WeightedKernel, like: Float[Tensor, "r n d"], t: Tensor, *, generator: torch.Generator | None = None
) -> Particles:
    """Draw particles from the reference N(0, I) and weigh them by the potential at time t.

    Args:
        kernel: the moves.
        like: gives number, dimension, dtype and device of the particles; its values are not read.
        t: first time of the grid.
        generator: source of the noise.
    """
    x = randn_like(like, generator)
    rows, n, _ = x.shape
    field = _field(kernel, x, t)
    uniform = torch.full((rows, n), -math.log(n), dtype=torch.float64, device=x.device)
    ancestors = torch.arange(n, device=x.device).expand(rows, n)
    return _reweigh(Particles(x, field, uniform, uniform.new_zeros(rows), ancestors), field.log_g.double())


def resample(
    particles: Particles, scheme: Resampling, ess_threshold: float, generator: torch.Generator | None = None
) -> tuple[Particles, Bool[Tensor, " r"]]:
    """Resample the sets whose effective sample size is at most ``ess_threshold`` · n.

    The decision is a selection and not a branch, so that it costs no transfer to the host.

    Returns:
        the particles, and which sets were resampled ``[r]``.
    """
    n = particles.log_weights.shape[-1]
    chosen = effective_sample_size(particles.log_weights) <= ess_threshold * n
    identity = torch.arange(n, device=chosen.device).expand_as(particles.ancestors)
    ancestors = torch.where(chosen[:, None], scheme(particles.log_weights, generator), identity)
    log_weights = torch.where(chosen[:, None], -math.log(n), particles.log_weights)
    moved = Particles(
        _gather(particles.x, ancestors),
        Field(*(_gather(part, ancestors) for part in particles.field)),
        log_weights,
        particles.log_z,
        particles.ancestors.gather(-1, ancestors),
    )
    return moved, chosen


def step(
    particles: Particles,
    kernel: WeightedKernel,
    t: Tensor,
    s: Tensor,
    *,
    scheme: Resampling = systematic,
    ess_threshold: float = 0.3,
    generator: torch.Generator | None = None,
) -> tuple[Particles, Bool[Tensor, " r"]]:
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
        the particles at time s, and which sets were resampled ``[r]``.
    """
    particles, chosen = resample(particles, scheme, ess_threshold, generator)
    x, field = particles.x.flatten(0, 1), _flat(particles.field)
    law = kernel.propose(x, field, t, s)
    x_s = law.sample(generator).reshape(particles.x.shape)
    field_s = _field(kernel, x_s, s)
    increment = kernel.log_weight(x, field, law, x_s.flatten(0, 1), _flat(field_s), t, s)
    moved = particles._replace(x=x_s, field=field_s)
    return _reweigh(moved, increment.reshape(moved.log_weights.shape)), chosen


@torch.no_grad()
def sample(
    kernel: WeightedKernel,
    like: Float[Tensor, "r n d"],
    times: Float[Tensor, " k"],
    *,
    scheme: Resampling = systematic,
    ess_threshold: float = 0.3,
    generator: torch.Generator | None = None,
) -> tuple[Particles, SMCPath]:
    """Run r independent particle samplers from the reference to the target.

    Args:
        kernel: the moves.
        like: gives number, dimension, dtype and device of the particles; its values are not read.
        times: decreasing grid that ends at 0.
        scheme: resampling scheme.
        ess_threshold: in [0, 1], see `step`.
        generator: source of all randomness.

    Raises:
        ValueError: ``ess_threshold`` outside [0, 1].
        FloatingPointError: the density gave NaN, or no particle has weight; names the time and the count.
    """
    if not 0 <= ess_threshold <= 1:
        raise ValueError(f"ess_threshold must lie in [0, 1], got {ess_threshold}")
    particles = init(kernel, like, times[0], generator=generator)
    path = [_diagnose(particles, torch.zeros_like(particles.log_z, dtype=torch.bool))]
    for t, s in pairwise(times):
        particles, chosen = step(
            particles, kernel, t, s, scheme=scheme, ess_threshold=ess_threshold, generator=generator
        )
        path.append(_diagnose(particles, chosen))
    stacked = SMCPath(*(torch.stack(column) for column in zip(*path, strict=True)))
    _check_finite(stacked, times)
    return particles, stacked


def _field(kernel: WeightedKernel, x: Float[Tensor, "r n d"], t: Tensor) -> Field:
    log_g, grad = kernel.field(x.flatten(0, 1), t)
    return Field(_positive(log_g.reshape(x.shape[:2]), t), grad.reshape(x.shape))


def _positive(log_g: Float[Tensor, "r n"], t: Tensor) -> Float[Tensor, "r n"]:
    """Lift −inf at t > 0 to the least finite value of the row.

    A particle whose potential is zero on the way may still end inside the support: to drop it there biases Ẑ. Any
    positive value cancels between two steps, so it may even depend on the other particles.
    """
    outside = log_g == -torch.inf
    least = torch.where(outside, torch.inf, log_g).amin(-1, keepdim=True)
    return torch.where(outside & (t > 0), torch.where(least == torch.inf, 0.0, least), log_g)


def _flat(field: Field) -> Field:
    return Field(*(part.flatten(0, 1) for part in field))


def _gather(values: Tensor, ancestors: Int[Tensor, "r n"]) -> Tensor:
    """Select along the particle axis."""
    index = ancestors.reshape(ancestors.shape + (1,) * (values.ndim - 2))
    return values.gather(1, index.expand(ancestors.shape + values.shape[2:]))


def _reweigh(particles: Particles, increment: Float[Tensor, "r n"]) -> Particles:
    """Multiply the weights, move their sum into the estimate of Z and normalise."""
    # a particle of weight zero keeps it: its increment may be −inf + inf
    log_weights = torch.where(
        particles.log_weights == -torch.inf, particles.log_weights, particles.log_weights + increment
    )
    total = torch.logsumexp(log_weights, -1)
    return particles._replace(log_weights=log_weights - total[:, None], log_z=particles.log_z + total)


def _diagnose(particles: Particles, chosen: Bool[Tensor, " r"]) -> SMCPath:
    num_nan = particles.field.log_g.isnan().sum(-1)
    return SMCPath(effective_sample_size(particles.log_weights), chosen, particles.log_z, num_nan)


def _check_finite(path: SMCPath, times: Float[Tensor, " k"]) -> None:
    """One look at the whole run: the only transfer to the host."""
    bad = ~path.log_z.isfinite().all(-1)
    if not bad.any():
        return
    k = int(bad.nonzero()[0])
    count = int(path.num_nan[k].sum())
    what = f"log density is NaN for {count} particles" if count else "no particle has a finite weight"
    raise FloatingPointError(f"{what} at time {float(times[k]):.4g} (step {k} of {len(times) - 1}); check the target")
