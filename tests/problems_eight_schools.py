"""Eight schools (Rubin 1981), non-centred: μ ~ N(0, 5), τ ~ half-Cauchy(5), θ_j = μ + τ η_j, y_j ~ N(θ_j, σ_j).

Written as a user would, as a plain function of named parameters, with its moments by quadrature.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import HalfCauchy, Normal

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=torch.float64)
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=torch.float64)
PARAMETERS = {"mu": "real", "tau": "positive", "eta": "real[8]"}
# posteriordb, eight_schools-eight_schools_noncentered: means of its reference draws, and their standard deviations
PUBLISHED = {"mu": (4.4, 3.3), "tau": (3.6, 3.2)}


class Exact(NamedTuple):
    """Log evidence, posterior means and standard deviations of μ and τ."""

    log_z: float
    mean_mu: float
    mean_tau: float
    std_mu: float
    std_tau: float


def log_prob(p: dict[str, Tensor]) -> Tensor:
    """Joint log density of data and parameters, of one point or many."""
    mu, tau, eta = p["mu"], p["tau"], p["eta"]
    theta = mu[..., None] + tau[..., None] * eta
    prior = Normal(0.0, 5.0).log_prob(mu) + HalfCauchy(5.0).log_prob(tau) + Normal(0.0, 1.0).log_prob(eta).sum(-1)
    return prior + Normal(theta, ERRORS).log_prob(EFFECTS).sum(-1)


def exact() -> Exact:
    """By summation over τ: given τ, the effects and μ are jointly Gaussian and integrate out in closed form."""
    angle = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 * (math.pi / 2)
    # τ = 5 tan(angle) is half-Cauchy(5) for a uniform angle: the heavy tail is cut nowhere
    tau = 5 * torch.tan(angle)
    variance = ERRORS**2 + tau[:, None] ** 2
    precision = (1 / variance).sum(1) + 1 / 25
    mean_mu = (EFFECTS / variance).sum(1) / precision
    log_likelihood = -0.5 * (variance.log() + math.log(2 * math.pi)).sum(1) - 0.5 * (25 * precision).log()
    log_likelihood = log_likelihood - 0.5 * (EFFECTS**2 / variance).sum(1) + 0.5 * mean_mu**2 * precision
    weights = log_likelihood.softmax(0)
    second_mu = (weights * (mean_mu**2 + 1 / precision)).sum()
    mu, second_tau, first_tau = (weights * mean_mu).sum(), (weights * tau**2).sum(), (weights * tau).sum()
    return Exact(
        log_z=(log_likelihood.logsumexp(0) - math.log(len(tau))).item(),
        mean_mu=mu.item(),
        mean_tau=first_tau.item(),
        std_mu=(second_mu - mu**2).sqrt().item(),
        std_tau=(second_tau - first_tau**2).sqrt().item(),
    )
