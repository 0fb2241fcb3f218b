"""The Gaussian bridge against the joint Gaussian law that it must be; asymmetric and correlated."""

import pytest
import torch
from assertions import assert_mean_close
from problems import GaussianCoupling, path_moments, projected_drift

from sbflow.process import Brownian, GaussianBridge

EPSILON = 0.7


def covariance(d: int, seed: int) -> torch.Tensor:
    root = torch.randn(d, 2 * d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / (2 * d)


@pytest.fixture
def bridge() -> GaussianBridge:
    mean0, mean1 = torch.tensor([[0.3, -0.2, 1.0], [-0.5, 0.4, 2.0]]).double()
    return GaussianBridge(mean0, mean1, covariance(3, 0), 2.5 * covariance(3, 1), EPSILON)


@pytest.fixture
def coupling(bridge) -> GaussianCoupling:
    return GaussianCoupling(bridge.mean0, bridge.mean1, bridge.cov0, bridge.cov1, bridge.cross)


def test_the_gain_is_symmetric_and_solves_the_riccati_equation(bridge):
    k = bridge.gain
    assert torch.linalg.eigvalsh(k)[0] > 0 and not torch.allclose(k, k.diagonal().diag())
    assert torch.allclose(k @ bridge.cov0 @ k + EPSILON * k, bridge.cov1, atol=1e-10)
    assert torch.allclose(bridge.cov0 @ k, bridge.cross, atol=1e-10)


def test_marginals_and_drift_are_those_of_the_projected_coupling(bridge, coupling):
    x = torch.randn(5, 3, dtype=torch.float64)
    for t in (0.0, 0.3, 0.8, 1.0):
        times = torch.full((5,), t, dtype=torch.float64)
        mean, covariance = bridge.marginal(t)
        expected = path_moments(coupling, EPSILON, times)
        assert torch.allclose(mean, expected[0][0], atol=1e-10) and torch.allclose(
            covariance, expected[1][0], atol=1e-10
        )
        assert torch.allclose(bridge.drift(x, t), projected_drift(coupling, EPSILON, x, times), atol=1e-9)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_both_drifts_add_up_to_epsilon_times_the_score(bridge, t):
    x = torch.randn(5, 3, dtype=torch.float64)
    mean, covariance = bridge.marginal(t)
    score = -torch.linalg.solve(covariance, (x - mean).T).T
    assert torch.allclose(bridge.drift(x, t) + bridge.reversed().drift(x, 1 - t), EPSILON * score, atol=1e-9)


def test_samples_have_the_conditional_moments_and_keep_the_dtype(bridge):
    x = torch.tensor([[1.0, -1.0, 0.5]]).double().expand(40_000, 3)
    y = bridge.sample(x, torch.Generator().manual_seed(1))
    assert_mean_close(y, bridge.conditional_mean(x[:1])[0])
    centred = y - bridge.conditional_mean(x)
    assert_mean_close(centred[:, :, None] * centred[:, None], EPSILON * bridge.gain)
    assert bridge.sample(x[:2].float()).dtype == bridge.drift(x[:2].float(), 0.5).dtype == torch.float32


def test_simulating_the_drift_reproduces_the_coupling(bridge):
    generator = torch.Generator().manual_seed(2)
    steps, n = 200, 20_000
    x0 = bridge.mean0 + torch.randn(n, 3, generator=generator).double() @ torch.linalg.cholesky(bridge.cov0).T
    x = x0
    for k in range(steps):
        x = x + bridge.drift(x, k / steps) / steps
        x = x + Brownian(EPSILON).diffusion(x.new_ones(())) / steps**0.5 * torch.randn(n, 3, generator=generator)
    products = (x0 - bridge.mean0)[:, :, None] * (x - bridge.mean1)[:, None]
    error = products.mean(0) - bridge.cross
    # the discretisation adds about 1 / steps of the variances
    assert (error.abs() < 5 * products.std(0) / n**0.5 + 2 / steps).all()


@pytest.mark.parametrize(
    ("cov0", "epsilon", "message"),
    [
        (torch.eye(2), -1.0, "epsilon must be at least 0"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 1.0, "cov0 must be symmetric and positive definite"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), 1.0, "cov0 must be symmetric and positive definite"),
    ],
)
def test_impossible_bridges_are_refused(cov0, epsilon, message):
    with pytest.raises(ValueError, match=message):
        GaussianBridge(torch.zeros(2), torch.zeros(2), cov0, torch.eye(2), epsilon)
