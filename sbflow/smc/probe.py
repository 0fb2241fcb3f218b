"""A look at what the particles of a run may have missed: importance sampling with heavy tails."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.smc.particles import effective_sample_size

__all__ = ["Probe", "probe"]

# the second round starts from what the first has found, along an arm or out in a tail
ROUNDS = 2
CENTRES = 100
WIDTH = 0.5
"""Of the kernels about the centres, in standard deviations of the particles."""
LEAST_SPREAD = 1e-3


class Probe(NamedTuple):
    """An estimate of Z by points that reach further than a run does, unbiased and independent of it.

    Attributes:
        log_z: log of the estimate, in nats.
        stderr: its standard error, to first order that of the estimate over its mean.
        ess: effective sample size of the points.
    """

    log_z: float = math.nan
    stderr: float = math.nan
    ess: float = math.nan


@torch.no_grad()
def probe(
    log_prob: Callable[[Float[Tensor, "n d"]], Float[Tensor, " n"]],
    x: Float[Tensor, "n d"],
    log_weights: Float[Tensor, " n"],
    *,
    generator: torch.Generator,
    num_probes: int,
) -> Probe:
    """Draw half of the points from a Cauchy law about 0, half about particles, and again about the best of these.

    The tails of the Cauchy law are heavier than those of nearly all densities, so the weights are bounded where a
    Gaussian's would not be. In many dimensions few points count, and the probe sees little: what it finds is mass,
    what it does not find may be there all the same.

    Args:
        log_prob: log γ in coordinates where the reference law is N(0, I).
        x: particles of the run in these coordinates.
        log_weights: their log-weights, normalised.
        generator: source of all randomness, independent of the run.
        num_probes: evaluations of the density in each of the two rounds, an even number.
    """
    found = Probe()
    for _ in range(ROUNDS):
        points, log_proposal = _draw(x.double(), log_weights, num_probes, generator)
        log_weights = (log_prob(points.to(x.dtype)).double() - log_proposal).nan_to_num(*[-math.inf] * 3)
        total = torch.logsumexp(log_weights, 0)
        if not total.isfinite():
            return found
        x, log_weights = points.to(x.dtype), log_weights - total
        ess = float(effective_sample_size(log_weights))
        # the variance of normalised weights about 1/n, as importance sampling has it
        found = Probe(float(total) - math.log(num_probes), math.sqrt(max(0.0, 1 / ess - 1 / num_probes)), ess)
    return found


def _draw(
    x: Float[Tensor, "n d"], log_weights: Float[Tensor, " n"], num: int, generator: torch.Generator
) -> tuple[Float[Tensor, "num d"], Float[Tensor, " num"]]:
    """Points and the log-density of the mixture that they are drawn from."""
    weights = log_weights.exp()
    # a particle of weight zero may lie anywhere, at infinity too
    x = torch.where(weights[:, None] > 0, x, 0)
    spread = (weights @ x.square() - (weights @ x).square()).clamp_min(LEAST_SPREAD**2).sqrt()
    # by the distribution function: torch.multinomial takes no more than 2²⁴ particles
    levels = torch.rand(CENTRES, generator=generator, dtype=x.dtype, device=x.device)
    centres = x[torch.searchsorted(weights.cumsum(0), levels).clamp_max(len(x) - 1)]
    far = _cauchy(num // 2, x, generator)
    near = centres[torch.arange(num - len(far), device=x.device) % CENTRES]
    near = near + WIDTH * spread * _cauchy(len(near), x, generator)
    points = torch.cat([far, near])
    # distances by a matrix product: all differences would take centres times the memory of the points
    distances = torch.cdist(points / (WIDTH * spread), centres / (WIDTH * spread)).square()
    log_near = torch.logsumexp(_log_cauchy(distances, x.shape[1]), 1) - math.log(CENTRES)
    log_near = log_near - (WIDTH * spread).log().sum()
    log_far = _log_cauchy(points.square().sum(1), x.shape[1])
    return points, torch.logaddexp(log_near, log_far) - math.log(2)


def _cauchy(num: int, like: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "num d"]:
    normal = torch.randn(num, like.shape[1] + 1, generator=generator, dtype=like.dtype, device=like.device)
    return normal[:, 1:] / normal[:, :1].abs()


def _log_cauchy(squared_distance: Tensor, dim: int) -> Tensor:
    """Log-density of the standard Cauchy law, Student's t of one degree of freedom."""
    constant = math.lgamma((dim + 1) / 2) - (dim + 1) / 2 * math.log(math.pi)
    return constant - (dim + 1) / 2 * torch.log1p(squared_distance)
