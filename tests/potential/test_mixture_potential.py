import math

import pytest
import torch
from problems import GAUSSIAN, MIXTURE, Components, MixtureDensity, gauss_hermite

from sbflow.potential import MixturePotential
from sbflow.process import Cosine, OrnsteinUhlenbeck

PROCESS = OrnsteinUhlenbeck(Cosine(floor=1e-3))
TIMES = [0.0, 0.05, 0.4, 0.8, 1.0]
LINE = Components(
    torch.tensor([[0.9], [-0.6]], dtype=torch.float64),
    torch.tensor([[[0.3]], [[0.7]]], dtype=torch.float64),
    torch.tensor([0.25, 0.75], dtype=torch.float64),
    0.8,
)
PROBLEMS = {"line": LINE, "gaussian": GAUSSIAN, "mixture": MIXTURE}
every_problem = pytest.mark.parametrize("components", PROBLEMS.values(), ids=PROBLEMS)
double = lambda value: torch.tensor(value, dtype=torch.float64)  # noqa: E731


def exact(components: Components) -> MixturePotential:
    return MixturePotential(*components[:3], PROCESS, components.log_z)


def log_g0(components: Components, z: torch.Tensor) -> torch.Tensor:
    reference = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    return MixtureDensity(components).log_prob(z) - reference


def expectation_nodes(dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes ``[m, dim]`` and log-weights ``[m]`` of the expectation under N(0, I)."""
    nodes, weights = gauss_hermite(80)
    grid = torch.cartesian_prod(*[nodes] * dim).reshape(-1, dim)
    return grid, torch.cartesian_prod(*[weights.log()] * dim).reshape(-1, dim).sum(-1)


@every_problem
def test_at_time_zero_it_is_the_ratio_of_density_and_reference(components):
    z = torch.randn(20, components.means.shape[1], dtype=torch.float64)
    assert torch.allclose(exact(components).log_g(z, double(0.0)), log_g0(components, z), rtol=1e-12, atol=1e-12)


@every_problem
@pytest.mark.parametrize("t", TIMES)
def test_it_is_the_expected_initial_potential_by_quadrature(components, t):
    z = torch.randn(6, components.means.shape[1], dtype=torch.float64)
    nodes, log_weights = expectation_nodes(z.shape[1])
    keep = PROCESS.schedule.alpha_bar(double(t))
    z0 = keep.sqrt() * z[:, None] + (1 - keep).sqrt() * nodes
    quadrature = torch.logsumexp(log_weights + log_g0(components, z0.flatten(0, 1)).reshape(z0.shape[:2]), -1)
    assert torch.allclose(exact(components).log_g(z, double(t)), quadrature, rtol=1e-8, atol=1e-8)


@every_problem
@pytest.mark.parametrize("t", TIMES)
def test_its_mean_under_the_reference_is_the_normalising_constant_at_every_time(components, t):
    nodes, log_weights = expectation_nodes(components.means.shape[1])
    log_mean = torch.logsumexp(log_weights + exact(components).log_g(nodes, double(t)), 0)
    assert log_mean.item() == pytest.approx(components.log_z, abs=1e-6)


@every_problem
def test_the_gradient_is_that_of_the_value_with_one_time_per_particle(components):
    t = double(TIMES)
    z = torch.randn(len(t), components.means.shape[1], dtype=torch.float64, requires_grad=True)
    potential = exact(components)
    log_g, grad = potential.log_g_and_grad(z.detach(), t)
    (expected,) = torch.autograd.grad(potential.log_g(z, t).sum(), z)
    assert torch.allclose(grad, expected, rtol=1e-12)
    singly = torch.cat([potential.log_g(z[i : i + 1], t[i]) for i in range(len(t))])
    assert torch.allclose(log_g, singly, rtol=1e-12)


def test_with_all_signal_gone_it_is_the_normalising_constant_everywhere():
    process = OrnsteinUhlenbeck(Cosine(floor=1e-12))
    potential = MixturePotential(*MIXTURE[:3], process, MIXTURE.log_z)
    log_g = potential.log_g(torch.randn(10, 2, dtype=torch.float64), double(1.0))
    assert log_g.tolist() == pytest.approx([MIXTURE.log_z] * 10, abs=1e-4)
    assert not math.isclose(log_g[0].item(), 0.0, abs_tol=1e-2)
