"""The potential of a product of powers, against quadrature and closed forms."""

import math

import pytest
import torch
from problems import GAUSSIAN, MIXTURE, MixtureDensity, gauss_hermite

from sbflow.potential import GeometricPotential, MixturePotential, NaivePotential, Potential, StandardisedPotential
from sbflow.process import Cosine, OrnsteinUhlenbeck
from sbflow.target.geometric import GeometricTarget
from sbflow.whitening import Affine, Whitened

PROCESS = OrnsteinUhlenbeck(Cosine(floor=1e-3))
FACTORS = [MixturePotential(*problem[:3], PROCESS, problem.log_z) for problem in (GAUSSIAN, MIXTURE)]
T = torch.tensor(0.4, dtype=torch.float64)


def points(n: int = 7) -> torch.Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_one_factor_to_the_power_of_one_is_that_factor_bit_by_bit():
    product = GeometricPotential(FACTORS[1:], [1.0])
    for potential in (product, StandardisedPotential(product)):
        for found, expected in zip(
            potential.log_g_and_grad(points(), T), FACTORS[1].log_g_and_grad(points(), T), strict=True
        ):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("exponents", [(0.7, 1.6), (-0.5, 1.5)])
def test_value_and_gradient_are_the_weighted_sums_and_belong_together(exponents):
    product = GeometricPotential(FACTORS, exponents)
    expected = sum(a * factor.log_g(points(), T) for a, factor in zip(exponents, FACTORS, strict=True))
    assert torch.allclose(product.log_g(points(), T), expected, rtol=1e-12)
    for potential in (product, StandardisedPotential(product, 0.8)):
        value, grad = potential.log_g_and_grad(points(), T)
        automatic = Potential.log_g_and_grad(potential, points(), T)
        assert torch.allclose(value, automatic[0], rtol=1e-12) and torch.allclose(grad, automatic[1], rtol=1e-10)


@pytest.mark.parametrize("exponents", [(2.0, 1.5), (0.3, 0.2), (-0.4, 1.4)])
def test_standardised_it_is_the_initial_potential_of_the_product_in_the_narrower_whitening(exponents):
    affine = Affine(*(torch.tensor(v, dtype=torch.float64) for v in ([0.4, -1.0], [[0.5, 0.0], [0.7, 1.5]])))
    densities = [MixtureDensity(problem) for problem in (GAUSSIAN, MIXTURE)]
    parts = [NaivePotential(Whitened(density, affine), PROCESS) for density in densities]
    narrow = Affine(affine.loc, affine.scale / sum(exponents) ** 0.5)
    expected = NaivePotential(Whitened(GeometricTarget(densities, exponents), narrow), PROCESS)
    found = StandardisedPotential(GeometricPotential(parts, exponents), affine.log_det)
    zero = torch.zeros((), dtype=torch.float64)
    for one, other in zip(found.log_g_and_grad(points(), zero), expected.log_g_and_grad(points(), zero), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("power", [0.5, 3.0])
def test_a_power_of_a_gaussian_has_its_normalising_constant_at_every_time(power):
    """Noised by N(0, I / A), the power of a Gaussian is the power of the noised Gaussian, up to a function of t."""
    potential = StandardisedPotential(GeometricPotential(FACTORS[:1], [power]))
    covariance = GAUSSIAN.covariances[0]
    exact = power * GAUSSIAN.log_z + 0.5 * (
        (1 - power) * torch.linalg.slogdet(2 * math.pi * covariance)[1] - 2 * math.log(power)
    )
    nodes, weights = gauss_hermite(80)
    grid, log_weights = torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights.log(), weights.log()).sum(1)
    mean = torch.logsumexp(log_weights + potential.log_g(grid, torch.zeros((), dtype=torch.float64)), 0)
    assert float(mean) == pytest.approx(float(exact), abs=1e-6)


class Half(Potential):
    """Zero on the left."""

    def log_g(self, z, t):
        return torch.where(z[:, 0] < 0, -torch.inf, z[:, 1])


@pytest.mark.parametrize("exponents", [(1.0, 1.0), (1.5, -0.5), (0.5, 2.0)])
def test_a_product_is_zero_where_a_factor_is_whatever_it_is_divided_by(exponents):
    both = GeometricPotential([Half(), Half()], exponents)
    z = points()
    assert torch.equal(both.log_g(z, T) == -torch.inf, z[:, 0] < 0)
    density = GeometricTarget([MixtureDensity(GAUSSIAN), MixtureDensity(MIXTURE)], exponents)
    assert not density.log_prob(z).isnan().any()


@pytest.mark.parametrize(
    "exponents", [(1.0,), (1.0, 0.0), (1.0, -1.0), (0.5, -2.0), (math.inf, 1.0), (math.nan, 1.0), ()]
)
def test_exponents_that_make_no_density_are_refused(exponents):
    with pytest.raises(ValueError, match="exponents must"):
        GeometricPotential(FACTORS, exponents)


def test_targets_of_different_dimension_are_refused():
    line = MixtureDensity(GAUSSIAN)
    line.dim = 1
    with pytest.raises(ValueError, match=r"same dimension, got \[1, 2\]"):
        GeometricTarget([line, MixtureDensity(GAUSSIAN)], [1.0, 1.0])


def test_the_score_of_a_geometric_target_is_its_gradient():
    density = GeometricTarget([MixtureDensity(GAUSSIAN), MixtureDensity(MIXTURE)], [2.0, -0.7])
    x = points().requires_grad_()
    (expected,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    assert torch.allclose(density.score(x.detach()), expected, rtol=1e-10)
