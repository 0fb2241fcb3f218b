import math

import pytest
import torch
from problems import GAUSSIAN, MIXTURE, Components, MixtureDensity, gauss_hermite

from sbflow.potential import MixturePotential, NaivePotential
from sbflow.process import Cosine, OrnsteinUhlenbeck
from sbflow.target import GaussianMixture, GaussianTarget
from sbflow.whitening import Affine, Laplace, Whitened

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


@pytest.mark.parametrize("scale", [[0.5, 2.0], [[0.5, 0.0], [0.7, 1.5]]], ids=["diagonal", "full"])
def test_the_potential_of_a_target_is_exact_in_whitened_coordinates(scale):
    target = GaussianMixture(MIXTURE.means, MIXTURE.covariances, MIXTURE.weights)
    affine = Affine(double([0.4, -1.0]), double(scale))
    potential = MixturePotential.of(target, affine, PROCESS)
    z = torch.randn(20, 2, dtype=torch.float64)
    naive = NaivePotential(Whitened(target, affine), PROCESS)
    assert torch.allclose(potential.log_g(z, double(0.0)), naive.log_g(z, double(0.0)), rtol=1e-10, atol=1e-10)
    nodes, log_weights = expectation_nodes(2)
    for t in TIMES:
        log_mean = torch.logsumexp(log_weights + potential.log_g(nodes, double(t)), 0)
        assert log_mean.item() == pytest.approx(0.0, abs=1e-5)


def test_a_gaussian_of_many_dimensions_has_the_closed_potential_at_every_time():
    d = 7
    a = torch.randn(d, d, dtype=torch.float64)
    target = GaussianTarget(
        torch.randn(d, dtype=torch.float64), 0.2 * a @ a.T + 0.3 * torch.eye(d, dtype=torch.float64)
    )
    identity = Affine(torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64))
    potential = MixturePotential.of(target, identity, PROCESS)
    z = torch.randn(9, d, dtype=torch.float64)
    for t in TIMES:
        keep = PROCESS.schedule.alpha_bar(double(t))
        covariance = keep * target.covariance + (1 - keep) * torch.eye(d, dtype=torch.float64)
        noised = torch.distributions.MultivariateNormal(keep.sqrt() * target.mean, covariance)
        reference = torch.distributions.Normal(double(0.0), 1.0)
        expected = noised.log_prob(z) - reference.log_prob(z).sum(1)
        assert torch.allclose(potential.log_g(z, double(t)), expected, rtol=1e-9, atol=1e-9)
        gradient = z - torch.linalg.solve(covariance, (z - keep.sqrt() * target.mean).T).T
        assert torch.allclose(potential.log_g_and_grad(z, double(t))[1], gradient, rtol=1e-9, atol=1e-9)


def test_a_whitening_that_fits_a_gaussian_makes_its_potential_flat():
    target = GaussianTarget(double([1.0, -2.0]), double([[1.0, 0.6], [0.6, 0.9]]))
    potential = MixturePotential.of(target, Laplace().fit(target), PROCESS)
    log_g, grad = potential.log_g_and_grad(torch.randn(5, 2, dtype=torch.float64), double(0.3))
    assert log_g.abs().max() < 1e-9 and grad.abs().max() < 1e-9
