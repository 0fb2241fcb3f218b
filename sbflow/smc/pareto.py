"""How heavy the tail of a set of weights is."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["pareto_k"]

MIN_TAIL = 5
# strength and centre of the prior on k, as Vehtari et al.
PRIOR_COUNT, PRIOR_K = 10, 0.5


def pareto_k(log_weights: Float[Tensor, " n"]) -> float:
    """Shape k of the generalised Pareto law fitted to the largest weights.

    Moments of the weights exist up to order 1/k: below 0.5 their variance is finite, above 0.7 means that are taken
    with them are not to be trusted at any practical number of draws.

    Args:
        log_weights: need not be normalised; those of minus infinity are left out.

    Returns:
        k; minus infinity where the largest weights are equal to within a tenth, NaN for fewer than 25 weights.

    References:
        Vehtari, Simpson, Gelman, Yao & Gabry, Pareto smoothed importance sampling, 2024.
        Zhang & Stephens, A new and efficient estimation method for the generalized Pareto distribution, 2009.
    """
    ordered = log_weights[log_weights > -torch.inf].double().sort().values
    num_tail = math.ceil(min(0.2 * len(ordered), 3 * math.sqrt(len(ordered))))
    if num_tail < MIN_TAIL:
        return math.nan
    weights = torch.exp(ordered[-num_tail - 1 :] - ordered[-1])
    excess = weights[1:] - weights[0]
    # nothing hangs on the shape of so short a tail, which may be that of rounding errors
    if excess[-1] < 0.1 or excess[_quartile(num_tail)] <= 0:
        return -math.inf
    return (num_tail * _shape(excess) + PRIOR_COUNT * PRIOR_K) / (num_tail + PRIOR_COUNT)


def _quartile(n: int) -> int:
    return int(n / 4 + 0.5) - 1


def _shape(excess: Float[Tensor, " n"]) -> float:
    """Posterior mean of Zhang and Stephens over a grid of b = −k/scale, for ordered excesses."""
    n = len(excess)
    num_grid = 30 + int(math.sqrt(n))
    points = torch.arange(1, num_grid + 1, dtype=torch.float64, device=excess.device) - 0.5
    b = 1 / excess[-1] + (1 - (num_grid / points).sqrt()) / (3 * excess[_quartile(n)])
    k = torch.log1p(-b[:, None] * excess).mean(1)
    log_likelihood = n * ((-b / k).log() - k - 1)
    b_mean = (log_likelihood.softmax(0) * b).sum()
    return torch.log1p(-b_mean * excess).mean().item()
