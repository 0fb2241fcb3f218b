import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Poisson

from sbflow.target import LGCP, LogGaussianCoxProcess
from sbflow.target.dataset import data_root

POINTS = torch.tensor([[0.1, 0.2], [0.1, 0.3], [0.9, 0.1], [1.0, 1.0], [0.4, 0.6]], dtype=torch.float64)


def test_log_prob_is_poisson_likelihood_times_gaussian_prior() -> None:
    target = LogGaussianCoxProcess(POINTS, grid_size=3)
    counts = torch.tensor([2, 0, 0, 0, 1, 0, 1, 0, 1], dtype=torch.float64)
    assert torch.equal(target.counts, counts)
    f = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = torch.tensor([[i, j] for i in range(3) for j in range(3)], dtype=torch.float64)
    distances = (cells[:, None] - cells).square().sum(-1).sqrt()
    covariance = 1.91 * (-distances / (3 / 33)).exp()
    mean = torch.full((9,), math.log(5) - 1.91 / 2, dtype=torch.float64)
    constant = (torch.lgamma(counts + 1) + counts * math.log(9)).sum()
    likelihood = Poisson(f.exp() / 9).log_prob(counts).sum(1) + constant
    expected = likelihood + MultivariateNormal(mean, covariance).log_prob(f)
    torch.testing.assert_close(target.log_prob(f), expected, rtol=1e-10, atol=1e-10)


def test_evidence_of_one_cell_is_the_one_dimensional_integral() -> None:
    target = LogGaussianCoxProcess(POINTS, grid_size=1)
    f = torch.linspace(-14, 14, 2801, dtype=torch.float64)[:, None]
    log_z = target.log_prob(f).logsumexp(0).item() + math.log(0.01)
    nodes, weights = torch.linspace(-12, 12, 2401, dtype=torch.float64), 0.01
    prior = (-0.5 * nodes**2).exp() / math.sqrt(2 * math.pi)
    intensity = (math.log(5) - 1.91 / 2 + math.sqrt(1.91) * nodes).exp()
    expected = (prior * intensity**5 * (-intensity).exp()).sum().log().item() + math.log(weights)
    assert log_z == pytest.approx(expected, abs=1e-10)


@pytest.mark.skipif(not (data_root() / "bayes").is_dir(), reason="no data sets: set SBFLOW_DATA")
def test_the_pines_have_126_points_and_the_density_of_the_paper_at_its_mean() -> None:
    target = LGCP()
    assert target.dim == 1600 and target.counts.sum() == 126
    # at f = μ the prior is its normaliser alone: −½ log |2π K|
    mean = math.log(126) - 1.91 / 2
    counts = target.counts.double()
    likelihood = (counts * mean).sum() - math.exp(mean)
    value = target.double().log_prob(torch.full((1, 1600), mean, dtype=torch.float64)).item()
    log_det = -torch.linalg.slogdet(target.precision).logabsdet.item()
    prior = -0.5 * (log_det + 1600 * math.log(2 * math.pi))
    # constants in float32 at construction
    assert value == pytest.approx(likelihood.item() + prior, abs=1e-2)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="grid_size must be at least 1, got 0"):
        LogGaussianCoxProcess(POINTS, grid_size=0)
    with pytest.raises(ValueError, match="points must lie in the unit square"):
        LogGaussianCoxProcess(POINTS + 1)
