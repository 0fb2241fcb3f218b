"""Weighted particles and what is known of the run that made them."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Field", "Particles", "SMCPath", "effective_sample_size"]


class Field(NamedTuple):
    """Potential at the particles, kept so that each step evaluates it once.

    Attributes:
        log_g: log potential ``[r, n]``.
        grad_log_g: its gradient ``[r, n, d]``.
    """

    log_g: Float[Tensor, "*batch n"]
    grad_log_g: Float[Tensor, "*batch n d"]


class Particles(NamedTuple):
    """r independent sets of n weighted particles.

    Attributes:
        x: positions ``[r, n, d]``.
        field: potential and gradient at x.
        log_weights: normalised log-weights ``[r, n]``, float64; each row's logsumexp is 0.
        log_z: running estimate of log Z ``[r]``, float64.
        ancestors: index of each particle's ancestor in the first generation ``[r, n]``.
    """

    x: Float[Tensor, "r n d"]
    field: Field
    log_weights: Float[Tensor, "r n"]
    log_z: Float[Tensor, " r"]
    ancestors: Int[Tensor, "r n"]


class SMCPath(NamedTuple):
    """Diagnostics of a run along its k times.

    Attributes:
        ess: effective sample size after each weighting ``[k, r]``.
        resampled: whether the step into each time began with resampling ``[k, r]``.
        log_z: running estimate of log Z ``[k, r]``.
        num_nan: particles whose weight was NaN ``[k, r]``.
    """

    ess: Float[Tensor, "k r"]
    resampled: Bool[Tensor, "k r"]
    log_z: Float[Tensor, "k r"]
    num_nan: Int[Tensor, "k r"]


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


def relative_variance(log_weights: Float[Tensor, "r n"], ancestors: Int[Tensor, "r n"]) -> Float[Tensor, " r"]:
    """Estimate Var(Ẑ)/Z² of each run from its genealogy.

    The weight of each first-generation family is summed; the spread of these sums estimates the variance. Without
    resampling this is the importance-sampling estimate 1/ESS − 1/n. Once few ancestors are left it saturates towards
    1 and means only "large".

    Args:
        log_weights: normalised final log-weights.
        ancestors: first-generation ancestor of each final particle.

    References:
        Chan & Lai 2013; Lee & Whiteley 2018; Olsson & Douc 2019.
    """
    n = log_weights.shape[-1]
    families = torch.zeros_like(log_weights).scatter_add_(-1, ancestors, log_weights.exp())
    return ((families - 1 / n) ** 2).sum(-1) * (n / max(n - 1, 1))


def log_mean_exp(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Logarithm of the mean of exponentials over the last axis."""
    return torch.logsumexp(x, -1) - math.log(x.shape[-1])
