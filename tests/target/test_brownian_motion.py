import math

import pytest
import torch
from torch import Tensor
from torch.distributions import LogNormal, MultivariateNormal, Normal
from torch.nn.functional import softplus

from sbflow.target import Brownian, BrownianMotion
from sbflow.target.dataset import data_root

SERIES = torch.tensor([0.3, math.nan, -0.2, 0.5], dtype=torch.float64)
needs_data = pytest.mark.skipif(not (data_root() / "bayes").is_dir(), reason="no data sets: set SBFLOW_DATA")


def log_prior_of_scale(u: Tensor) -> Tensor:
    """Density of u where softplus(u) ~ LogNormal(0, 2²)."""
    zero, two = torch.zeros((), dtype=u.dtype), torch.full((), 2.0, dtype=u.dtype)
    return LogNormal(zero, two).log_prob(softplus(u)) + torch.sigmoid(u).log()


def evidence_by_quadrature(series: Tensor, low: float, high: float, size: int) -> float:
    """log p(y): the path is Gaussian given the scales and integrates out, the scales are summed over a grid."""
    observed = ~series.isnan()
    times = torch.arange(1, len(series) + 1, dtype=torch.float64)[observed]
    eigenvalues, basis = torch.linalg.eigh(torch.minimum(times[:, None], times))
    u = torch.linspace(low, high, size, dtype=torch.float64)
    scales = softplus(u).square()
    variances = scales[:, None, None] * eigenvalues + scales[:, None]
    squares = (basis.T @ series[observed]).square() / variances
    log_likelihood = -0.5 * (squares + variances.log() + math.log(2 * math.pi)).sum(2)
    log_joint = log_likelihood + log_prior_of_scale(u)[:, None] + log_prior_of_scale(u)
    return log_joint.flatten().logsumexp(0).item() + 2 * math.log((high - low) / (size - 1))


def test_log_prob_is_prior_of_scales_times_random_walk_times_likelihood() -> None:
    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (a, b), path = softplus(x[:, :2]).T, x[:, 2:]
    before = torch.cat([torch.zeros(6, 1).double(), path[:, :-1]], dim=1)
    walk = Normal(before, a[:, None]).log_prob(path).sum(1)
    observed = ~SERIES.isnan()
    likelihood = Normal(path[:, observed], b[:, None]).log_prob(SERIES[observed]).sum(1)
    expected = log_prior_of_scale(x[:, :2]).sum(1) + walk + likelihood
    torch.testing.assert_close(BrownianMotion(SERIES).log_prob(x), expected, rtol=1e-12, atol=1e-12)


def test_the_path_integrates_out_to_the_marginal_density_of_the_data() -> None:
    target, scales = BrownianMotion(SERIES), torch.tensor([0.3, -0.8], dtype=torch.float64)

    def log_prob_of_path(path: Tensor) -> Tensor:
        return target.log_prob(torch.cat([scales, path])[None])[0]

    # a quadratic in the path: its integral follows from its maximum and its curvature
    zero = torch.zeros(4, dtype=torch.float64)
    curvature = -torch.func.hessian(log_prob_of_path)(zero)
    mode = torch.linalg.solve(curvature, torch.func.grad(log_prob_of_path)(zero))
    integral = log_prob_of_path(mode) + 2 * math.log(2 * math.pi) - 0.5 * torch.logdet(curvature)
    a, b = softplus(scales)
    observed = ~SERIES.isnan()
    times = torch.tensor([1.0, 3.0, 4.0], dtype=torch.float64)
    covariance = a**2 * torch.minimum(times[:, None], times) + b**2 * torch.eye(3).double()
    marginal = MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(SERIES[observed])
    torch.testing.assert_close(integral, marginal + log_prior_of_scale(scales).sum(), rtol=1e-10, atol=1e-10)


@needs_data
def test_log_z_of_the_series_is_that_of_quadrature() -> None:
    target = Brownian().double()
    series = torch.where(target.observed.bool(), target.observations, torch.nan)
    assert target.dim == 32 and int(target.observed.sum()) == 20 and not target.observed[10:20].any()
    coarse, fine = (evidence_by_quadrature(series, -20.0, 12.0, size) for size in (301, 401))
    assert coarse == pytest.approx(fine, abs=1e-9)
    # the data are rounded to float32 on the way in
    assert target.log_normalizer == pytest.approx(fine, abs=2e-6)


def test_bad_observations_are_named() -> None:
    for bad in ([math.nan, math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match="observations must be numbers, NaN where missing"):
            BrownianMotion(torch.tensor(bad))
