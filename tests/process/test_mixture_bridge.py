"""The mixture plan against quadrature, autograd and simulation."""

import pytest
import torch
from assertions import assert_mean_close

from sbflow.process import Brownian, GaussianBridge, MixtureBridge

LOG_WEIGHTS = torch.tensor([0.2, 0.7, 0.1]).double().log() + 3.0
MEANS = torch.tensor([[1.5, 0.5], [-2.0, 0.3], [0.1, -1.0]]).double()
COVARIANCES = torch.tensor([[[0.6, 0.3], [0.3, 0.5]], [[0.4, -0.2], [-0.2, 0.9]], [[0.2, 0.0], [0.0, 0.2]]]).double()
EPSILON = 0.8


@pytest.fixture
def bridge() -> MixtureBridge:
    return MixtureBridge(LOG_WEIGHTS, MEANS, COVARIANCES, EPSILON)


def grid() -> tuple[torch.Tensor, float]:
    axis = torch.linspace(-8, 8, 321, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), (axis[1] - axis[0]).item() ** 2


def plan_density(x: torch.Tensor) -> torch.Tensor:
    """v(y) exp(−‖y − x‖² / 2ε) / (2πε) on the grid, by `torch.distributions` alone."""
    y, _ = grid()
    laws = torch.distributions.MultivariateNormal(MEANS, COVARIANCES)
    potential = (LOG_WEIGHTS + laws.log_prob(y[:, None])).logsumexp(1)
    heat = torch.distributions.MultivariateNormal(x, EPSILON * torch.eye(2).double())
    return (potential + heat.log_prob(y)).exp()


@pytest.mark.parametrize("x", [[0.0, 0.0], [1.0, -2.0]])
def test_the_plan_integrates_to_the_heat_flow_of_the_potential(bridge, x):
    x = torch.tensor(x).double()
    y, cell = grid()
    density = plan_density(x)
    total = density.sum() * cell
    assert total.log() == pytest.approx(bridge.log_potential(x[None], 0.0).item(), abs=1e-8)
    mean, covariance = (moment[0] for moment in bridge.conditional_moments(x[None]))
    share = density * cell / total
    assert torch.allclose(share @ y, mean, atol=1e-8)
    assert torch.allclose((y - mean).T * share @ (y - mean), covariance, atol=1e-8)


def test_the_drift_climbs_the_log_potential(bridge):
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    for t in (0.0, 0.4, 1.0):
        (gradient,) = torch.autograd.grad(bridge.log_potential(x, t).sum(), x)
        assert torch.allclose(bridge.drift(x.detach(), t), EPSILON * gradient, atol=1e-10)


def test_samples_have_the_conditional_moments(bridge):
    x = torch.tensor([[0.4, -0.3]]).double()
    mean, covariance = bridge.conditional_moments(x)
    y = bridge.sample(x.expand(40_000, 2), torch.Generator().manual_seed(0))
    assert_mean_close(y, mean[0])
    assert_mean_close((y - mean)[:, :, None] * (y - mean)[:, None], covariance[0])


def test_simulating_the_drift_reproduces_the_plan(bridge):
    n, steps = 20_000, 100
    generator = torch.Generator().manual_seed(3)
    start = torch.tensor([0.4, -0.3]).double()
    x = start.expand(n, 2)
    for k in range(steps):
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        x = x + bridge.drift(x, k / steps) / steps + Brownian(EPSILON).diffusion(x.new_ones(())) * noise / steps**0.5
    mean, covariance = bridge.conditional_moments(start[None])
    centred = x - mean
    # Euler–Maruyama is off by about 1 / steps
    assert (centred.mean(0).abs() < 5 * x.std(0) / n**0.5 + 1 / steps).all()
    products = centred[:, :, None] * centred[:, None]
    assert ((products.mean(0) - covariance[0]).abs() < 5 * products.std(0) / n**0.5 + 3 / steps).all()


def test_one_component_is_a_gaussian_bridge():
    """A Gaussian potential makes a Gaussian plan; with its two ends the Gaussian closed form must give it back."""
    bridge = MixtureBridge(LOG_WEIGHTS[:1], MEANS[:1], COVARIANCES[:1], EPSILON)
    cov0 = torch.tensor([[1.2, 0.4], [0.4, 0.7]]).double()
    (mean,), (conditional,) = bridge.conditional_moments(torch.zeros(1, 2).double())
    gain = conditional / EPSILON
    gaussian = GaussianBridge(torch.zeros(2).double(), mean, cov0, gain @ cov0 @ gain + conditional, EPSILON)
    x = torch.randn(4, 2, dtype=torch.float64)
    assert torch.allclose(gaussian.gain, gain, atol=1e-10)
    for t in (0.0, 0.6):
        assert torch.allclose(gaussian.drift(x, t), bridge.drift(x, t), atol=1e-9)


@pytest.mark.parametrize(
    ("epsilon", "covariances", "message"),
    [
        (0.0, COVARIANCES, "epsilon must be positive and finite, got 0.0"),
        (1.0, -COVARIANCES, "covariances must be symmetric and positive definite"),
    ],
)
def test_impossible_potentials_are_refused(epsilon, covariances, message):
    with pytest.raises(ValueError, match=message):
        MixtureBridge(LOG_WEIGHTS, MEANS, covariances, epsilon)
