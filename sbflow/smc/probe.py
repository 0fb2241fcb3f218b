"""A look at what the particles of a run may have missed: importance sampling with heavy tails."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.smc.particles import effective_sample_size

__all__ = ["LogDensity", "Probe", "probe_beyond"]

LogDensity = Callable[[Tensor], Tensor]
"""Points ``[n, d]`` -> their log-densities ``[n]``."""

ROUNDS = 3
"""Each starts from what the one before has found, along an arm or out in a tail."""

DECISIVE = 4
"""Rounds' worth of points of a last round, which decides where the others raise a suspicion."""

DRAWN, CENTRES = 500, 50
"""Particles that give the scale of the kernels, and those of them that are their centres."""

WIDTH = 0.5
"""Of the kernels, in standard deviations of the particles."""

LEAST_SPREAD = 1e-3
"""Of the particles in a coordinate, in standard deviations of the reference law."""

MOST_CALLS = 300
"""Of a density that raises at some of the points, in a round."""


class Probe(NamedTuple):
    """An estimate of Z by points that reach further than a run does; NaN where none of them has any weight.

    Attributes:
        log_z: log of the estimate, in nats.
        stderr: its standard error, to first order that of the estimate over its mean.
        ess: effective sample size of the points.
    """

    log_z: float = math.nan
    stderr: float = math.nan
    ess: float = math.nan

    def exceeds(self, log_z: float, stderr: float, num_stderr: float) -> bool:
        """Whether its Z is larger than another estimate by so many of their joint standard errors."""
        # on the scale of Z over the other estimate: there both errors are what they are said to be
        ratio = math.exp(min(self.log_z - log_z, 700.0))
        return ratio - 1 > num_stderr * math.hypot(ratio * self.stderr, stderr)


@torch.no_grad()
def probe_beyond(
    log_prob: LogDensity,
    x: Float[Tensor, "n d"],
    log_weights: Float[Tensor, " n"],
    *,
    log_z: float,
    stderr: float,
    generator: torch.Generator,
    num_probes: int,
) -> Probe:
    r"""Estimate Z by points of a law with tails heavier than those of nearly all densities, in three or four rounds.

    .. math:: q(z) = \tfrac12 C(z; 0, I) + \tfrac1{2m} \sum_{j=1}^m C(z; c_j, h^2 S), \qquad
        \hat Z = \frac1n \sum_i \gamma(z_i) / q(z_i),

    with C the multivariate Cauchy density, the c_j drawn from the particles and S the diagonal of their covariance; in
    the later rounds the points of the round before take the place of the particles. A fourth round, of four times as
    many points, is made where the third one's Z is above the run's by a joint standard error. Given the points before,
    each round's estimate is unbiased; the last one that found any mass is returned. In many dimensions few points
    count, and the probe sees little: what it finds is mass, what it does not find may be there all the same.

    Args:
        log_prob: log γ in coordinates where the reference law is N(0, I). Where it raises, it is taken to be -inf.
        x: particles of the run in these coordinates.
        log_weights: their log-weights, normalised.
        log_z: what the run estimates.
        stderr: standard error of that.
        generator: source of all randomness, apart from the run's.
        num_probes: points of a round; an odd number is raised by one.

    References:
        Hesterberg, "Weighted average importance sampling and defensive mixture distributions", 1995.
        Cappé, Guillin, Marin, Robert, "Population Monte Carlo", 2004.
    """
    found, half = Probe(), (num_probes + 1) // 2
    for done in range(ROUNDS + 1):
        if done == ROUNDS:
            if not found.exceeds(log_z, stderr, 1.0):
                break
            half *= DECISIVE
        points, log_proposal = _draw(x, log_weights, half, generator)
        log_gamma = _evaluated(log_prob, points.to(x.dtype)).double()
        ratios = torch.where(log_gamma.isfinite(), log_gamma - log_proposal, -math.inf)
        total = torch.logsumexp(ratios, 0)
        if not total.isfinite():
            break
        x, log_weights = points.to(x.dtype), ratios - total
        ess = float(effective_sample_size(log_weights))
        # the variance of normalised weights about 1/n, as importance sampling has it
        error = math.sqrt(max(0.0, 1 / ess - 1 / len(points)))
        found = Probe(float(total) - math.log(len(points)), error, ess)
    return found


def _draw(
    x: Float[Tensor, "n d"], log_weights: Float[Tensor, " n"], half: int, generator: torch.Generator
) -> tuple[Float[Tensor, "num d"], Float[Tensor, " num"]]:
    """Points, the nearest to 0 first, and the log-density q of the mixture that they are drawn from."""
    # by the distribution function: torch.multinomial takes no more than 2²⁴ particles
    levels = torch.rand(DRAWN, generator=generator, dtype=torch.float64, device=x.device)
    drawn = x[torch.searchsorted(log_weights.double().exp().cumsum(0), levels).clamp_max(len(x) - 1)].double()
    width = WIDTH * drawn.std(0).clamp_min(LEAST_SPREAD)
    centres = drawn[:CENTRES]
    near = centres[torch.arange(half, device=x.device) % CENTRES] + width * _cauchy(half, drawn, generator)
    points = torch.cat([_cauchy(half, drawn, generator), near])
    squares = points.square().sum(1)
    order = squares.argsort()
    points, squares, middle = points[order], squares[order], centres.mean(0)
    distances = _squared_distances((points - middle) / width, (centres - middle) / width)
    log_near = torch.logsumexp(_log_cauchy(distances, x.shape[1]), 1) - math.log(CENTRES) - width.log().sum()
    return points, torch.logaddexp(log_near, _log_cauchy(squares, x.shape[1])) - math.log(2)


def _squared_distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    # by a matrix product: all differences would take m times the memory of the points
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)


def _evaluated(log_prob: LogDensity, points: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Log γ, and -inf where it raises: a piece that raises is halved, those furthest out given up first."""
    values = points.new_full((len(points),), -math.inf)
    pieces, calls = [(0, len(points))], 0
    while pieces and calls < MOST_CALLS:
        begin, end = pieces.pop()
        calls += 1
        try:
            values[begin:end] = log_prob(points[begin:end])
        # whatever a density may raise so far out
        except Exception:
            middle = (begin + end) // 2
            if middle > begin:
                pieces += [(middle, end), (begin, middle)]
    return values


def _cauchy(num: int, like: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "num d"]:
    normal = torch.randn(num, like.shape[1] + 1, generator=generator, dtype=like.dtype, device=like.device)
    return normal[:, 1:] / normal[:, :1].abs()


def _log_cauchy(squared_distance: Tensor, dim: int) -> Tensor:
    """Log-density of the standard Cauchy law, Student's t of one degree of freedom."""
    constant = math.lgamma((dim + 1) / 2) - (dim + 1) / 2 * math.log(math.pi)
    return constant - (dim + 1) / 2 * torch.log1p(squared_distance)
