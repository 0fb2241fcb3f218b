"""The corrected densities of mixtures against quadrature: weights of the modes and normalising constants."""

import math

import pytest
import torch
from assertions import assert_mean_close

from sbflow import smc
from sbflow.integrator.flow import flow_from_score
from sbflow.potential import GeometricPotential, MixturePotential, StandardisedPotential
from sbflow.process import Cosine, OrnsteinUhlenbeck, uniform_times

PROCESS = OrnsteinUhlenbeck(Cosine(floor=math.exp(-8)))
SIDE = torch.linspace(-6, 6, 601, dtype=torch.float64)
GRID = torch.cartesian_prod(SIDE, SIDE)
pytestmark = pytest.mark.slow


def mixture(means, variances, weights) -> MixturePotential:
    eye = torch.eye(len(means[0]), dtype=torch.float64)
    covariances = torch.stack([v * eye for v in variances])
    return MixturePotential(
        torch.tensor(means, dtype=torch.float64), covariances, torch.tensor(weights, dtype=torch.float64), PROCESS
    )


MODES = [[2.0, 0.0], [-2.0, 0.5], [0.0, -2.0]]
MIXTURE = mixture(MODES, [0.15, 0.4, 0.1], [0.5, 0.3, 0.2])
PAIR = [
    mixture([[1.5, 0.0], [-1.5, 0.0]], [0.3, 0.3], [0.5, 0.5]),
    mixture([[1.5, 0.8], [-1.0, -1.2]], [0.5, 0.6], [0.4, 0.6]),
]
GUIDED = [mixture(MODES, [0.3] * 3, [1 / 3] * 3), mixture([[1.6, 0.3], [-0.2, -1.6]], [0.25, 0.3], [0.7, 0.3])]


def nearest(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.cdist(x, torch.tensor(MODES, dtype=torch.float64)).argmin(1), 3).double()


def quadrature(potentials, exponents) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Log Z, weights of the modes and mean of the product."""
    log_p = GeometricPotential(potentials, exponents).log_g(GRID, torch.zeros((), dtype=torch.float64))
    log_p = log_p - sum(exponents) * (0.5 * GRID.square().sum(1) + math.log(2 * math.pi))
    w = log_p.softmax(0)
    return float(log_p.logsumexp(0) + 2 * (SIDE[1] - SIDE[0]).log()), w @ nearest(GRID), w @ GRID


def sampled(potentials, exponents, num_steps: int, replicates: int = 12, n: int = 2000, **options):
    potential = StandardisedPotential(GeometricPotential(potentials, exponents))
    kernel = smc.GuidedDenoising(PROCESS, potential, "lambda", **options)
    like = torch.empty(replicates, n, potentials[0].means.shape[1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    particles, path = smc.sample(kernel, like, uniform_times(num_steps).flip(0), generator=generator)
    return particles._replace(x=particles.x / sum(exponents) ** 0.5), path


def averages(particles: smc.Particles) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of the modes and mean, averaged over the runs."""
    w = particles.log_weights.exp()[..., None]
    share = nearest(particles.x.flatten(0, 1)).unflatten(0, particles.x.shape[:2])
    return (w * share).sum(1).mean(0), (w * particles.x).sum(1).mean(0)


def gaussian_constant(power: float, variance: float, d: int) -> float:
    return 0.5 * d * ((1 - power) * math.log(2 * math.pi * variance) - math.log(power))


GAUSS = mixture([[0.4] * 5], [0.4], [1.0])


@pytest.mark.parametrize("power", [0.5, 2.0, 4.0])
def test_powers_of_a_gaussian(power):
    particles, _ = sampled([GAUSS], [power], 32, replicates=20, n=1000)
    error = particles.log_z - gaussian_constant(power, 0.4, 5)
    assert abs(float(error.mean())) <= 0.015 and float(error.std()) <= 0.03


def test_the_estimate_is_unbiased_in_four_steps():
    particles, _ = sampled([GAUSS], [4.0], 4, replicates=200, n=200)
    assert_mean_close((particles.log_z - gaussian_constant(4.0, 0.4, 5)).exp(), 1.0, 3)


