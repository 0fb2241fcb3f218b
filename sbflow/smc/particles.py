"""Weighted particles and what is known of the run that made them."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Field", "Particles", "SMCPath", "SamplingError", "effective_sample_size"]


class Field(NamedTuple):
    """Potential at the particles, kept so that each step evaluates it once.

    Attributes:
        log_g: log potential ``[r, n]``, never NaN.
        grad_log_g: its gradient ``[r, n, d]``, zero where it is not a finite number.
        inside: whether the density is positive there, as far as it is known ``[r, n]``.
        nan: whether density or gradient were not a number there, or infinite ``[r, n]``.
    """

    log_g: Float[Tensor, "*batch n"]
    grad_log_g: Float[Tensor, "*batch n d"]
    inside: Bool[Tensor, "*batch n"]
    nan: Bool[Tensor, "*batch n"]

    @classmethod
    def of(cls, log_g: Float[Tensor, "*batch n"], grad: Float[Tensor, "*batch n d"]) -> "Field":
        """Sort out what a density gave: a value that is NaN or +inf counts as outside the support.

        A gradient only directs proposals, which are sound in any direction, but a NaN position would spoil the batch.
        """
        invalid = log_g.isnan() | (log_g == torch.inf)
        inside = ~invalid & (log_g > -torch.inf)
        # a gradient is undefined outside the support, which is no fault of the density; 0 times what is not finite is
        # NaN, and its sum is faster than a test of every number
        usable = (0 * grad).sum(-1) == 0
        return cls(
            torch.where(inside, log_g, -torch.inf),
            torch.where((inside & usable)[..., None], grad, 0.0),
            inside,
            invalid | (inside & ~usable),
        )


class Particles(NamedTuple):
    """r independent sets of n weighted particles.

    Attributes:
        x: positions ``[r, n, d]``.
        field: potential and gradient at x.
        log_weights: normalised log-weights ``[r, n]``, float64; each row's logsumexp is 0.
        log_z: running estimate of log Z ``[r]``, float64.
        ancestors: index of each particle's ancestor in the first generation ``[r, n]``.
        family_changes: change by weighting of the share of weight that the descendants of each particle of the first
            generation hold, summed over the weightings ``[r, n]``, float64.
    """

    x: Float[Tensor, "r n d"]
    field: Field
    log_weights: Float[Tensor, "r n"]
    log_z: Float[Tensor, " r"]
    ancestors: Int[Tensor, "r n"]
    family_changes: Float[Tensor, "r n"]


class SMCPath(NamedTuple):
    """Diagnostics of a run along its k levels; of one level, without the first axis.

    Attributes:
        ess: effective sample size after each weighting ``[k, r]``.
        resampled: whether the step into each level began with resampling ``[k, r]``.
        log_z: running estimate of log Z ``[k, r]``.
        num_nan: particles at which density or gradient were not a number ``[k, r]``.
        acceptance: mean acceptance of the moves that the step into each level began with ``[k, r]``, NaN without moves.
        num_nan_proposals: proposals of these moves at which density or gradient were not a number ``[k, r]``.
        increment_mean: weighted mean of the incremental log-weights ``[k, r]``; their sum over the levels is at most
            ``log_z``.
        increment_variance: weighted variance of the incremental log-weights, those of −inf apart ``[k, r]``.
    """

    ess: Float[Tensor, "*k r"]
    resampled: Bool[Tensor, "*k r"]
    log_z: Float[Tensor, "*k r"]
    num_nan: Int[Tensor, "*k r"]
    acceptance: Float[Tensor, "*k r"]
    num_nan_proposals: Int[Tensor, "*k r"]
    increment_mean: Float[Tensor, "*k r"]
    increment_variance: Float[Tensor, "*k r"]


class SamplingError(FloatingPointError):
    """A run that could not go on, with what it had computed.

    Attributes:
        particles: particles of the last complete level, or None where there is none.
        path: diagnostics up to there, or None.
    """

    def __init__(self, message: str, particles: Particles | None = None, path: SMCPath | None = None) -> None:
        super().__init__(message)
        self.particles = particles
        self.path = path


def effective_sample_size(log_weights: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    r"""Effective sample size of weighted particles, between 1 and n.

    .. math:: \mathrm{ESS} = \Big(\sum_i w_i\Big)^2 \Big/ \sum_i w_i^2

    Args:
        log_weights: need not be normalised; may contain ``-inf`` but not only ``-inf``.

    References:
        Chopin & Papaspiliopoulos, An Introduction to Sequential Monte Carlo, 2020.

    >>> round(effective_sample_size(torch.zeros(8)).item(), 4)
    8.0
    """
    return torch.exp(2 * torch.logsumexp(log_weights, -1) - torch.logsumexp(2 * log_weights, -1))


def relative_variance(family_changes: Float[Tensor, "r n"]) -> Float[Tensor, " r"]:
    r"""Estimate Var(Ẑ)/Z² of each run from its genealogy.

    Particles that descend from one particle of the first generation form a family, and families are close to
    independent. With :math:`D_j` the change of the j-th family's share of weight, summed over the weightings,

    .. math:: \widehat{\mathrm{Var}}(\hat Z) / Z^2 = \frac{n}{n - 1} \sum_j D_j^2.

    Changes of a share by resampling are left out: they cancel between families, and counting them overestimates the
    variance the more the steadier the scheme (threefold at eight resamplings). Without resampling this is the estimate
    of importance sampling, 1/ESS − 1/n. Once few families are left it saturates.

    Args:
        family_changes: D of each run.

    References:
        Chan & Lai, A general theory of particle filters in hidden Markov models and some applications, 2013, whose
        estimator subtracts the resampling noise so; Lee & Whiteley, Variance estimation in the particle filter, 2018.
    """
    n = family_changes.shape[-1]
    return family_changes.square().sum(-1) * (n / max(n - 1, 1))


def log_mean_exp(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Logarithm of the mean of exponentials over the last axis."""
    return torch.logsumexp(x, -1) - math.log(x.shape[-1])