@pytest.mark.parametrize("power", [2.0, 4.0])
def test_powers_of_a_mixture_weigh_its_modes_anew(power):
    log_z, shares, _ = quadrature([MIXTURE], [power])
    particles, _ = sampled([MIXTURE], [power], 32)
    found, _ = averages(particles)
    assert abs(float(particles.log_z.mean()) - log_z) <= 0.05
    assert (found - shares).abs().max() <= 0.02
    unweighted, _ = averages(sampled_without_weights([MIXTURE], [power]))
    assert (unweighted - shares).abs().max() > 0.1


def sampled_without_weights(potentials, exponents) -> smc.Particles:
    """The same moves, never weighted."""
    potential = StandardisedPotential(GeometricPotential(potentials, exponents))
    kernel = smc.GuidedDenoising(PROCESS, potential, "lambda")
    generator = torch.Generator().manual_seed(0)
    like = torch.empty(12, 2000, 2, dtype=torch.float64)
    particles, _ = smc.sample(kernel, like, uniform_times(32).flip(0), ess_threshold=0.0, generator=generator)
    equal = torch.zeros_like(particles.log_weights) - math.log(2000)
    return particles._replace(x=particles.x / sum(exponents) ** 0.5, log_weights=equal)


def test_the_product_of_two_mixtures():
    log_z, shares, _ = quadrature(PAIR, [1.0, 1.0])
    particles, path = sampled(PAIR, [1.0, 1.0], 32)
    found, _ = averages(particles)
    assert abs(float(particles.log_z.mean()) - log_z) <= 0.03
    assert (found - shares).abs().max() <= 0.03
    assert float(path.ess[-1].mean()) >= 0.5 * 2000


def test_guidance_by_twice_the_conditional_density():
    log_z, _, mean = quadrature(GUIDED, [-1.0, 2.0])
    particles, _ = sampled(GUIDED, [-1.0, 2.0], 32, speed=2.0)
    assert abs(float(particles.log_z.mean()) - log_z) <= 0.08
    assert (averages(particles)[1] - mean).abs().max() <= 0.04


def test_the_velocity_form_of_a_gaussian_and_the_divergence_form_without_spread():
    flow = flow_from_score(PROCESS, lambda x, t: GAUSS.log_g_and_grad(x, t)[1] - x)
    exact, generator = gaussian_constant(2.0, 0.4, 5), torch.Generator().manual_seed(0)
    like = torch.empty(8, 1000, 5, dtype=torch.float64)
    velocity, _ = smc.sample(smc.FeynmanKacFlow([flow], [2.0]), like, uniform_times(400).flip(0), generator=generator)
    error = velocity.log_z - exact
    assert abs(float(error.mean())) <= 0.1 and float(error.std()) <= 0.15
    divergence, _ = smc.sample(
        smc.FeynmanKacDivergence([flow], [2.0]), like[:1, :3], uniform_times(800).flip(0), generator=generator
    )
    assert float(divergence.log_weights.std()) < 1e-9 and abs(float(divergence.log_z) - exact) <= 0.03


class Wrong(MixturePotential):
    """A gradient with an error that vanishes nowhere; the value is exact."""

    def log_g_and_grad(self, z, t):
        log_g, grad = super().log_g_and_grad(z, t)
        return log_g, grad + 0.1 * torch.sin(2 * z)


def test_an_error_of_the_score_biases_the_velocity_form_and_not_the_density_form():
    """The score errs by 0.1 sin 2x."""
    law = GAUSS
    wrong = Wrong.__new__(Wrong)
    wrong.__dict__ = law.__dict__
    exact = gaussian_constant(2.0, 0.4, 5)
    particles, _ = sampled([wrong], [2.0], 32, replicates=8, n=1000)
    assert abs(float(particles.log_z.mean()) - exact) <= 0.1
    flow = flow_from_score(PROCESS, lambda x, t: wrong.log_g_and_grad(x, t)[1] - x)
    like, generator = torch.empty(8, 1000, 5, dtype=torch.float64), torch.Generator().manual_seed(0)
    kernel = smc.FeynmanKacFlow([flow], [2.0], noise_ratio=2.0)
    velocity, _ = smc.sample(kernel, like, uniform_times(400).flip(0), generator=generator)
    assert abs(float(velocity.log_z.mean()) - exact) > 0.3
